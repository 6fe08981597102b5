//! Looks at processes and at the server's metrics from outside. On the main thread, a few times a second; every wait is bounded.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::Clock;

/// How long the server may take for its metrics.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest metrics page taken, bytes.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// A series that is kept beside its family's sum.
pub const CLOSED_AS_SLOW: &str = "danmaku_closes_total{code=\"4413\"}";

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// CPU seconds, user and system.
    pub cpu_s: f64,
    /// Resident bytes.
    pub rss: u64,
}

/// What process `pid` has used so far; `None` if it cannot be read.
pub fn process(pid: u32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; what follows is counted from its end.
    let rest = &stat[stat.rfind(')')? + 2..];
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let (user, system, pages) = (ticks(11)?, ticks(12)?, ticks(21)?);
    Some(Used {
        cpu_s: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss: pages * rustix::param::page_size() as u64,
    })
}

/// What these processes have used so far, together; `None` if one cannot be read.
pub fn processes(pids: &[u32]) -> Option<Used> {
    let mut all = Used::default();
    for pid in pids {
        let used = process(*pid)?;
        all.cpu_s += used.cpu_s;
        all.rss += used.rss;
    }
    Some(all)
}

/// What this process has used so far, its CPU to the nanosecond.
pub fn own() -> Used {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let rss = process(std::process::id()).map_or(0, |used| used.rss);
    Used {
        cpu_s: clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9,
        rss,
    }
}

/// The metrics of all nodes, added up.
///
/// # Errors
/// What went wrong at one of them, as a sentence.
pub fn metrics_of(addresses: &[SocketAddr], clock: Clock) -> Result<BTreeMap<String, f64>, String> {
    let mut all = BTreeMap::new();
    for address in addresses {
        for (name, value) in metrics(*address, clock)? {
            *all.entry(name).or_insert(0.0) += value;
        }
    }
    Ok(all)
}

/// The server's metrics, each family summed over its labels (buckets left out).
///
/// # Errors
/// What went wrong, as a sentence.
pub fn metrics(address: SocketAddr, clock: Clock) -> Result<BTreeMap<String, f64>, String> {
    let failed = |error: std::io::Error| format!("http://{address}/metrics: {error}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    let until_us = clock.now_us() + PATIENCE.as_micros() as u64;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let page = read_within(&mut stream, clock, until_us).map_err(failed)?;
    let page = String::from_utf8_lossy(&page);
    match page.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(sums(body)),
        _ => Err(format!(
            "http://{address}/metrics did not answer 200: is this the internal listener?"
        )),
    }
}

/// All the server says until it closes; an answer that drips is cut off at the deadline like one that never comes.
fn read_within(stream: &mut TcpStream, clock: Clock, until_us: u64) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left_us = until_us.saturating_sub(clock.now_us());
        if left_us == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(Duration::from_micros(left_us)))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(page),
            Ok(read) => page.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if page.len() > PAGE_BYTES_MAX {
            return Err(io::Error::other("a page without end"));
        }
    }
}

fn sums(page: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        if name.ends_with("_bucket") {
            continue;
        }
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
            if series == CLOSED_AS_SLOW {
                sums.insert(series.to_owned(), value);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_summed() {
        let page = "# TYPE a counter\na 1\nb{x=\"1\"} 2\nb{x=\"} 3\"} 3.5\nh_bucket{le=\"1\"} 9\nh_sum 4\nodd\n\
            danmaku_closes_total{code=\"1006\"} 1\ndanmaku_closes_total{code=\"4413\"} 2\n";
        let found = sums(page);
        let expected = [
            ("a", 1.0),
            ("b", 5.5),
            ("h_sum", 4.0),
            ("danmaku_closes_total", 3.0),
            (CLOSED_AS_SLOW, 2.0),
        ];
        assert_eq!(
            found,
            expected
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        );
    }

    #[test]
    fn this_process_is_seen() {
        let (mine, seen) = (own(), process(std::process::id()).unwrap());
        assert!(seen.rss > 100_000 && mine.rss > 100_000);
        assert!((mine.cpu_s - seen.cpu_s).abs() < 1.0);
        assert_eq!(process(u32::MAX), None);
    }
}
