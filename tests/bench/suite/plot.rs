//! `peak.svg`: what was delivered against what was offered, for each ladder a panel. Pure text from numbers; well-formed
//! whatever it is given. Readable on light and dark pages.

use std::fmt::Write;

use danmaku_swarm::report::svg::escape;

use crate::results::{Results, Run};

const WIDTH: f64 = 640.0;
const PANEL: f64 = 300.0;
/// Room around a panel's plane.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// About so many ticks to an axis.
const TICKS: f64 = 6.0;

const STYLE: &str = "<style>\
    text{font:12px system-ui,sans-serif;fill:#444}.title{font-weight:600;fill:#111}\
    .grid{stroke:#8884;stroke-width:1}.all{stroke:#888;stroke-width:1;stroke-dasharray:4 4}\
    .s0{stroke:#0969da;fill:#0969da}.s1{stroke:#bc4c00;fill:#bc4c00}.s2{stroke:#1a7f37;fill:#1a7f37}\
    path{stroke-width:2;fill:none!important}.lossy{fill:#fff!important;stroke-width:1.5}\
    @media(prefers-color-scheme:dark){text{fill:#aaa}.title{fill:#eee}.lossy{fill:#0d1117!important}}\
    </style>";

/// Both ladders, as far as they were measured; `None` if neither was.
pub fn peaks(results: &Results) -> Option<String> {
    let ladders = results
        .cases
        .iter()
        .filter(|case| case.name == "peak" || case.name == "rooms");
    let panels: Vec<(&str, Vec<&Run>)> = ladders
        .map(|case| (&*case.work, case.runs.iter().filter(is_point).collect()))
        .filter(|(_, points): &(_, Vec<_>)| !points.is_empty())
        .collect();
    if panels.is_empty() {
        return None;
    }
    let height = PANEL * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Delivered against offered\">{STYLE}"
    );
    for (at, (title, points)) in panels.iter().enumerate() {
        let _ = write!(svg, "<g transform=\"translate(0 {})\">", PANEL * at as f64);
        panel(&mut svg, title, points);
        svg.push_str("</g>");
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn is_point(run: &&Run) -> bool {
    run.offered_per_s
        .is_some_and(|offered| offered.is_finite() && offered > 0.0)
        && run.delivered_per_s.is_finite()
}

fn offered(run: &Run) -> f64 {
    run.offered_per_s.unwrap_or_default()
}

/// Places on a panel.
struct Plane {
    x_max: f64,
    y_max: f64,
}

impl Plane {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value / self.x_max).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        PANEL - BOTTOM - (value / self.y_max).clamp(0.0, 1.0) * (PANEL - TOP - BOTTOM)
    }
}

fn panel(svg: &mut String, title: &str, points: &[&Run]) {
    let largest = |of: fn(&Run) -> f64| points.iter().map(|run| of(run)).fold(0.0, f64::max);
    let plane = Plane {
        x_max: largest(offered),
        y_max: 1.1 * largest(|run| run.delivered_per_s).max(1.0),
    };
    axes(svg, &plane, title);
    let reach = plane.x_max.min(plane.y_max);
    let _ = write!(
        svg,
        "<line class=\"all\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        plane.x(0.0),
        plane.y(0.0),
        plane.x(reach),
        plane.y(reach)
    );
    let mut setups: Vec<&str> = points.iter().map(|run| &*run.setup).collect();
    setups.sort_unstable_by_key(|setup| (*setup != "gateway", *setup));
    setups.dedup();
    for (at, setup) in setups.iter().enumerate() {
        let mut of: Vec<&Run> = points
            .iter()
            .filter(|run| run.setup == **setup)
            .copied()
            .collect();
        of.sort_by(|one, other| offered(one).total_cmp(&offered(other)));
        series(svg, &plane, (at % 3, setup), &of);
    }
}

fn axes(svg: &mut String, plane: &Plane, title: &str) {
    let _ = write!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"16\">{}</text>",
        escape(title)
    );
    for value in ticks(plane.y_max) {
        let y = plane.y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            label(value)
        );
    }
    let floor = PANEL - BOTTOM;
    for value in ticks(plane.x_max) {
        let x = plane.x(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            floor + 4.0,
            floor + 17.0,
            label(value)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">deliveries/s offered (hollow: with loss, or p99 of 250 ms and more)</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        PANEL - 8.0
    );
}

/// One server: a line through the best at each rate, and every run as a dot.
fn series(svg: &mut String, plane: &Plane, (colour, name): (usize, &str), runs: &[&Run]) {
    let mut path = String::new();
    let mut rest = runs;
    while let Some(first) = rest.first() {
        let alike = rest
            .iter()
            .take_while(|run| offered(run) == offered(first))
            .count();
        let best = rest[..alike]
            .iter()
            .map(|run| run.delivered_per_s)
            .fold(0.0, f64::max);
        let command = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{command}{:.1} {:.1}",
            plane.x(offered(first)),
            plane.y(best)
        );
        rest = &rest[alike..];
    }
    let _ = write!(svg, "<path class=\"s{colour}\" d=\"{path}\"/>");
    for run in runs {
        let lossy = if run.broken.is_empty() { "" } else { " lossy" };
        let _ = write!(
            svg,
            "<circle class=\"s{colour}{lossy}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {:.0} of {:.0}/s, p99 {:.0} ms</title></circle>",
            plane.x(offered(run)),
            plane.y(run.delivered_per_s),
            escape(name),
            run.delivered_per_s,
            offered(run),
            run.p99_ms
        );
    }
    let x = LEFT + 110.0 * colour as f64;
    let _ = write!(
        svg,
        "<circle class=\"s{colour}\" cx=\"{}\" cy=\"29\" r=\"4\"/><text x=\"{}\" y=\"33\">{}</text>",
        x + 4.0,
        x + 13.0,
        escape(name)
    );
}

/// From zero at steps of 1, 2 or 5 times a power of ten.
fn ticks(max: f64) -> Vec<f64> {
    let rough = max / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|lead| lead * power);
    let step = steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let count = (max / step).floor() as usize;
    (0..=count.min(20)).map(|at| at as f64 * step).collect()
}

fn label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Done;

    fn run(setup: &str, offered: f64, delivered_per_s: f64) -> Run {
        Run {
            setup: setup.into(),
            offered_per_s: Some(offered),
            delivered_per_s,
            ..Run::default()
        }
    }

    #[test]
    fn whatever_it_is_given_it_is_well_formed() {
        let odd = [f64::NAN, f64::INFINITY, 0.0, 1.0, 1e12];
        let mut runs = vec![
            run("<gateway> & \"co\"", 5e6, 4e6),
            run("bare walk", 5e6, 5e6),
        ];
        runs.extend(odd.map(|value| run("bare walk", value, value)));
        let ladder = |name: &str| Done {
            name: name.into(),
            work: "a < b".into(),
            runs: runs.clone(),
            ..Done::default()
        };
        let results = Results {
            cases: vec![ladder("peak"), ladder("rooms"), ladder("idle")],
            ..Results::default()
        };
        let svg = peaks(&results).unwrap();
        let mut reader = quick_xml::Reader::from_str(&svg);
        let mut groups = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Eof => break,
                quick_xml::events::Event::Start(tag) => {
                    groups += u32::from(tag.name().as_ref() == b"g")
                }
                _ => {}
            }
        }
        assert_eq!(groups, 2, "one panel for each ladder");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(peaks(&Results::default()), None);
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(5.5), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(11e6).len(), 6);
    }
}
