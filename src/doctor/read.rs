//! Reads the machine: limits, `/proc`, control groups, clocks. Main thread, once; the only file of the doctor beside `redis`
//! that asks the system anything. It must never change anything, and what cannot be read is `None`, not a guess.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use super::facts::{Cgroup, ClockFacts, Descriptors, Facts, Memory, Network, Plan};
use crate::base::clock::Clock;
use crate::config::cli::Serve;
use crate::config::load::{Loaded, Machine, Mistakes, load};
use crate::net::fd;

/// Readings of the monotonic clock that are compared and timed.
const READINGS: u32 = 10_000;
/// How long another program may take to say whether the clock is synchronised.
const PATIENCE_MS: u64 = 1_000;

/// What the settings ask of the machine; with mistakes in them, what the defaults ask.
pub fn plan(loaded: Result<Loaded, Mistakes>, machine: &Machine) -> Plan {
    let (loaded, mistakes) = match loaded {
        Ok(loaded) => (Some(loaded), None),
        Err(mistakes) => {
            let defaults = load(&Serve::default(), &mut std::iter::empty(), machine);
            (defaults.ok(), Some(mistakes.to_string()))
        }
    };
    let config = loaded.map(|loaded| loaded.config);
    let Some(config) = config else {
        return Plan {
            mistakes,
            cores: machine.cores,
            shards: machine.cores,
            fd_tables: crate::config::checked::FdTables::PerShard,
            connections_max: 0,
            ports: Vec::new(),
            has_proxy_here: false,
        };
    };
    let ports = [config.listen.public.port(), config.listen.internal.port()];
    let mut proxies = config.admission.trusted_proxies.iter();
    Plan {
        mistakes,
        cores: machine.cores,
        shards: config.server.shards,
        fd_tables: config.server.fd_tables,
        connections_max: config.admission.connections_max as u64,
        ports: ports.into_iter().filter(|port| *port != 0).collect(),
        has_proxy_here: proxies.any(|net| net.address.is_loopback()),
    }
}

/// Everything but Redis.
pub fn machine(plan: Plan) -> Facts {
    let name = |file: &str| text(&format!("/proc/sys/kernel/{file}"));
    let system = match (name("ostype"), name("osrelease")) {
        (Some(system), Some(release)) => format!("{system} {release}"),
        _ => std::env::consts::OS.to_string(),
    };
    Facts {
        system,
        is_linux: cfg!(target_os = "linux"),
        in_container: in_container(),
        plan,
        descriptors: descriptors(),
        network: network(),
        memory: memory(),
        clock: clock(),
        redis: None,
    }
}

fn in_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    marks.iter().any(|mark| Path::new(mark).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn descriptors() -> Descriptors {
    let (soft, hard) = fd::limits_now();
    // A thread of its own tries: this one keeps the table it has.
    let own_table = match std::thread::spawn(fd::own_table).join() {
        Ok(tried) => tried.map_err(|error| error.to_string()),
        Err(_) => Err("the try itself failed".into()),
    };
    let files = numbers("/proc/sys/fs/file-nr");
    // Open, free (always 0), at most.
    let (files_open, files_max) = match files[..] {
        [open, _, max] => (Some(open), Some(max)),
        _ => (None, None),
    };
    Descriptors {
        soft,
        hard,
        own_table,
        nr_open: number("/proc/sys/fs/nr_open"),
        files_open,
        files_max,
    }
}

fn network() -> Network {
    let range = numbers("/proc/sys/net/ipv4/ip_local_port_range");
    let tracked = |what: &str| number(&format!("/proc/sys/net/netfilter/nf_conntrack_{what}"));
    Network {
        port_range: match range[..] {
            [low, high] => Some((low as u16, high as u16)),
            _ => None,
        },
        reserved_ports: text("/proc/sys/net/ipv4/ip_local_reserved_ports")
            .map(|ranges| port_ranges(&ranges))
            .unwrap_or_default(),
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        syn_backlog: number("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
        syncookies: number("/proc/sys/net/ipv4/tcp_syncookies"),
        conntrack: tracked("count").zip(tracked("max")),
        tcp_mem: numbers("/proc/sys/net/ipv4/tcp_mem").try_into().ok(),
        page_bytes: rustix::param::page_size() as u64,
    }
}

/// `8080,9000-9010`.
fn port_ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

fn memory() -> Memory {
    let info = text("/proc/meminfo").unwrap_or_default();
    Memory {
        available: kib_of(&info, "MemAvailable"),
        cgroup: cgroup(),
        swap: kib_of(&info, "SwapTotal"),
        swappiness: number("/proc/sys/vm/swappiness"),
        overcommit: number("/proc/sys/vm/overcommit_memory"),
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn kib_of(info: &str, name: &str) -> Option<u64> {
    let mut lines = info.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The tightest memory limit of the control groups this process is in, either version.
fn cgroup() -> Option<Cgroup> {
    let groups = text("/proc/self/cgroup")?;
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            for folder in upwards("/sys/fs/cgroup", path) {
                limits.extend(group(
                    &folder,
                    "memory.max",
                    "memory.current",
                    "inactive_file",
                ));
            }
        } else if controllers.split(',').any(|one| one == "memory") {
            for folder in upwards("/sys/fs/cgroup/memory", path) {
                let (limit, used) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
                limits.extend(group(&folder, limit, used, "total_inactive_file"));
            }
        }
    }
    limits
        .into_iter()
        .min_by_key(|group| group.limit.saturating_sub(group.used))
}

/// A group's folder and those above it up to the root: every limit on the way binds.
fn upwards(root: &str, path: &str) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(root)];
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = folders[folders.len() - 1].join(part);
        folders.push(next);
    }
    folders
}

fn group(folder: &Path, limit: &str, used: &str, cache: &str) -> Option<Cgroup> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    // "max", or a number near 2^63, is no limit.
    let limit: u64 = read(limit)?.trim().parse().ok()?;
    let used: u64 = read(used)?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let mut lines = stat.lines();
    let cached = lines.find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok());
    (limit < 1 << 60).then(|| Cgroup {
        limit,
        used: used.saturating_sub(cached.unwrap_or(0)),
    })
}

fn clock() -> ClockFacts {
    let clock = Clock::start();
    let (mut last, mut steps_back) = (clock.mono_ns(), 0);
    let begun = last;
    for _ in 0..READINGS {
        let now = clock.mono_ns();
        steps_back += u32::from(now < last);
        last = now;
    }
    ClockFacts {
        steps_back,
        reading_ns: last.saturating_sub(begun) / u64::from(READINGS),
        source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        unix_s: clock.now().unix_s(),
        is_synced: is_synced(&clock),
    }
}

/// What `systemd-timesyncd` left behind, or what `timedatectl` says of whoever keeps the clock.
fn is_synced(clock: &Clock) -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let mut child = Command::new("timedatectl")
        .args(["show", "-p", "NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until_ms = clock.now().mono_ms() + PATIENCE_MS;
    while child.try_wait().ok()?.is_none() {
        if clock.now().mono_ms() > until_ms {
            // It is not to outlive us; if it ended by itself meanwhile, so much the better.
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = child.wait_with_output().ok()?;
    match String::from_utf8_lossy(&said.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn text(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}

fn number(path: &str) -> Option<u64> {
    u64::from_str(&text(path)?).ok()
}

fn numbers(path: &str) -> Vec<u64> {
    let text = text(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let info =
            "MemTotal:       24683540 kB\nMemAvailable:   1024 kB\nSwapTotal:             0 kB\n";
        assert_eq!(kib_of(info, "MemAvailable"), Some(1 << 20));
        assert_eq!(kib_of(info, "SwapTotal"), Some(0));
        assert_eq!(kib_of(info, "Mem"), None);
        assert_eq!(kib_of("", "MemAvailable"), None);
        assert_eq!(port_ranges("8080,9000-9010"), [(8080, 8080), (9000, 9010)]);
        assert_eq!(port_ranges(""), []);
    }

    #[test]
    fn every_group_on_the_way_up_is_asked() {
        let folders = upwards("/top", "a.slice/b.service");
        let wanted = ["/top", "/top/a.slice", "/top/a.slice/b.service"];
        assert_eq!(folders, wanted.map(PathBuf::from));
        assert_eq!(upwards("/top", ""), [PathBuf::from("/top")]);
    }

    #[test]
    fn a_group_without_a_limit_is_none() {
        let folder = std::env::temp_dir().join(format!("doctor-group-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
        let read = || group(&folder, "memory.max", "memory.current", "inactive_file");
        assert_eq!(read(), None);
        write("memory.max", "max\n");
        write("memory.current", "3000\n");
        assert_eq!(read(), None);
        write("memory.max", "10000\n");
        write("memory.stat", "anon 5\ninactive_file 1000\n");
        let wanted = Cgroup {
            limit: 10_000,
            used: 2_000,
        };
        assert_eq!(read(), Some(wanted));
        fs::remove_dir_all(&folder).unwrap();
    }
}
