//! Descriptor tables, limits and cores of the swarm's threads. The one file of the package that needs `unsafe`.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Raises the soft descriptor limit to the hard one and returns what one table may hold.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

/// Gives the calling thread its own descriptor table, so that the limit bounds each client thread and not the process.
/// Called first of all by a client thread.
///
/// # Errors
/// What the kernel says; on other systems than Linux always `Unsupported`.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn own_table() -> io::Result<()> {
    // SAFETY: after this call the thread must not use descriptor numbers opened by others, nor they its own. A client
    // thread opens its poller and every socket itself, afterwards, and closes them itself; what it shares with others
    // (counters, channels) has no descriptors.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }
        .map_err(io::Error::from)
}

/// Gives the calling thread its own descriptor table: not on this system.
#[cfg(not(target_os = "linux"))]
pub fn own_table() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a program end with SIGTERM when the thread that starts it ends, however that comes: a gateway must not outlive
/// a swarm that was killed.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn die_with_parent(command: &mut std::process::Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    let ask = || set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is a single prctl, which allocates
    // nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

/// Makes a program end with the one that started it: not on this system.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(_: &mut std::process::Command) {}

/// Does something bound to these cores, and is free again afterwards: a process started meanwhile stays bound to them.
///
/// # Errors
/// What the kernel says.
pub fn while_pinned<T>(cores: &[usize], body: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    pin(cores)?;
    let done = body();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

/// Binds the calling thread, and what it starts from now on, to these cores. None given: nothing is done.
///
/// # Errors
/// What the kernel says, for example when a core does not exist.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(io::Error::from)
}
