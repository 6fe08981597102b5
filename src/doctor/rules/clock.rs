//! Judges both clocks: deadlines need one that is steady and cheap, tokens one that is right.

use super::super::facts::{ClockFacts, Facts};
use super::super::report::{Finding, Report, Verdict, count};

/// 2026-01-01: this program is younger.
const UNIX_S_MIN: u64 = 1_767_225_600;
/// 2100-01-01.
const UNIX_S_MAX: u64 = 4_102_444_800;
/// A reading that needs no system call takes tens of nanoseconds.
const READING_NS_MAX: u64 = 500;

/// Adds the findings.
pub fn judge(facts: &Facts, report: &mut Report) {
    report.findings.push(monotonic(&facts.clock));
    report.findings.push(wall(&facts.clock, facts.in_container));
}

fn monotonic(clock: &ClockFacts) -> Finding {
    const CHECK: &str = "monotonic clock";
    let source = clock.source.as_deref().unwrap_or("an unknown source");
    let found = format!("{source}, {} ns a reading", count(clock.reading_ns));
    if clock.steps_back > 0 {
        let means = format!(
            "it went back {} times: deadlines and heartbeats are wrong",
            clock.steps_back
        );
        return slow_source(Finding::new(CHECK, Verdict::Bad, found, means));
    }
    match clock.reading_ns > READING_NS_MAX {
        true => slow_source(Finding::new(
            CHECK,
            Verdict::Warn,
            found,
            "each reading is a system call or worse; a turn reads it several times",
        )),
        false => Finding::new(CHECK, Verdict::Ok, found, "steady and cheap"),
    }
}

fn slow_source(finding: Finding) -> Finding {
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    finding
        .mend("now", format!("cat {FOLDER}/available_clocksource; echo tsc > {FOLDER}/current_clocksource   # kvm-clock or arch_sys_counter where there is no tsc"))
        .mend("for good", "clocksource=tsc   # on the kernel's command line")
}

fn wall(clock: &ClockFacts, in_container: bool) -> Finding {
    const CHECK: &str = "wall clock";
    if !(UNIX_S_MIN..UNIX_S_MAX).contains(&clock.unix_s) {
        let found = format!("{} seconds since 1970", count(clock.unix_s));
        let means = "that cannot be: every token is judged expired, or none";
        return synchronise(Finding::new(CHECK, Verdict::Bad, found, means));
    }
    match clock.is_synced {
        Some(true) => Finding::new(
            CHECK,
            Verdict::Ok,
            "kept by time synchronisation",
            "a token's exp and nbf are judged by it",
        ),
        Some(false) => synchronise(Finding::new(
            CHECK,
            Verdict::Warn,
            "plausible, but not synchronised",
            "it drifts: tokens expire early or late (auth.leeway forgives 5 s by default)",
        )),
        None => {
            let finding = Finding::new(
                CHECK,
                Verdict::Unknown,
                "plausible; whether it is synchronised cannot be seen from here",
                "a token's exp and nbf are judged by it",
            );
            let place = if in_container { "host" } else { "now" };
            finding.mend(
                place,
                "timedatectl show -p NTPSynchronized   # or: chronyc tracking",
            )
        }
    }
}

fn synchronise(finding: Finding) -> Finding {
    finding
        .mend("now", "timedatectl set-ntp true")
        .mend("for good", "apt-get install -y chrony")
}
