//! Descriptor tables and limits. Called on the main thread before shards start, and once by each shard as it starts.
//!
//! One of the two files that need `unsafe`: `unshare(CLONE_FILES)` gives the calling thread a table of its own.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::base::limits;

/// The soft and the hard descriptor limit as they are now; `None` = no limit.
pub fn limits_now() -> (Option<u64>, Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    (limit.current, limit.maximum)
}

/// Bytes of address space the process may have (`ulimit -v`); `None` = no limit.
pub fn address_space_limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// Sockets one shard may hold where a table holds `limit` descriptors (`None` = no limit) and each shard has its own table, or all
/// share one. 0 where the reserve already takes everything.
pub fn sockets_per_shard(limit: Option<u64>, shards: usize, has_own_tables: bool) -> u64 {
    // Without a limit, a million per shard: more than one core can serve.
    let limit = limit.unwrap_or(1 << 20).min(1 << 20);
    let table = match has_own_tables {
        true => limit,
        false => limit / shards.max(1) as u64,
    };
    table.saturating_sub(reserve_per_shard(shards))
}

/// Descriptors of a shard that no viewer gets: a poller and a bell of every shard, and [`limits::DESCRIPTOR_RESERVE`].
pub fn reserve_per_shard(shards: usize) -> u64 {
    limits::DESCRIPTOR_RESERVE as u64 + 2 * shards as u64
}

/// Raises the soft descriptor limit to the hard one and returns what one table may hold; `None` = no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// Gives the calling thread its own descriptor table, a copy of the one it shared. Bells must exist already; sockets
/// opened afterwards belong to this thread alone and `RLIMIT_NOFILE` bounds them alone.
///
/// # Errors
/// What the kernel says; on other systems than Linux always `Unsupported`.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn own_table() -> io::Result<()> {
    // SAFETY: with its own table a thread must not use descriptor numbers that another thread opened or closed after
    // this call, or it would act on the wrong file. A shard calls this first of all; every socket it uses is opened by it
    // afterwards, and what it uses from before (its poller and bell, the logger's standard error) is never closed while
    // the threads run. Nothing but descriptor numbers is touched.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }
        .map_err(io::Error::from)
}

/// Gives the calling thread its own descriptor table: not on this system.
#[cfg(not(target_os = "linux"))]
pub fn own_table() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Descriptors open in the calling thread's table. Reads a directory: for a gauge, not for a turn.
pub fn open_here() -> Option<usize> {
    let entries = std::fs::read_dir("/proc/thread-self/fd").ok()?;
    Some(entries.count().saturating_sub(1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_its_own_table_counts_its_own_descriptors() {
        let here = std::thread::spawn(|| {
            own_table().unwrap();
            let before = open_here().unwrap();
            let files: Vec<_> = (0..50)
                .map(|_| std::fs::File::open("/dev/null").unwrap())
                .collect();
            let opened = open_here().unwrap() - before;
            drop(files);
            opened
        });
        assert_eq!(here.join().unwrap(), 50);
    }

    #[test]
    fn what_a_shard_may_hold() {
        assert_eq!(sockets_per_shard(Some(20_000), 2, true), 19_932);
        assert_eq!(sockets_per_shard(Some(20_000), 2, false), 9_932);
        assert_eq!(sockets_per_shard(Some(100), 2, true), 32);
        assert_eq!(sockets_per_shard(Some(68), 2, true), 0);
        assert_eq!(sockets_per_shard(Some(20), 2, true), 0);
        assert_eq!(sockets_per_shard(None, 2, true), (1 << 20) - 68);
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }
}
