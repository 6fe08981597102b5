//! `RESULTS.md`: what was found, as a table, with the machine, the settings and how to repeat it. Pure text.

use std::fmt::Write;

use crate::results::{Bound, Done, Figure, Purpose, Results, Run, Verdict};

/// The whole page.
pub fn page(results: &Results) -> String {
    let mut page = String::from(
        "# Results\n\nMade by `scripts/bench.sh`; not written by hand. What each case is for and how it is measured: [README](README.md).\n",
    );
    machine(&mut page, results);
    page.push_str("\n| work | what | bound | measured | |\n|---|---|---|---|---|\n");
    for case in &results.cases {
        for figure in &case.figures {
            let verdict = verdict(figure);
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {verdict} |",
                case.name,
                figure.what,
                figure
                    .bound
                    .map_or(String::new(), |bound| shown_bound(bound, &figure.unit)),
                measured(figure)
            );
        }
        if let Some(why) = &case.failed {
            let _ = writeln!(
                page,
                "| {} | {} | | | **not measured** |",
                case.name,
                cell(why)
            );
        }
    }
    if results
        .cases
        .iter()
        .any(|case| case.name == "peak" || case.name == "rooms")
    {
        page.push_str("\n![Delivered against offered](peak.svg)\n");
    }
    for case in &results.cases {
        section(&mut page, case);
    }
    page
}

/// One figure in a line.
pub fn sentence(figure: &Figure) -> String {
    let bound = figure.bound.map_or(String::new(), |bound| {
        format!(" ({})", shown_bound(bound, &figure.unit))
    });
    let verdict = verdict(figure);
    format!("{}: {}{bound} {verdict}", figure.what, measured(figure))
        .trim_end()
        .to_owned()
}

fn machine(page: &mut String, results: &Results) {
    let machine = &results.machine;
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    let _ = writeln!(
        page,
        "\n{}, {} cores, {gib:.1} GiB, {}.",
        machine.processor, machine.cores, machine.kernel
    );
    page.push_str(
        "The server has core 0 and the swarm core 1, one shard, lines of 128 bytes of text, default settings but for the limits a single speaker meets; medians of the rounds \
         listed below [smallest .. largest]. Runs of gateway and bare server take turns.\n",
    );
    page.push_str(
        "In the cases of several nodes three gateways of one shard each and their Redis share core 0, and the swarm and what else the suite itself does have core 1: latencies hold what the nodes take \
         from each other there, which nodes on machines of their own do not.\n",
    );
    if results.cases.iter().any(|case| case.smoke) {
        page.push_str("\n**A smoke run is among these: small, short, once. Its figures show that the suite works and nothing else.**\n");
    }
}

fn section(page: &mut String, case: &Done) {
    let built = &case.built;
    let _ = writeln!(page, "\n## {}\n\n{}.", case.name, capital(&case.work));
    let smoke = if case.smoke { ", a smoke run" } else { "" };
    let _ = writeln!(
        page,
        "Measured {} at {} (danmaku-gateway {}, {}){smoke}; load average before {:.2}.",
        date(case.at_ms),
        built.commit,
        built.version,
        built.rustc,
        case.load
    );
    let disturbed = case.runs.iter().filter(|run| !run.undisturbed()).count();
    if disturbed > 0 {
        let _ = writeln!(
            page,
            "**Others used the machine during {disturbed} of {} runs: these figures will not repeat.**",
            case.runs.len()
        );
    }
    for note in &case.notes {
        let _ = writeln!(page, "{note}");
    }
    if !case.micro.is_empty() {
        page.push_str("\n| what | per | ns | instructions |\n|---|---|---|---|\n");
        for row in &case.micro {
            let _ = writeln!(
                page,
                "| {} | {} | {:.1} | {:.0} |",
                cell(&row.what),
                row.per,
                row.ns,
                row.instructions
            );
        }
    }
    if !case.runs.is_empty() {
        runs(page, &case.runs);
    }
}

fn runs(page: &mut String, runs: &[Run]) {
    page.push_str("\n| run | offered | delivered | p50 | p99 | CPU each | cores: server, swarm | |\n|---|---|---|---|---|---|---|---|\n");
    for run in runs {
        let purpose = match run.purpose {
            Purpose::Round => "",
            Purpose::Search => ", searching",
            Purpose::Beyond => ", beyond",
        };
        let some =
            |value: Option<f64>, unit| value.map_or(String::new(), |value| show(value, unit));
        let mut limit = match run.limit() {
            "" => String::new(),
            limit => format!(" (limit: {limit})"),
        };
        if !run.undisturbed() {
            let _ = write!(limit, " (others: {:.2})", run.others_cores);
        }
        let _ = writeln!(
            page,
            "| {}{purpose} | {} | {} | {} | {} | {} | {:.2}, {:.2}{limit} | {} |",
            run.setup,
            some(run.offered_per_s, "/s"),
            show(run.delivered_per_s, "/s"),
            show(run.p50_ms, "ms"),
            show(run.p99_ms, "ms"),
            some(run.cpu_us_per_delivery, "us"),
            run.server_cores,
            run.swarm_cores,
            cell(run.broken.first().map_or("", String::as_str))
        );
    }
    let mut commands: Vec<(&str, &str)> = Vec::new();
    for run in runs.iter().filter(|run| run.purpose == Purpose::Round) {
        if commands.iter().all(|(setup, _)| *setup != run.setup) {
            commands.push((&run.setup, &run.command));
        }
    }
    page.push_str("\n```\n");
    for (setup, command) in commands {
        let _ = writeln!(page, "# {setup}\n{command}");
    }
    page.push_str("```\n");
}

fn verdict(figure: &Figure) -> &'static str {
    match figure.verdict {
        Verdict::Held => "held",
        Verdict::Missed => "**missed**",
        Verdict::Shown => "",
        Verdict::Unknown => "**not measured**",
    }
}

fn measured(figure: &Figure) -> String {
    let middle = show(figure.median, &figure.unit);
    let (smallest, largest) = figure.range();
    match figure.values.len() {
        0 => String::new(),
        1 => middle,
        _ if smallest == largest => middle,
        _ => format!(
            "{middle} [{} .. {}]",
            show(smallest, &figure.unit),
            show(largest, &figure.unit)
        ),
    }
}

fn shown_bound(bound: Bound, unit: &str) -> String {
    match bound {
        Bound::AtMost(most) => format!("at most {}", show(most, unit)),
        Bound::AtLeast(least) => format!("at least {}", show(least, unit)),
    }
}

/// A figure with three digits that count, and its unit.
fn show(value: f64, unit: &str) -> String {
    let (value, prefix) = match value.abs() {
        size if size >= 1e6 && unit == "/s" => (value / 1e6, " million"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let digits = match value == value.round() {
        true => grouped(value),
        false if decimals == 0 => grouped(value.round()),
        false => format!("{value:.decimals$}"),
    };
    let unit = match unit {
        "us" => " µs",
        "x" => " ×",
        "" | "/s" => unit,
        _ => return format!("{digits}{prefix} {unit}"),
    };
    format!("{digits}{prefix}{unit}")
}

/// A whole number, its digits by threes.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// Text as one cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\r', '\n'], " ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// The day of a time in milliseconds since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(at_ms: u64) -> String {
    let days = at_ms / 86_400_000 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_their_unit() {
        let table = [
            (313.4, "B", "313 B"),
            (4_512_345.0, "/s", "4.51 million/s"),
            (50_000.0, "/s", "50,000/s"),
            (0.9437, "x", "0.944 ×"),
            (23.96, "us", "24.0 µs"),
            (0.0, "", "0"),
            (1.0, "us", "1 µs"),
            (15_000.0, "", "15,000"),
            (-0.25, "MiB", "-0.250 MiB"),
        ];
        for (value, unit, expected) in table {
            assert_eq!(show(value, unit), expected);
        }
    }

    #[test]
    fn days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400_000), "2000-02-29");
        assert_eq!(date(1_795_392_000_000), "2026-11-23");
    }

    #[test]
    fn a_sentence_says_all() {
        let values = [Some(3.0), Some(1.0), Some(2.0)];
        let figure = Figure::judge("p99", "ms", Some(Bound::AtMost(1.5)), &values, false);
        assert_eq!(
            sentence(&figure),
            "p99: 2 ms [1 ms .. 3 ms] (at most 1.50 ms) **missed**"
        );
    }
}
