//! Line plots as SVG: axes with nice ticks, shaded phases, lines that stop where a value is missing, tooltips.
//!
//! Pure text from numbers. It knows nothing of reports; it holds that every number it writes is finite and every
//! string escaped, so that what it makes is well-formed whatever it was given. Colours and strokes are classes
//! (`c0`, `c1`, ... and `older`), which the page's style sheet fills in for light and dark.

use std::fmt::Write;

use super::units::{Unit, printable};

/// Size of the picture in its own units; pages scale it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 250.0;
/// Room around the plane: for labels of the y axis, for the last label of the x axis, for the phases' names, for labels.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 40.0;
/// About as many ticks as are readable.
const Y_TICKS: usize = 5;
const X_TICKS: usize = 7;
/// Tooltips along the x axis at most: each is a strip of the plane, and narrower ones could not be pointed at.
const STRIPS_MAX: usize = 150;
/// Beyond this a number says nothing more, and arithmetic on it would overflow.
const VALUE_MAX: f64 = 1e18;
/// Steps between ticks of a time axis in seconds, which no power of ten suits.
const TIME_STEPS: &[f64] = &[
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
    3600.0, 7200.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0,
];

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By decades, from the smallest value above zero.
    Log,
}

/// The horizontal axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Across {
    /// Seconds since the run began.
    Time,
    /// Quantiles, 0 to 1, towards this many nines: 0, 90 %, 99 %, ... at equal distances, as HdrHistogram draws them.
    Quantiles {
        /// 4: the axis ends at 99.99 %.
        nines: u32,
    },
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// For the legend and the tooltips.
    pub name: String,
    /// Which colour, 0 to 3.
    pub colour: u8,
    /// Whether it is of the older run, drawn in another stroke.
    pub older: bool,
    /// x ascending, and what was there; the line stops where there is no value.
    pub points: Vec<(f64, Option<f64>)>,
}

/// A stretch of the x axis, shaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Written into it if there is room; also its class, if it is one word.
    pub name: String,
}

/// A picture to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// For those who cannot see it.
    pub title: String,
    /// The horizontal axis.
    pub across: Across,
    /// What the vertical axis counts.
    pub unit: Unit,
    /// How values become heights.
    pub scale: Scale,
    /// Shaded stretches, below everything else.
    pub bands: Vec<Band>,
    /// The lines, the first one on top.
    pub series: Vec<Series>,
}

impl Plot {
    /// Whether there is anything above zero to see.
    pub fn shows_something(&self) -> bool {
        let values = self.series.iter().flat_map(|series| &series.points);
        values
            .filter_map(|(_, value)| *value)
            .any(|value| value > 0.0)
    }

    /// The picture: one `<svg>` element, well-formed as XML.
    pub fn draw(&self) -> String {
        let plane = Plane::of(self);
        let mut svg = String::new();
        let title = escape(&self.title);
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        for band in &self.bands {
            draw_band(&mut svg, &plane, band);
        }
        draw_y_axis(&mut svg, &plane);
        draw_x_axis(&mut svg, &plane);
        for series in self.series.iter().rev() {
            draw_line(&mut svg, &plane, series);
        }
        draw_strips(&mut svg, &plane, self);
        svg.push_str("</svg>\n");
        svg
    }
}

/// `text` as character data or an attribute's value of XML and HTML: markup is escaped, characters that neither may
/// hold become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A tick: where, and its label.
type Tick = (f64, String);

/// From values to places on the picture.
struct Plane {
    x_max: f64,
    x_ticks: Vec<Tick>,
    y_min: f64,
    y_max: f64,
    y_ticks: Vec<Tick>,
    scale: Scale,
    nines: Option<u32>,
}

impl Plane {
    fn of(plot: &Plot) -> Plane {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        let largest = |a: f64, b: f64| {
            if b.is_finite() {
                a.max(b.min(VALUE_MAX))
            } else {
                a
            }
        };
        let y_largest = points().filter_map(|(_, y)| *y).fold(0.0, largest);
        let above_zero = points().filter_map(|(_, y)| *y).filter(|y| *y > 0.0);
        let y_smallest = above_zero.fold(VALUE_MAX, f64::min);
        let nines = match plot.across {
            Across::Time => None,
            Across::Quantiles { nines } => Some(nines.clamp(1, 9)),
        };
        let (x_max, x_ticks) = match nines {
            Some(nines) => (f64::from(nines), quantile_ticks(nines)),
            None => {
                let edges = points()
                    .map(|(x, _)| *x)
                    .chain(plot.bands.iter().map(|band| band.to));
                let x_max = edges.fold(0.0, largest);
                let x_max = if x_max > 0.0 { x_max } else { 1.0 };
                (x_max, linear_ticks(x_max, X_TICKS, Unit::Seconds, true))
            }
        };
        let (y_min, y_max, y_ticks) = match plot.scale {
            Scale::Log if y_largest > 0.0 => log_ticks(y_smallest, y_largest, plot.unit),
            _ => {
                let wanted = if y_largest > 0.0 { y_largest } else { 1.0 };
                let ticks = linear_ticks(wanted, Y_TICKS, plot.unit, false);
                let top = ticks.last().map_or(wanted, |(value, _)| value.max(wanted));
                (0.0, top, ticks)
            }
        };
        let scale = if y_min > 0.0 {
            Scale::Log
        } else {
            Scale::Linear
        };
        Plane {
            x_max,
            x_ticks,
            y_min,
            y_max,
            y_ticks,
            scale,
            nines,
        }
    }

    /// Place of a value of the x axis; what lies beyond either end is put there.
    fn x(&self, value: f64) -> f64 {
        let along = match self.nines {
            Some(nines) => -(1.0 - value.clamp(0.0, 1.0)).log10() / f64::from(nines),
            None => value / self.x_max,
        };
        LEFT + unit_interval(along) * (WIDTH - LEFT - RIGHT)
    }

    /// Place of a value of the y axis.
    fn y(&self, value: f64) -> f64 {
        let up = match self.scale {
            Scale::Linear => value / self.y_max,
            Scale::Log => {
                let value = value.max(self.y_min);
                (value / self.y_min).log10() / (self.y_max / self.y_min).log10()
            }
        };
        HEIGHT - BOTTOM - unit_interval(up) * (HEIGHT - TOP - BOTTOM)
    }
}

/// `value` between 0 and 1; 0 if it is not a number.
fn unit_interval(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

/// Ticks from zero at a step of 1, 2 or 5 times a power of ten (or of a clock), up to the first that is at least
/// `max`; with `inside` up to the last that is not beyond it.
fn linear_ticks(max: f64, wanted: usize, unit: Unit, inside: bool) -> Vec<Tick> {
    let (divisor, suffix) = unit.axis(max);
    let rough = max / wanted as f64;
    let step = match TIME_STEPS.iter().find(|step| **step >= rough) {
        Some(step) if unit == Unit::Seconds => *step,
        _ => nice_step(rough / divisor) * divisor,
    };
    let whole_only = unit == Unit::Count && divisor == 1.0;
    let step = if whole_only { step.max(1.0) } else { step };
    let reach = max / step;
    let last = if inside {
        (reach + 1e-9).floor()
    } else {
        (reach - 1e-9).ceil()
    };
    let decimals = decimals_of(step / divisor);
    (0..=(last as usize).min(4 * wanted))
        .map(|index| {
            let value = index as f64 * step;
            let label = match index {
                0 => "0".to_string(),
                _ => format!("{:.decimals$}{suffix}", value / divisor),
            };
            (value, label)
        })
        .collect()
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `rough`, which is above zero.
fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let lead = rough / power;
    let nice = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|nice| lead <= nice * 1.000_001);
    nice.unwrap_or(10.0) * power
}

/// Decimals that tell multiples of `step` apart, at most 6.
fn decimals_of(step: f64) -> usize {
    let apart = (0..6).find(|decimals| {
        let scaled = step * 10f64.powi(*decimals);
        (scaled - scaled.round()).abs() < 1e-6 * scaled && scaled >= 0.5
    });
    apart.unwrap_or(6) as usize
}

/// From the decade of the smallest value to the one of the largest, a tick at each, and at 2 and 5 times it if they
/// are few.
fn log_ticks(smallest: f64, largest: f64, unit: Unit) -> (f64, f64, Vec<Tick>) {
    let low = smallest.clamp(1e-9, VALUE_MAX).log10().floor() as i32;
    let high = (largest.log10().ceil() as i32).max(low + 1);
    let between: &[f64] = if high - low <= 2 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let every = ((high - low) / 6).max(1);
    let mut ticks = Vec::new();
    for decade in (low..=high).step_by(every as usize) {
        for factor in between {
            let value = factor * 10f64.powi(decade);
            if value <= 10f64.powi(high) * 1.000_001 {
                ticks.push((value, unit.show(value)));
            }
        }
    }
    (10f64.powi(low), 10f64.powi(high), ticks)
}

fn quantile_ticks(nines: u32) -> Vec<Tick> {
    let mut ticks = vec![(0.0, "0".to_string()), (0.5, "50 %".to_string())];
    for nine in 1..=nines {
        let label = match nine {
            1 => "90 %".to_string(),
            2 => "99 %".to_string(),
            _ => format!("99.{} %", "9".repeat(nine as usize - 2)),
        };
        ticks.push((1.0 - 10f64.powi(-(nine as i32)), label));
    }
    ticks
}

fn draw_band(svg: &mut String, plane: &Plane, band: &Band) {
    let (from, to) = (plane.x(band.from), plane.x(band.to));
    let width = to - from;
    if width < 0.5 {
        return;
    }
    let name = escape(&band.name);
    let is_word = !band.name.is_empty() && band.name.bytes().all(|byte| byte.is_ascii_lowercase());
    let class = if is_word { band.name.as_str() } else { "other" };
    let height = HEIGHT - TOP - BOTTOM;
    let _ = write!(
        svg,
        "<rect class=\"band {class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>"
    );
    // About 5.5 units a letter; a name that does not fit would run into the next one.
    if width > 5.5 * band.name.chars().count() as f64 {
        let middle = from + width / 2.0;
        let _ = write!(
            svg,
            "<text class=\"phase\" x=\"{middle:.1}\" y=\"{:.1}\">{name}</text>",
            TOP - 6.0
        );
    }
}

fn draw_y_axis(svg: &mut String, plane: &Plane) {
    for (value, label) in &plane.y_ticks {
        let y = plane.y(*value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            y + 4.0,
            escape(label)
        );
    }
}

fn draw_x_axis(svg: &mut String, plane: &Plane) {
    let floor = HEIGHT - BOTTOM;
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor:.1}\" x2=\"{:.1}\" y2=\"{floor:.1}\"/>",
        WIDTH - RIGHT
    );
    for (value, label) in &plane.x_ticks {
        let x = plane.x(*value);
        // About 7 units a letter: a label that would run off the picture ends at its edge instead.
        let runs_off = x + 3.5 * label.chars().count() as f64 > WIDTH;
        let (class, at) = if runs_off { ("x end", WIDTH) } else { ("x", x) };
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{floor:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
             <text class=\"{class}\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            floor + 4.0,
            floor + 17.0,
            escape(label)
        );
    }
    let what = if plane.nines.is_some() {
        "share of values at most this"
    } else {
        "since the run began"
    };
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let _ = write!(
        svg,
        "<text class=\"x what\" x=\"{middle:.1}\" y=\"{:.1}\">{what}</text>",
        HEIGHT - 6.0
    );
}

fn draw_line(svg: &mut String, plane: &Plane, series: &Series) {
    let mut path = String::new();
    let mut pen_down = false;
    let mut alone = false;
    for (x, value) in &series.points {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            path.push_str(if alone { "h0" } else { "" });
            (pen_down, alone) = (false, false);
            continue;
        };
        let command = if pen_down { 'L' } else { 'M' };
        let _ = write!(path, "{command}{:.1} {:.1}", plane.x(*x), plane.y(value));
        (pen_down, alone) = (true, !pen_down);
    }
    // A line of no length with round ends is a dot: a value between two gaps stays visible.
    path.push_str(if alone { "h0" } else { "" });
    if !path.is_empty() {
        let older = if series.older { " older" } else { "" };
        let _ = write!(
            svg,
            "<path class=\"line c{}{older}\" d=\"{path}\"/>",
            series.colour.min(3)
        );
    }
}

/// Invisible strips, each with a tooltip that names the values of every line there.
fn draw_strips(svg: &mut String, plane: &Plane, plot: &Plot) {
    let mut xs: Vec<f64> = plot
        .series
        .iter()
        .flat_map(|series| &series.points)
        .map(|(x, _)| *x)
        .collect();
    xs.retain(|x| x.is_finite());
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let every = xs.len().div_ceil(STRIPS_MAX).max(1);
    let shown: Vec<f64> = xs.into_iter().step_by(every).collect();
    let places: Vec<f64> = shown.iter().map(|x| plane.x(*x)).collect();
    for (index, (x, place)) in shown.iter().zip(&places).enumerate() {
        let before = if index == 0 {
            None
        } else {
            places.get(index - 1)
        };
        let from = before.map_or(LEFT, |before| (before + place) / 2.0);
        let to = places
            .get(index + 1)
            .map_or(WIDTH - RIGHT, |after| (after + place) / 2.0);
        let width = to - from;
        if width < 0.05 {
            continue;
        }
        let mut tip = match plane.nines {
            Some(_) => quantile(*x),
            None => Unit::Seconds.show(*x),
        };
        for series in &plot.series {
            if let Some(value) = value_at(series, *x) {
                let _ = write!(tip, " · {} {}", series.name, plot.unit.show(value));
            }
        }
        let _ = write!(
            svg,
            "<rect class=\"strip\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\"><title>{}</title></rect>",
            HEIGHT - TOP - BOTTOM,
            escape(&tip)
        );
    }
}

/// A quantile in percent with as many decimals as tell it from 100 %.
fn quantile(q: f64) -> String {
    if q >= 1.0 {
        return "largest".to_string();
    }
    let nines = -(1.0 - q.clamp(0.0, 1.0)).log10();
    let decimals = ((nines - 1e-9).ceil().clamp(1.0, 9.0) as usize) - 1;
    let text = format!("{:.decimals$}", q * 100.0);
    let text = if decimals > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} %")
}

/// The value of the last point at or before `x`.
fn value_at(series: &Series, x: f64) -> Option<f64> {
    let after = series.points.partition_point(|(at, _)| *at <= x);
    series.points[..after].last().and_then(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers_with_one_unit() {
        let ticks = linear_ticks(870_000.0, 5, Unit::Rate, false);
        assert_eq!(
            labels(&ticks),
            ["0", "200 k/s", "400 k/s", "600 k/s", "800 k/s", "1000 k/s"]
        );
        let ticks = linear_ticks(0.3 * 1_073_741_824.0, 5, Unit::Bytes, false);
        assert_eq!(
            labels(&ticks),
            ["0", "100 MiB", "200 MiB", "300 MiB", "400 MiB"]
        );
        let ticks = linear_ticks(95.0, 7, Unit::Seconds, true);
        assert_eq!(
            labels(&ticks),
            ["0", "15 s", "30 s", "45 s", "60 s", "75 s", "90 s"]
        );
        let ticks = linear_ticks(900.0, 7, Unit::Seconds, true);
        assert_eq!(labels(&ticks), ["0", "5 min", "10 min", "15 min"]);
        let ticks = linear_ticks(2.0, 5, Unit::Count, false);
        assert_eq!(labels(&ticks), ["0", "1", "2"], "no half connections");
        let ticks = linear_ticks(1.7, 5, Unit::Cores, false);
        assert_eq!(labels(&ticks), ["0", "0.5", "1.0", "1.5", "2.0"]);
    }

    #[test]
    fn the_quantile_axis_has_its_nines_at_equal_distances() {
        assert_eq!(
            labels(&quantile_ticks(4)),
            ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
        let plot = plot(
            Across::Quantiles { nines: 4 },
            Scale::Linear,
            vec![(0.5, Some(1.0))],
        );
        let plane = Plane::of(&plot);
        let (first, second) = (plane.x(0.99) - plane.x(0.9), plane.x(0.999) - plane.x(0.99));
        assert!((first - second).abs() < 1e-6, "{first} {second}");
        assert_eq!(
            plane.x(1.0),
            WIDTH - RIGHT,
            "the largest value stands at the end"
        );
        assert_eq!(quantile(0.5), "50 %");
        assert_eq!(quantile(0.9999), "99.99 %");
        assert_eq!(quantile(0.988_4), "98.8 %");
    }

    #[test]
    fn a_log_axis_starts_at_the_decade_below() {
        let (low, high, ticks) = log_ticks(300.0, 2_500_000.0, Unit::Micros);
        assert_eq!((low, high), (100.0, 10_000_000.0));
        assert_eq!(
            labels(&ticks),
            ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]
        );
    }

    #[test]
    fn a_line_stops_where_there_is_no_value() {
        let points = vec![
            (0.0, Some(1.0)),
            (1.0, Some(2.0)),
            (2.0, None),
            (3.0, Some(2.0)),
            (4.0, None),
        ];
        let svg = plot(Across::Time, Scale::Linear, points).draw();
        let path = svg
            .split("d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
        assert!(path.ends_with("h0"), "a value alone is a dot: {path}");
    }

    #[test]
    fn tooltips_name_every_line_and_stay_few() {
        let points = (0..10_000)
            .map(|at| (f64::from(at), Some(f64::from(at))))
            .collect();
        let svg = plot(Across::Time, Scale::Linear, points).draw();
        let strips = svg.matches("<title>").count();
        assert!((100..=STRIPS_MAX).contains(&strips), "{strips}");
        assert!(
            svg.contains("· a &lt;b&gt; 0/s</title>"),
            "escaped: {}",
            &svg[..900]
        );
    }

    #[test]
    fn nothing_or_nonsense_still_makes_a_picture() {
        let nonsense = vec![
            (f64::NAN, Some(f64::INFINITY)),
            (f64::MAX, Some(f64::MAX)),
            (-1.0, Some(-5.0)),
        ];
        for points in [
            Vec::new(),
            vec![(0.0, None)],
            vec![(0.0, Some(0.0))],
            nonsense,
        ] {
            for scale in [Scale::Linear, Scale::Log] {
                for across in [Across::Time, Across::Quantiles { nines: 4 }] {
                    let svg = plot(across, scale, points.clone()).draw();
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                }
            }
        }
    }

    fn plot(across: Across, scale: Scale, points: Vec<(f64, Option<f64>)>) -> Plot {
        let series = Series {
            name: "a <b>".to_string(),
            colour: 0,
            older: false,
            points,
        };
        Plot {
            title: "t".to_string(),
            across,
            unit: Unit::Rate,
            scale,
            bands: vec![Band {
                from: 0.0,
                to: 1.0,
                name: "ramp".to_string(),
            }],
            series: vec![series],
        }
    }
}
