//! The swarm is believed because it finds what is wrong: against a double that drops, doubles, swaps, ... one line in
//! about 10,000 it must say so, and against an honest one it must not.

mod double;
mod support;

use danmaku_swarm::report::file::read_json;
use danmaku_swarm::report::{Deliveries, Report};
use double::{Fault, PERIOD, Tongue, start};
use support::{said, scratch, swarm};

const VIEWERS: u64 = 100;
const LINES: u64 = 200;
/// How often a fault of one in [`PERIOD`] deliveries happens in a run.
const TIMES: u64 = VIEWERS * LINES / PERIOD;

const ORDER: &str = "every line reached every member once and in order, or the member was told";
const CONTENT: &str = "what arrived is what was sent";
const PROTOCOL: &str = "the protocol was kept";
const ACCEPTED: &str = "every line that was due was accepted";
const INSIDE: &str = "every client got in and into its room";
const STAYED: &str = "who was in and read stayed in";

/// Lines go by HTTP push.
const VIA_HTTP: &[&str] = &["push"];

/// Runs the swarm against a double; all doubles of a table at once.
fn runs<T: Copy + Send + 'static>(
    table: &[(Fault, T)],
    tongue: Tongue,
    extra: &'static [&'static str],
) -> Vec<(Fault, T, Option<i32>, Report)> {
    let running: Vec<_> = table
        .iter()
        .map(|(fault, expected)| {
            let (fault, expected) = (*fault, *expected);
            std::thread::spawn(move || {
                let double = start(tongue, fault);
                let url = format!("ws://{}/ws", double.public);
                let internal = double.internal.to_string();
                let json = scratch("broken.json");
                let words = [
                    "room",
                    "--url",
                    &url,
                    "--viewers",
                    "100",
                    "--rate",
                    "100",
                    "--duration",
                    "2s",
                ];
                let http = ["--via", "http", "--internal", &internal, "--api-key", "k"];
                let http = match extra {
                    VIA_HTTP => &http[..],
                    _ => extra,
                };
                let output = swarm(&[&words[..], http].concat(), &json).output().unwrap();
                assert!(json.exists(), "{fault:?}: {}", said(&output));
                (
                    fault,
                    expected,
                    output.status.code(),
                    read_json(&json).unwrap(),
                )
            })
        })
        .collect();
    running.into_iter().map(|run| run.join().unwrap()).collect()
}

/// Promises that did not hold.
fn broken(report: &Report) -> Vec<&str> {
    let broken = report.promises.iter().filter(|promise| !promise.held);
    broken.map(|promise| promise.what.as_str()).collect()
}

#[test]
fn an_honest_server_is_believed() {
    let table = [
        (Fault::None, 0),
        (Fault::DropsAndTells, TIMES),
        (Fault::Lags(LINES), 0),
    ];
    for (fault, told, code, report) in runs(&table, Tongue::Danmaku, &[]) {
        assert_eq!((code, broken(&report)), (Some(0), vec![]), "{fault:?}");
        let found = &report.deliveries;
        assert_eq!(found.expected, VIEWERS * LINES, "{fault:?}");
        assert_eq!(
            (found.told_dropped, found.delivered),
            (told, VIEWERS * LINES - told),
            "{fault:?}"
        );
    }
}

#[test]
fn each_fault_is_found_and_named() {
    type Count = fn(&Deliveries) -> u64;
    let lost: Count = |found| found.lost;
    let table: [(Fault, (&str, Count, u64)); 11] = [
        (Fault::Exchanges, (CONTENT, |found| found.corrupted, TIMES)),
        (Fault::Drops, (ORDER, lost, TIMES)),
        (Fault::DropsOne(1), (ORDER, lost, 1)),
        (Fault::DropsOne(LINES), (ORDER, lost, 1)),
        (Fault::Swallows(LINES / 2), (ORDER, lost, VIEWERS)),
        (Fault::Swallows(LINES), (ORDER, lost, VIEWERS)),
        (Fault::Doubles, (ORDER, |found| found.duplicated, TIMES)),
        (Fault::Swaps, (ORDER, |found| found.out_of_order, TIMES)),
        (
            Fault::TellsWithoutDropping,
            (ORDER, |found| found.told_too_many, TIMES),
        ),
        (Fault::Replaces, (CONTENT, |found| found.corrupted, TIMES)),
        (
            Fault::CountsWrong(LINES / 2),
            (CONTENT, |found| found.corrupted, 1),
        ),
    ];
    for (fault, (promise, count, times), code, report) in runs(&table, Tongue::Danmaku, &[]) {
        assert_eq!(code, Some(1), "{fault:?}");
        assert!(
            broken(&report).contains(&promise),
            "{fault:?}: {:?}",
            broken(&report)
        );
        assert!(
            count(&report.deliveries) >= times,
            "{fault:?}: {:?}",
            report.deliveries
        );
        if !matches!(fault, Fault::CountsWrong(_)) {
            assert_eq!(
                count(&report.deliveries),
                times,
                "{fault:?}: {:?}",
                report.deliveries
            );
            assert_eq!(broken(&report), [promise], "{fault:?}");
        }
        assert!(!report.deliveries.examples.is_empty(), "{fault:?}");
    }
}

#[test]
fn what_breaks_the_protocol_is_found_too() {
    let table = [
        (Fault::Strays, PROTOCOL),
        (Fault::NeverAcks(LINES / 2), PROTOCOL),
        (Fault::Masks, STAYED),
        (Fault::Garbles, STAYED),
        (Fault::HangsUp, STAYED),
        (Fault::Corks, STAYED),
        (Fault::Kicks, PROTOCOL),
        (Fault::JoinsTwice, PROTOCOL),
        (Fault::ShutsOut, INSIDE),
        (Fault::Refuses, ACCEPTED),
    ];
    for (fault, promise, code, report) in runs(&table, Tongue::Danmaku, &[]) {
        assert_eq!(code, Some(1), "{fault:?}");
        let broken = broken(&report);
        assert!(broken.contains(&promise), "{fault:?}: {broken:?}");
        if matches!(fault, Fault::Masks | Fault::Garbles) {
            assert!(broken.contains(&PROTOCOL), "{fault:?}: {broken:?}");
        }
    }
}

#[test]
fn another_servers_lines_are_checked_by_templates() {
    const TEMPLATES: &[&str] = &[
        "--join",
        r#"{"sub":"{room}"}"#,
        "--publish",
        r#"{"pub":"{room}","data":"{text}"}"#,
        "--marker",
        "#swarm#",
    ];
    let table = [
        (Fault::None, None),
        (Fault::Drops, Some(ORDER)),
        (Fault::DropsOne(LINES), Some(ORDER)),
        (Fault::Doubles, Some(ORDER)),
        (Fault::Swaps, Some(ORDER)),
    ];
    for (fault, promise, code, report) in runs(&table, Tongue::Hub, TEMPLATES) {
        assert_eq!(code, Some(i32::from(promise.is_some())), "{fault:?}");
        assert_eq!(broken(&report), Vec::from_iter(promise), "{fault:?}");
        assert_eq!(report.published.accepted, LINES, "{fault:?}");
    }
}

#[test]
fn a_new_numbering_is_followed() {
    let table = [(Fault::NumbersAnew, ())];
    for (_, (), code, report) in runs(&table, Tongue::Danmaku, &[]) {
        assert_eq!((code, broken(&report)), (Some(0), vec![]));
        let found = &report.deliveries;
        assert_eq!(found.delivered, VIEWERS * LINES);
        assert_eq!(found.memberships_checked, 2 * VIEWERS);
    }
}

#[test]
fn what_a_resume_brings_is_checked() {
    // The cut itself is no secret; what else is wrong with it must be said as well.
    let table = [
        (Fault::Cuts, vec![STAYED]),
        (Fault::Forgets, vec![STAYED, PROTOCOL]),
        (Fault::Withholds, vec![STAYED, ORDER]),
        (Fault::Claims, vec![STAYED, PROTOCOL]),
    ]
    .map(|(fault, promises)| (fault, &*promises.leak()));
    for (fault, promises, code, report) in runs(&table, Tongue::Danmaku, &["--history", "100"]) {
        assert_eq!(code, Some(1), "{fault:?}");
        let mut found = broken(&report);
        if fault == Fault::Claims {
            // Everyone else goes on in the old numbering: what the claim costs beside is not the point.
            found.retain(|promise| promises.contains(promise));
        }
        assert_eq!(found, promises, "{fault:?}: {:?}", report.deliveries);
        assert_eq!(
            report.deliveries.recovered > 0,
            matches!(fault, Fault::Cuts | Fault::Withholds)
        );
    }
}

#[test]
fn pushes_are_held_to_their_answers() {
    let table = [
        (Fault::None, None),
        (Fault::NeverAnswers(LINES / 2), Some(ACCEPTED)),
    ];
    for (fault, promise, code, report) in runs(&table, Tongue::Danmaku, VIA_HTTP) {
        let broken = broken(&report);
        assert_eq!(
            code,
            Some(i32::from(promise.is_some())),
            "{fault:?}: {broken:?}"
        );
        match promise {
            None => assert_eq!(report.published.accepted, LINES),
            Some(promise) => {
                assert!(broken.contains(&promise), "{broken:?}");
                assert_eq!(report.published.unanswered, 1);
                assert_eq!(report.published.accepted, LINES - 1);
            }
        }
    }
}
