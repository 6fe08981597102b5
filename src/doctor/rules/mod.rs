//! The rules: facts in, findings and bounds out. Pure; each is tested with facts made up for it.

mod clock;
mod descriptors;
mod memory;
mod network;
mod redis;
#[cfg(test)]
mod tests;

use super::facts::{Facts, Plan};
use super::report::{Bound, Finding, Report, Verdict, count};

/// Judges everything.
pub fn judge(facts: &Facts) -> Report {
    let mut report = Report {
        system: facts.system.clone(),
        cores: facts.plan.cores,
        shards: facts.plan.shards,
        findings: Vec::new(),
        bounds: Vec::new(),
    };
    settings(&facts.plan, &mut report);
    shards(&facts.plan, &mut report);
    descriptors::judge(facts, &mut report);
    memory::judge(facts, &mut report);
    // What the machine itself would hold: the network is judged by whether it lets them in.
    let held = tightest(&report);
    network::judge(facts, held, &mut report);
    // After everything that can bound it: a promise is kept or it is not.
    admission(&facts.plan, &mut report);
    clock::judge(facts, &mut report);
    if let Some(found) = &facts.redis {
        redis::judge(found, &mut report);
    }
    report.bounds.sort_by_key(|bound| bound.viewers);
    report
}

/// The fewest viewers anything so far lets in.
fn tightest(report: &Report) -> Option<u64> {
    report.bounds.iter().map(|bound| bound.viewers).min()
}

fn settings(plan: &Plan, report: &mut Report) {
    if let Some(mistakes) = &plan.mistakes {
        let found = mistakes.lines().last().unwrap_or_default();
        let means = "the gateway would not start with them; the rest is judged with the defaults";
        report
            .findings
            .push(Finding::new("settings", Verdict::Bad, found, means).mend(
                "now",
                "danmaku check-config   # with the same --config: names each, and what is allowed",
            ));
    }
}

fn shards(plan: &Plan, report: &mut Report) {
    let (shards, cores) = (plan.shards, plan.cores);
    let found = format!("{shards} shards, {cores} cores");
    report.findings.push(match shards > cores {
        false => Finding::new(
            "shards",
            Verdict::Ok,
            found,
            "each reactor thread can have a core of its own",
        ),
        true => Finding::new(
            "shards",
            Verdict::Warn,
            found,
            "reactor threads take turns on the cores: right for holding more idle viewers where the descriptor limit bounds each shard, slower under load",
        )
        .mend("now", "danmaku --shards 0   # one per core; server.shards in the file"),
    });
}

/// `admission.connections_max` against what the machine holds.
fn admission(plan: &Plan, report: &mut Report) {
    if plan.connections_max == 0 {
        return;
    }
    let asked = plan.connections_max;
    let first = report.bounds.iter().min_by_key(|bound| bound.viewers);
    let found = format!("admission.connections_max is {}", count(asked));
    let finding = match first {
        Some(first) if first.viewers < asked => {
            let held = first.viewers;
            let means = format!(
                "it promises more than the {} viewers this machine holds: {} stops them before it does",
                count(held),
                first.what
            );
            Finding::new("admission", Verdict::Bad, found, means)
                .mend("now", format!("DANMAKU_ADMISSION__CONNECTIONS_MAX={held}"))
                .mend(
                    "for good",
                    format!("connections_max = {held}   # in [admission] of the config file"),
                )
        }
        _ => Finding::new(
            "admission",
            Verdict::Ok,
            found,
            "the machine holds as many; more are refused with a reason",
        ),
    };
    report.findings.push(finding);
    report.bounds.push(Bound {
        what: "admission.connections_max".into(),
        viewers: asked,
    });
}
