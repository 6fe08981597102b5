//! Judges descriptor limits: of a table, of the machine.

use super::super::facts::{Descriptors, Facts};
use super::super::report::{Bound, Finding, Report, Verdict, count};
use crate::base::limits;
use crate::config::checked::FdTables;
use crate::net::fd;

const FEW_VIEWERS: u64 = limits::FEW_VIEWERS as u64;
/// What to raise a limit to: a million viewers on one shard, and what the kernel allows by default (`fs.nr_open`).
const LIMIT_WANTED: u64 = 1 << 20;
/// The most `server.shards` allows.
const SHARDS_MAX: usize = 256;

/// Adds the findings and what they let in.
pub fn judge(facts: &Facts, report: &mut Report) {
    let descriptors = &facts.descriptors;
    let shards = facts.plan.shards;
    let own = facts.plan.fd_tables == FdTables::PerShard && descriptors.own_table.is_ok();
    let per_shard = fd::sockets_per_shard(descriptors.hard, shards, own);
    let viewers = per_shard.saturating_mul(shards as u64);
    report
        .findings
        .push(limit(descriptors, shards, own, viewers));
    if facts.plan.fd_tables == FdTables::PerShard
        && let Err(error) = &descriptors.own_table
    {
        report.findings.push(shared_table(facts, error));
    }
    report.bounds.push(Bound {
        what: "the descriptor limit".into(),
        viewers,
    });
    machine_wide(descriptors, viewers, report);
}

fn limit(descriptors: &Descriptors, shards: usize, own: bool, viewers: u64) -> Finding {
    let show = |limit: Option<u64>| limit.map_or("none".into(), count);
    let found = format!(
        "hard limit {}, soft limit {} (the gateway raises it to the hard one itself); {}",
        show(descriptors.hard),
        show(descriptors.soft),
        match own {
            true => "each shard has its own table",
            false => "all shards share one table",
        }
    );
    let verdict = match viewers {
        0 => Verdict::Bad,
        viewers if viewers < FEW_VIEWERS => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let reserve = fd::reserve_per_shard(shards);
    let means = match viewers {
        0 => format!(
            "the gateway does not start: a shard keeps {reserve} descriptors for itself and nothing is left for viewers"
        ),
        viewers => format!(
            "room for {} viewers: {} on each of {shards} shards, {reserve} of its descriptors kept for listeners, pollers and refusals",
            count(viewers),
            count(per_shard(viewers, shards)),
        ),
    };
    let finding = Finding::new("descriptors", verdict, found, means);
    match verdict {
        Verdict::Ok => finding,
        _ => {
            let finding = raised(finding, descriptors.nr_open);
            match own {
                true => more_shards(finding, descriptors.hard, shards, viewers),
                false => finding,
            }
        }
    }
}

/// Where the limit cannot be raised (a container without that right): each further shard brings a table of its own. As many as
/// let in enough, or the most that helps: each shard also keeps two descriptors for every other one.
fn more_shards(finding: Finding, limit: Option<u64>, shards: usize, viewers: u64) -> Finding {
    let held = |shards: usize| fd::sockets_per_shard(limit, shards, true) * shards as u64;
    let enough = (1..=SHARDS_MAX).find(|&shards| held(shards) >= FEW_VIEWERS);
    let wanted = enough.or_else(|| (1..=SHARDS_MAX).max_by_key(|&shards| held(shards)));
    match wanted {
        Some(wanted) if wanted > shards && held(wanted) > viewers => finding.mend(
            "or else",
            format!(
                "danmaku --shards {wanted}   # where the limit cannot be raised: room for {} viewers",
                count(held(wanted))
            ),
        ),
        _ => finding,
    }
}

fn per_shard(viewers: u64, shards: usize) -> u64 {
    viewers / shards.max(1) as u64
}

/// The ways to raise a hard limit. Nothing goes above `fs.nr_open`.
fn raised(finding: Finding, nr_open: Option<u64>) -> Finding {
    let wanted = nr_open.map_or(LIMIT_WANTED, |max| max.min(LIMIT_WANTED));
    let finding = finding
        .mend("now", format!("ulimit -Hn {wanted}; ulimit -n {wanted}   # as root, in the shell that starts it"))
        .mend("systemd", format!("LimitNOFILE={wanted}   # in [Service] of the unit"))
        .mend("docker", format!("docker run --ulimit nofile={wanted}:{wanted} ..."))
        .mend(
            "for good",
            format!("echo '* - nofile {wanted}' >> /etc/security/limits.d/90-danmaku.conf   # for log-in shells"),
        );
    match nr_open {
        Some(max) if max < LIMIT_WANTED => {
            finding.sysctl("fs.nr_open", &LIMIT_WANTED.to_string(), false)
        }
        _ => finding,
    }
}

fn shared_table(facts: &Facts, error: &str) -> Finding {
    let found = format!("a thread cannot have a descriptor table of its own: {error}");
    let means = "the limit bounds the whole process instead of each shard, and shards share the lock of one table";
    if !facts.is_linux {
        let means = format!("{means}; only Linux has tables per thread");
        return Finding::new("descriptor tables", Verdict::Unknown, found, means);
    }
    let finding = Finding::new("descriptor tables", Verdict::Warn, found, means);
    match facts.in_container {
        true => finding.mend(
            "docker",
            format!("docker run --ulimit nofile={LIMIT_WANTED}:{LIMIT_WANTED} --security-opt seccomp=PROFILE.json ...   # a profile that allows unshare; the limit alone is enough for most"),
        ),
        false => finding.mend(
            "systemd",
            "SystemCallFilter=@system-service   # it allows unshare; take ~unshare and ~@process out",
        ),
    }
}

/// Files of all processes together.
fn machine_wide(descriptors: &Descriptors, viewers: u64, report: &mut Report) {
    let (Some(open), Some(max)) = (descriptors.files_open, descriptors.files_max) else {
        return;
    };
    let left = max.saturating_sub(open);
    if left < viewers {
        let found = format!("fs.file-max is {}, {} are open", count(max), count(open));
        let means = format!(
            "all processes together may open {} more files; beyond it accepting fails (ENFILE)",
            count(left)
        );
        let verdict = match left < FEW_VIEWERS {
            true => Verdict::Bad,
            false => Verdict::Warn,
        };
        let wanted = open.saturating_add(viewers.saturating_mul(2));
        report
            .findings
            .push(Finding::new("open files", verdict, found, means).sysctl(
                "fs.file-max",
                &wanted.to_string(),
                false,
            ));
        report.bounds.push(Bound {
            what: "fs.file-max".into(),
            viewers: left,
        });
    }
}
