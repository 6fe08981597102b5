//! What the swarm runs on, for reports. Read once, on the main thread.

use std::fs;

use crate::report::Machine;

/// What this machine is, as far as it tells.
pub fn machine() -> Machine {
    let kernel = rustix::system::uname();
    Machine {
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        kernel: format!(
            "{} {}",
            kernel.sysname().to_string_lossy(),
            kernel.release().to_string_lossy()
        ),
        memory_bytes: field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024),
    }
}

/// The first line `name : value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}
