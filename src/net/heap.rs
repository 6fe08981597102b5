//! What the allocator keeps for itself is given back to the system. Called by the main thread; it must never be called by a
//! shard, because it looks at every free piece of memory the process has.
//!
//! One of the two files with `unsafe`: `malloc_trim` is the C library's own and has no wrapper.

/// Gives back what is free and kept by the C library's allocator, in whole pages. A shard that allocates at that moment
/// waits for its own arena: some milliseconds for every hundred MiB in it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn give_back() {
    unsafe extern "C" {
        /// malloc_trim(3).
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: may be called at any time by any thread (MT-Safe, says its page); it moves nothing that is in use.
    unsafe { malloc_trim(0) };
}

/// Other C libraries have nothing of the kind, or need none.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
