//! What the operating system says about this process: CPU, memory, threads, limits, age.
//!
//! This file asks the OS, when a page is rendered and on the thread that renders it: one small file under `/proc` (two
//! the first time) and two system calls, some 15 microseconds. It must never be called from a turn's inner steps. Elsewhere than
//! Linux it answers zeros, and so does a thread whose descriptor table is full, for what it reads from `/proc`.
//!
//! It does not count descriptors. `/proc/self/fd` shows one descriptor table, the main thread's; shards that parted with
//! `unshare(CLONE_FILES)` are not in it, and reading it costs time by the descriptor. So each shard knows how many it
//! holds and sets [`Gauge::OpenFds`](super::table::Gauge::OpenFds).

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// CPU time of all threads, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Soft limit on descriptors in one table; `None` is no limit.
    pub max_fds: Option<u64>,
    /// When the process began, in milliseconds since 1970.
    pub start_unix_ms: u64,
}

impl ProcessStats {
    /// Asks the operating system.
    pub fn read() -> ProcessStats {
        #[cfg(target_os = "linux")]
        return linux::read();
        #[cfg(not(target_os = "linux"))]
        return ProcessStats {
            max_fds: Some(0),
            ..ProcessStats::default()
        };
    }
}

/// Resident memory now, bytes; 0 where it cannot be told.
pub fn resident_bytes() -> u64 {
    ProcessStats::read().resident_bytes
}

/// Memory this process may have, bytes: the machine's, or its control group's where that is less (cgroup v2). `None` where it cannot be
/// told.
pub fn memory_max() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::memory_max();
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::sync::OnceLock;

    use rustix::param::{clock_ticks_per_second, page_size};
    use rustix::process::{Resource, getrlimit};
    use rustix::time::{ClockId, clock_gettime};

    use super::ProcessStats;

    pub(super) fn read() -> ProcessStats {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let stat = parse_stat(&stat).unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        ProcessStats {
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            resident_bytes: stat.resident_pages.saturating_mul(page_size() as u64),
            virtual_bytes: stat.virtual_bytes,
            threads: stat.threads,
            max_fds: getrlimit(Resource::Nofile).current,
            start_unix_ms: start_unix_ms(stat.start_ticks),
        }
    }

    pub(super) fn memory_max() -> Option<u64> {
        let machine = parse_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let limits = own.into_iter().flat_map(|path| {
            let folder = std::path::Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
            let upwards: Vec<_> = folder.ancestors().map(|at| at.join("memory.max")).collect();
            upwards
        });
        let limit = |file| fs::read_to_string(file).ok()?.trim().parse().ok();
        let tightest = limits.filter_map(limit).min();
        Some(tightest.map_or(machine, |limit: u64| limit.min(machine)))
    }

    /// `MemTotal` of `/proc/meminfo` (proc_meminfo(5)), bytes.
    pub(super) fn parse_total(meminfo: &str) -> Option<u64> {
        let mut lines = meminfo.lines();
        let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// What is taken from `/proc/self/stat` (proc_pid_stat(5)).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Stat {
        pub(super) threads: u64,
        pub(super) start_ticks: u64,
        pub(super) virtual_bytes: u64,
        pub(super) resident_pages: u64,
    }

    /// Field 2 is the program's name in brackets and may itself hold blanks and brackets, so counting begins behind the
    /// last one: the state is field 3.
    pub(super) fn parse_stat(line: &str) -> Option<Stat> {
        let (_, rest) = line.rsplit_once(')')?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse().ok();
        Some(Stat {
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    /// Boot time plus the process's age at boot's clock. The boot time is read once: the file that holds it is long, and
    /// a clock set later must not move a start that has been told already.
    fn start_unix_ms(start_ticks: u64) -> u64 {
        static BOOT_UNIX_S: OnceLock<u64> = OnceLock::new();
        let boot = *BOOT_UNIX_S.get_or_init(|| {
            let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
            parse_boot(&stat).unwrap_or_default()
        });
        let ticks_per_s = clock_ticks_per_second().max(1);
        boot * 1000 + start_ticks.saturating_mul(1000) / ticks_per_s
    }

    pub(super) fn parse_boot(stat: &str) -> Option<u64> {
        let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        line.trim().parse().ok()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::linux::{Stat, parse_boot, parse_stat, parse_total};
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 1 42 42 0 -1 4194304 101 0 0 0 7 8 0 0 20 0 9 0 256268 3133440 397 18446744073709551615";
        let stat = Stat {
            threads: 9,
            start_ticks: 256_268,
            virtual_bytes: 3_133_440,
            resident_pages: 397,
        };
        assert_eq!(parse_stat(line), Some(stat));
        assert_eq!(parse_stat("42 (a) S 1 2"), None);
        assert_eq!(parse_stat(""), None);
        assert_eq!(
            parse_boot("cpu 1 2\nbtime 1795377714\n"),
            Some(1_795_377_714)
        );
        assert_eq!(parse_boot("cpu 1 2\n"), None);
        let meminfo = "MemTotal:       24618748 kB\nMemFree: 1 kB\n";
        assert_eq!(parse_total(meminfo), Some(24_618_748 * 1024));
        assert_eq!(parse_total("MemFree: 1 kB\n"), None);
        assert!(memory_max().is_some_and(|max| max > resident_bytes()));
    }

    #[test]
    fn this_process_is_alive_young_and_of_a_plausible_size() {
        let first = ProcessStats::read();
        assert!(first.threads >= 1);
        assert!(first.resident_bytes > 100 << 10, "{first:?}");
        assert!(first.virtual_bytes >= first.resident_bytes);
        assert!(first.max_fds.is_none_or(|fds| fds > 10));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age_ms = now.as_millis() as i64 - first.start_unix_ms as i64;
        assert!((-60_000..86_400_000).contains(&age_ms), "age {age_ms} ms");
        let second = ProcessStats::read();
        assert!(second.cpu_ns > first.cpu_ns);
        assert_eq!(second.start_unix_ms, first.start_unix_ms);
    }
}
