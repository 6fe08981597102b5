//! Judges memory: how many viewers it holds, and whether swapping or strict accounting would be in the way.

use super::super::facts::{Facts, Memory};
use super::super::report::{Bound, Finding, Report, Verdict, bytes, count};
use super::tightest;

/// An idle viewer in the process: 380 to 393 B resident (docs/bench).
const USER_BYTES: u64 = 400;
/// One end of an idle connection in the kernel: half of the 9.2 KB that a loopback pair costs, epoll entry included.
const KERNEL_BYTES: u64 = 4_600;
/// The process without viewers: code, logs, the metric blocks.
const PROCESS_BYTES: u64 = 16 << 20;
/// A shard without viewers: a full mailbox, scratch, tables.
const SHARD_BYTES: u64 = 8 << 20;
/// Of what is left, the share that idle viewers may take, in percent: rooms' logs and the buffers of busy sockets need the rest.
const IDLE_PERCENT: u64 = 80;
/// Less room than this is no place for a gateway.
const FEW_VIEWERS: u64 = 1_000;
/// From here on the kernel gives memory to swap although there is some left.
const SWAPPINESS_MAX: u64 = 10;

/// Adds the findings and what they let in.
pub fn judge(facts: &Facts, report: &mut Report) {
    let memory = &facts.memory;
    match usable(memory) {
        None => {
            let what = "the memory that is available";
            report.findings.push(Finding::unknown("memory", what));
        }
        Some((free, whence)) => {
            let viewers = viewers_in(free, facts.plan.shards);
            let others = tightest(report);
            report.findings.push(room(free, &whence, viewers, others));
            report.bounds.push(Bound {
                what: "memory".into(),
                viewers,
            });
        }
    }
    report.findings.extend(swapping(memory));
    report.findings.extend(strict(memory));
}

/// Bytes that can be had, and what says so: the machine, or a tighter control group.
fn usable(memory: &Memory) -> Option<(u64, String)> {
    let machine = memory
        .available
        .map(|free| (free, "MemAvailable".to_string()));
    let group = memory.cgroup.map(|group| {
        let left = group.limit.saturating_sub(group.used);
        let whence = format!("left of the control group's {}", bytes(group.limit));
        (left, whence)
    });
    machine
        .into_iter()
        .chain(group)
        .min_by_key(|(free, _)| *free)
}

fn viewers_in(free: u64, shards: usize) -> u64 {
    let own = PROCESS_BYTES + SHARD_BYTES * shards as u64;
    free.saturating_sub(own) / 100 * IDLE_PERCENT / (USER_BYTES + KERNEL_BYTES)
}

fn room(free: u64, whence: &str, viewers: u64, others: Option<u64>) -> Finding {
    let found = format!("{} ({whence})", bytes(free));
    let means = format!(
        "room for {} idle viewers at {} each: {USER_BYTES} B in the process (measured, docs/bench) and about {} B in the kernel (half an idle loopback pair), {IDLE_PERCENT} % of what is free given to them",
        count(viewers),
        bytes(USER_BYTES + KERNEL_BYTES),
        count(KERNEL_BYTES),
    );
    if viewers < FEW_VIEWERS {
        return Finding::new("memory", Verdict::Bad, found, means)
            .mend(
                "systemd",
                "MemoryMax=1G   # in [Service] of the unit: at least",
            )
            .mend("docker", "docker run --memory 1g ...");
    }
    if others.is_some_and(|others| viewers < others) {
        return Finding::new(
            "memory",
            Verdict::Warn,
            found,
            format!("{means}; the descriptors let in more, and then the kernel kills the process"),
        )
        .mend(
            "now",
            format!("DANMAKU_ADMISSION__CONNECTIONS_MAX={viewers}"),
        )
        .mend(
            "for good",
            format!("connections_max = {viewers}   # in [admission] of the config file"),
        );
    }
    Finding::new("memory", Verdict::Ok, found, means)
}

/// Only where there is swap at all.
fn swapping(memory: &Memory) -> Option<Finding> {
    let (swap, swappiness) = (memory.swap?, memory.swappiness?);
    (swap > 0 && swappiness > SWAPPINESS_MAX).then(|| {
        let found = format!("{} of swap, vm.swappiness is {swappiness}", bytes(swap));
        let means =
            "idle viewers' memory may be swapped out; a line to a room then waits for the disk";
        Finding::new("swap", Verdict::Warn, found, means).sysctl("vm.swappiness", "1", false)
    })
}

/// Only where it is strict.
fn strict(memory: &Memory) -> Option<Finding> {
    (memory.overcommit? == 2).then(|| {
        let found = "vm.overcommit_memory is 2";
        let means = "the kernel refuses memory that is reserved but not used, so the process may fail to grow long before memory is full";
        Finding::new("overcommit", Verdict::Warn, found, means).sysctl("vm.overcommit_memory", "0", false)
    })
}
