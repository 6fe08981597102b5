//! The outputs of a run: what they say, that they never break, and that nothing from outside breaks out of them.

mod report_fixture;

use std::path::Path;

use danmaku_swarm::report::compare::{Change, Comparison, compare};
use danmaku_swarm::report::html::html;
use danmaku_swarm::report::table::table;
use danmaku_swarm::report::units::columns;
use danmaku_swarm::report::{Ended, Latency, Part, Report, Second, Usage, file};
use proptest::prelude::*;
use quick_xml::events::Event;
use report_fixture::{HOSTILE, broken, counts, hostile, room};

/// The line of `text` that begins with `name`, blanks made one.
fn line(text: &str, name: &str) -> String {
    let found = text
        .lines()
        .find(|line| line.trim_start().starts_with(name));
    let found = found.unwrap_or_else(|| panic!("no line begins with `{name}` in\n{text}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads `page` with an XML parser; its elements' names, and all of its character data.
fn parsed(page: &str) -> (Vec<String>, String) {
    let mut reader = quick_xml::Reader::from_str(page);
    let (mut elements, mut text) = (Vec::new(), String::new());
    let mut depth = 0;
    loop {
        let event = reader.read_event();
        match event.unwrap_or_else(|cause| panic!("at byte {}: {cause}", reader.error_position())) {
            Event::Start(element) | Event::Empty(element) => {
                let name = String::from_utf8(element.name().as_ref().to_vec()).unwrap();
                for attribute in element.attributes() {
                    let attribute =
                        attribute.unwrap_or_else(|cause| panic!("in <{name}>: {cause}"));
                    let key = String::from_utf8_lossy(attribute.key.as_ref()).to_lowercase();
                    assert!(!key.starts_with("on"), "a handler in <{name}>: {key}");
                    assert!(
                        !["src", "href", "xlink:href", "style"].contains(&key.as_str()),
                        "{key}"
                    );
                }
                elements.push(name);
                depth += 1;
            }
            Event::End(_) => depth -= 1,
            Event::Text(data) => text.push_str(&String::from_utf8_lossy(&data)),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(depth >= 0, "more ends than starts");
    (elements, text)
}

/// No figure may show that it has no value.
fn assert_sound(output: &str) {
    for line in output.lines() {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric()) {
            assert!(
                !["NaN", "inf", "Infinity", "None", "Some"].contains(&word),
                "`{word}` in {line}"
            );
        }
    }
}

#[test]
fn of_several_nodes_the_table_says_what_was_heard_where_and_what_was_said_apart() {
    let mut report = room(10_000, 1.0);
    report.across_latency = Some(report.latency.clone());
    report.local_latency = Some(Latency::default());
    report.deliveries.renumbered = 30;
    report.deliveries.apart = 1_234;
    let text = table(&report, 120, false);
    assert_sound(&text);
    let cells = |name: &str| line(&text, name).replacen(name, "", 1);
    assert_eq!(cells("said at another node"), cells("line to viewer"));
    assert!(!text.contains("said at its own node"), "nothing was");
    assert!(line(&text, "renumbered").starts_with("renumbered 30 members told"));
    assert!(line(&text, "said apart").starts_with("said apart 1,234 lines times members"));
    let page = html(&report, None);
    assert!(parsed(&page).1.contains("said apart"));
}

#[test]
fn the_table_says_what_was_measured() {
    let text = table(&room(10_000, 1.0), 80, false);
    assert_sound(&text);
    assert_eq!(line(&text, "server  "), "server ws://127.0.0.1:41234/ws");
    assert_eq!(line(&text, "began"), "began 2026-11-22 23:37:30 UTC");
    assert_eq!(
        line(&text, "connected"),
        "connected 10,012 10,000 wanted, 2.63 k/s, all within 3.8 s"
    );
    assert_eq!(
        line(&text, "refused"),
        "refused 1,234 accept_rate 1,200, connections_full 34"
    );
    assert_eq!(
        line(&text, "closed by server"),
        "closed by server 12 4413 10, 1006 2"
    );
    assert_eq!(
        line(&text, "accepted"),
        "accepted 6,000 100 % of those scheduled, 100/s"
    );
    assert_eq!(
        line(&text, "delivered"),
        "delivered 59,998,500 >99.99 %, 1 M/s, best second 1.15 M/s"
    );
    assert_eq!(
        line(&text, "told as dropped"),
        "told as dropped 1,500 <0.01 %"
    );
    assert_eq!(line(&text, "lost"), "lost 0");
    assert_eq!(
        line(&text, "CPU per million"),
        "CPU per million deliveries 6.72 s 3.1 s"
    );
    assert_eq!(
        line(&text, "bytes per connection"),
        "bytes per connection 380 B 512 B"
    );
    assert_eq!(
        line(&text, "deliveries  "),
        "deliveries 60,000,000 59,998,500 <0.01 % danmaku_delivered_total"
    );
    assert!(line(&text, "connections  ").contains("-10 %"), "{text}");
    assert_eq!(line(&text, "held"), "held every line once, in order");
    assert_eq!(text.lines().last(), Some("HELD  2 of 2 promises held"));
    assert!(
        !text.contains("failed"),
        "nothing failed, so nothing is said of it\n{text}"
    );
}

#[test]
fn a_part_is_held_against_the_calm_before_it() {
    let part = |name: &str, connects, server_cpu_s, ends_s| Part {
        name: name.to_string(),
        begins_s: ends_s - 10.0,
        ends_s,
        connects,
        server_cpu_s,
        latency: Latency {
            count: 5,
            p99_us: 7_000,
            ..Latency::default()
        },
        ..Part::default()
    };
    let mut report = room(10_000, 1.0);
    report.parts = vec![
        part("before", 0, 1.0, 10.0),
        part("storm", 15_000, 1.3, 20.0),
    ];
    let text = table(&report, 120, false);
    assert!(line(&text, "storm  ").ends_with("20 \u{b5}s"), "{text}");
    assert!(line(&text, "storm: lines").contains("7 ms"), "{text}");
}

#[test]
fn a_broken_run_cannot_be_read_as_a_good_one() {
    let text = table(&broken(), 80, false);
    assert_eq!(line(&text, "lost"), "lost 1,234 missing, and not told");
    assert_eq!(
        line(&text, "duplicates"),
        "duplicates 3 received more than once"
    );
    assert_eq!(
        line(&text, "other faults"),
        "other faults 2 unmasked_frame 2"
    );
    assert!(line(&text, "example").contains("41 came after 43"));
    assert!(line(&text, "BROKEN  every").contains("once, in order"));
    assert_eq!(text.lines().last(), Some("BROKEN  1 of 2 promises broken"));
    let page = html(&broken(), None);
    assert!(page.contains("<p class=\"verdict bad\">BROKEN</p>"));
    let interrupted = Report {
        ended: Ended::Interrupted,
        ..room(10, 1.0)
    };
    assert!(
        table(&interrupted, 80, false)
            .contains("INTERRUPTED  the figures are of what was done until then")
    );
}

#[test]
fn columns_stand_under_their_headings_within_the_width() {
    for width in [80, 100, 160] {
        let text = table(&broken(), width, false);
        for line in text.lines() {
            assert!(columns(line) <= width, "{} columns: {line}", columns(line));
            assert_eq!(line.trim_end(), line, "blanks at the end");
        }
        let end_of = |name: &str, word: &str| {
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with(name))
                .unwrap();
            line.find(word)
                .map(|at| columns(&line[..at + word.len()]))
                .unwrap_or_else(|| panic!("{line}"))
        };
        assert_eq!(
            end_of("cost", "server"),
            end_of("CPU per million", "6.72 s")
        );
        assert_eq!(end_of("cost", "swarm"), end_of("bytes per", "512 B"));
        assert_eq!(
            end_of("latency", "mean"),
            end_of("line to viewer", "34.1 ms")
        );
    }
}

#[test]
fn colours_only_when_asked_and_always_ended() {
    assert!(!table(&broken(), 80, false).contains('\x1b'));
    let text = table(&broken(), 80, true);
    assert_eq!(
        text.matches("\x1b[0m").count() * 2,
        text.matches("\x1b[").count()
    );
    assert!(text.contains("\x1b[1;37;41mBROKEN\x1b[0m"));
}

#[test]
fn an_empty_report_has_no_figures_and_no_nonsense() {
    let empty = Report::default();
    let text = table(&empty, 80, false);
    assert_eq!(text.trim(), "DONE  nothing was promised");
    let page = html(&empty, Some(&empty));
    assert_sound(&page);
    let (elements, _) = parsed(&page);
    assert!(
        !elements.contains(&"table".to_string()) && !elements.contains(&"figure".to_string()),
        "{page}"
    );
    let comparison = compare(&empty, &empty);
    assert_eq!(
        comparison.text(80, false),
        "  compared with an older run: no figure to compare\n"
    );
}

#[test]
fn the_page_has_every_plot_and_every_table() {
    let page = html(&room(10_000, 1.0), None);
    assert_sound(&page);
    let (elements, text) = parsed(&page);
    let many = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!(many("figure"), 10);
    assert_eq!(many("table"), 7);
    assert!(many("script") == 0 && many("link") == 0 && many("img") == 0);
    let plots = [
        "Latency of lines",
        "Latency over time",
        "Deliveries per second",
        "Lines accepted per second",
        "CPU, in cores",
        "Resident memory",
        "Connections",
        "Connects per second",
        "Latency of pushes",
        "Latency of connects",
    ];
    for said in plots
        .iter()
        .chain(&["99.99 %", "60 s", "ramp", "tail", "10,000", "held"])
    {
        assert!(text.contains(said), "{said}");
    }
    assert!(page.contains("<p class=\"verdict good\">HELD</p>"));
    assert!(
        text.contains("40 s · p50 37.1 ms · p99 347 ms"),
        "a tooltip at the spike"
    );
    assert!(!text.contains("older run"), "there is none");
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn the_page_asks_for_nothing_outside() {
    let page = html(&room(10_000, 1.0), Some(&room(5_000, 1.3)));
    assert!(page.contains("default-src 'none'"));
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!without_namespace.contains("http://") && !without_namespace.contains("https://"));
    assert!(!page.contains("url(") && !page.contains("@import"));
}

#[test]
fn an_older_run_is_drawn_in_another_stroke_and_named() {
    let page = html(&room(10_000, 1.0), Some(&room(10_000, 1.5)));
    let (_, text) = parsed(&page);
    let lines = page.matches("<path class=\"line c0 older\" d=\"M").count();
    assert_eq!(lines, 2 * 10, "one in each plot, one in each legend");
    for said in [
        "p50, older run",
        "server, older run",
        "was 10.1 s",
        "every figure",
        "better",
    ] {
        assert!(text.contains(said), "{said}");
    }
}

#[test]
fn no_string_breaks_out_of_the_page() {
    let page = html(&hostile(), Some(&hostile()));
    let (elements, _) = parsed(&page);
    assert!(!elements.iter().any(|element| element == "script"));
    assert!(!page.contains("<script") && !page.contains("\x1b") && !page.contains('\u{202e}'));
    assert_eq!(page.matches("</style>").count(), 1, "the page's own");
    assert!(
        page.contains("&lt;script&gt;alert(1)"),
        "it is shown, as text"
    );
}

#[test]
fn no_string_steers_the_terminal() {
    let text = table(&hostile(), 80, false) + &compare(&hostile(), &room(10, 1.0)).text(80, false);
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
    for line in text.lines() {
        assert!(columns(line) <= 80, "{} columns: {line}", columns(line));
    }
    assert!(text.contains("alert(1)"), "{HOSTILE} is shown");
}

fn row<'a>(comparison: &'a Comparison, name: &str) -> &'a danmaku_swarm::report::compare::Compared {
    let found = comparison.rows.iter().find(|row| row.name == name);
    found.unwrap_or_else(|| panic!("no row {name}"))
}

#[test]
fn a_comparison_tells_better_from_worse_from_noise() {
    let (old, new) = (room(10_000, 1.0), room(10_000, 0.8));
    let comparison = compare(&new, &old);
    assert_eq!(
        row(&comparison, "server CPU per million").change,
        Change::Better
    );
    assert_eq!(row(&comparison, "latency p99").change, Change::Better);
    assert_eq!(row(&comparison, "deliveries").change, Change::Same);
    assert_eq!(
        row(&comparison, "most connected at once").change,
        Change::Unjudged
    );
    assert_eq!(row(&comparison, "lost").change, Change::Same);
    assert_eq!(
        (comparison.worse(), comparison.differs.len()),
        (0, 0),
        "{comparison:?}"
    );
    let back = compare(&old, &new);
    assert_eq!(row(&back, "server CPU per million").change, Change::Worse);
    assert!(back.worse() > 0 && back.better() == 0, "{back:?}");
    assert_eq!(
        compare(&room(10_000, 1.02), &old).worse(),
        0,
        "2 % is noise"
    );

    let text = comparison.text(80, false);
    assert_eq!(
        line(&text, "server CPU per million"),
        "server CPU per million 6.72 s 5.38 s 0.80x better"
    );
    assert!(
        line(&text, "compared with the run of 2026-11-22 23:37:30 UTC: ").contains(" 0 worse"),
        "{text}"
    );
}

#[test]
fn a_comparison_says_what_is_not_alike() {
    let old = room(1_000, 1.0);
    let mut new = room(10_000, 1.0);
    new.url = "ws://127.0.0.1:55555/ws".to_string();
    new.settings
        .insert("html".to_string(), "x.html".to_string());
    new.settings.insert("slow".to_string(), "5".to_string());
    new.machine.cores = 8;
    new.ended = Ended::Interrupted;
    let comparison = compare(&new, &old);
    assert_eq!(
        comparison.differs,
        [
            "not the same settings (old vs new): viewers 1000 vs 10000, slow not set vs 5",
            "not the same machine (old vs new): cores 2 vs 8",
            "the newer run was interrupted",
        ]
    );
    assert!(comparison.text(80, false).contains("viewers 1000 vs 10000"));
}

#[test]
fn a_comparison_divides_by_nothing_that_is_zero_or_missing() {
    let mut old = room(1_000, 1.0);
    let mut new = room(1_000, 1.0);
    new.deliveries.lost = 1;
    old.server = None;
    new.swarm.cpu_s_per_million = Some(f64::NAN);
    old.connections.failed = counts(&[("reset", 4)]);
    let comparison = compare(&new, &old);
    let lost = row(&comparison, "lost");
    assert_eq!(
        (lost.old, lost.new, lost.ratio, lost.change),
        (Some(0.0), Some(1.0), None, Change::Worse)
    );
    let server = row(&comparison, "server CPU per million");
    assert_eq!(
        (server.old, server.ratio, server.change),
        (None, None, Change::Unjudged)
    );
    assert_eq!(
        row(&comparison, "swarm CPU per million").new,
        None,
        "what is no number is missing"
    );
    let failed = row(&comparison, "connects failed");
    assert_eq!((failed.ratio, failed.change), (Some(0.0), Change::Better));
    assert_sound(&comparison.text(80, false));
}

/// Also leaves the pages where one can look at them: `target/tmp/report*.html`.
#[test]
fn files_hold_what_was_reported() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (report, older) = (room(10_000, 1.0), room(10_000, 1.4));
    file::write_json(&folder.join("report.json"), &report).unwrap();
    assert_eq!(
        file::read_json(&folder.join("report.json")).unwrap(),
        report
    );
    file::write_html(&folder.join("report.html"), &report, None).unwrap();
    file::write_html(&folder.join("report_compared.html"), &report, Some(&older)).unwrap();
    file::write_html(&folder.join("report_broken.html"), &broken(), None).unwrap();
    let page = std::fs::read_to_string(folder.join("report_compared.html")).unwrap();
    assert!(page == html(&report, Some(&older)), "the file is the page");
}

#[test]
fn a_day_second_by_second_stays_a_small_page() {
    let mut report = room(1_000, 1.0);
    let second = report.timeline[30].clone();
    report.timeline = (0..86_400)
        .map(|at| Second {
            at_s: f64::from(at),
            ..second.clone()
        })
        .collect();
    let page = html(&report, None);
    assert!(page.len() < 800_000, "{} bytes", page.len());
    assert!(page.contains("each point the mean of 167 seconds"));
}

/// Any float that is a number, the odd ones often.
fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::MIN,
            1.0,
            5e-324
        ]),
        0.0..1e7f64,
    ]
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![0, 1, 999, u64::MAX]),
        0..100_000u64
    ]
}

prop_compose! {
    fn any_latency()(n in prop::collection::vec(integer(), 7), mean_us in finite(),
                     curve in prop::collection::vec((finite(), integer()), 0..20)) -> Latency {
        Latency { count: n[0], min_us: n[1], mean_us, p50_us: n[2], p90_us: n[3], p99_us: n[4], p999_us: n[5],
                  max_us: n[6], curve }
    }
}

prop_compose! {
    fn any_second()(f in prop::collection::vec(finite(), 3), n in prop::collection::vec(integer(), 10),
                    phase in "ramp|run|tail|\\PC{0,3}") -> Second {
        Second { at_s: f[0], phase, connected: n[0], connects: n[1], refused: n[2], published: n[3], deliveries: n[4],
                 p50_us: n[5], p99_us: n[6], max_us: n[7], server_cpu: f[1], server_rss: n[8], swarm_cpu: f[2],
                 swarm_rss: n[9] }
    }
}

prop_compose! {
    fn any_usage()(f in prop::collection::vec(finite(), 3), o in prop::collection::vec(prop::option::of(finite()), 3),
                   n in prop::collection::vec(integer(), 4)) -> Usage {
        Usage { cpu_s: f[0], cpu_run_s: f[1], cpu_ramp_s: f[2], cpu_s_per_million: o[0], cpu_us_per_connection: o[1],
                bytes_per_connection: o[2], rss_before: n[0], rss_connected: n[1], rss_peak: n[2], rss_after: n[3] }
    }
}

prop_compose! {
    fn any_report()(n in prop::collection::vec(integer(), 20), f in prop::collection::vec(finite(), 8),
                    latency in any_latency(), push_latency in prop::option::of(any_latency()),
                    server in prop::option::of(any_usage()), swarm in any_usage(),
                    timeline in prop::collection::vec(any_second(), 0..40), text in "\\PC{0,40}",
                    names in prop::collection::btree_map("\\PC{0,8}", integer(), 0..4)) -> Report {
        let mut report = hostile();
        report.scenario = text.clone();
        report.url = text;
        report.started_ms = n[0];
        report.machine.memory_bytes = n[1];
        let connections = &mut report.connections;
        (connections.wanted, connections.connected, connections.peak, connections.at_end) = (n[2], n[3], n[4], n[5]);
        (connections.per_s, connections.ramp_s) = (f[0], f[1]);
        (connections.refused, connections.closed) = (names.clone(), names.clone());
        let published = &mut report.published;
        (published.scheduled, published.accepted, published.unanswered) = (n[6], n[7], n[8]);
        published.per_s = f[2];
        let deliveries = &mut report.deliveries;
        (deliveries.expected, deliveries.delivered, deliveries.lost) = (n[9], n[10], n[11]);
        (deliveries.told_dropped, deliveries.bytes, deliveries.foreign) = (n[12], n[13], n[14]);
        (deliveries.per_s, deliveries.per_s_peak, deliveries.faults) = (f[3], f[4], names);
        let agreement = &mut report.metrics.as_mut().unwrap().agreement[0];
        (agreement.server, agreement.swarm) = (f[5], f[6]);
        report.elapsed_s = f[7];
        Report { latency: latency.clone(), connect_latency: latency, push_latency, server, swarm, timeline, ..report }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever finite figures a run reports, or an older file claims, every output comes out whole.
    #[test]
    fn any_finite_report_comes_out_whole(new in any_report(), old in any_report(), width in 0..400usize) {
        table(&new, width, true);
        assert_sound(&compare(&new, &old).text(width, false));
        let page = html(&new, Some(&old));
        assert_sound_in_plots(&page);
        parsed(&page);
        parsed(&html(&old, None));
    }
}

/// Coordinates are all there is between quotes of a plot, and each must be a number.
fn assert_sound_in_plots(page: &str) {
    for value in page
        .split("<svg")
        .skip(1)
        .flat_map(|svg| svg.split('"').skip(1).step_by(2))
    {
        assert!(!value.contains("NaN") && !value.contains("inf"), "{value}");
    }
}
