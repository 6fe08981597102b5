//! The live face of a run: a bar that moves on a terminal, a plain line now and then anywhere else.
//!
//! Runs on the main thread and writes to standard error only, so that standard output stays the report's. Never
//! measures and never asks the time: what it shows, and when a plain line is due, comes from [`Live`].

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::report::live::{Live, Phase};
use crate::report::units::{self, exact, printable, rate};

/// Plain lines come this far apart.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Steps of a bar of time.
const TIME_STEPS: u64 = 1000;

/// How a run shows itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Drawn if standard error is a terminal that can, else plain.
    #[default]
    Auto,
    /// One line when a phase begins, and every five seconds.
    Plain,
    /// Nothing at all, messages included.
    Quiet,
}

/// What draws. [`Face::finish`], or dropping it, leaves the terminal clean.
pub struct Face {
    inner: Inner,
}

enum Inner {
    Drawn {
        bar: ProgressBar,
        phase: Option<Phase>,
        timed: bool,
    },
    Plain {
        out: Box<dyn Write + Send>,
        last: Option<(Phase, Duration)>,
    },
    Quiet,
}

impl Face {
    /// A face on standard error.
    pub fn new(style: Style) -> Face {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match style {
            Style::Quiet => Face {
                inner: Inner::Quiet,
            },
            Style::Auto if io::stderr().is_terminal() && !dumb => {
                Face::drawn_on(ProgressDrawTarget::stderr_with_hz(10))
            }
            Style::Auto | Style::Plain => Face::plain_on(Box::new(io::stderr())),
        }
    }

    /// Shows how things stand; meant to be called about five times a second.
    pub fn show(&mut self, live: &Live) {
        match &mut self.inner {
            Inner::Drawn { bar, phase, timed } => {
                let by_time = live.planned.is_some_and(|planned| !planned.is_zero());
                let changed = *phase != Some(live.phase) || *timed != by_time;
                if changed {
                    // Not in `finish`: it draws, and what follows would be printed into the bar.
                    bar.reset();
                    bar.set_style(bar_style(live));
                    bar.set_prefix(phase_name(live.phase));
                    (*phase, *timed) = (Some(live.phase), by_time);
                }
                let (position, length) = progress(live);
                bar.set_length(length);
                bar.set_position(position);
                bar.set_message(format!("{}\n      {}", headline(live), figures(live)));
                if changed {
                    // What was drawn on the way here mixes two phases.
                    bar.force_draw();
                }
            }
            Inner::Plain { out, last } => {
                let due = last.is_none_or(|(phase, at)| {
                    phase != live.phase || live.at.saturating_sub(at) >= PLAIN_EVERY
                });
                if due {
                    *last = Some((live.phase, live.at));
                    let phase = phase_name(live.phase);
                    // Standard error may be closed; a run goes on without being watched.
                    let _ = writeln!(out, "{phase:<4}  {}  {}", headline(live), figures(live));
                }
            }
            Inner::Quiet => {}
        }
    }

    /// Prints a line for good: above the bar, or as it is where there is none. Quiet prints nothing.
    pub fn message(&mut self, text: &str) {
        let text = printable(text);
        match &mut self.inner {
            Inner::Drawn { bar, .. } => bar.println(text),
            Inner::Plain { out, .. } => {
                let _ = writeln!(out, "{text}");
            }
            Inner::Quiet => {}
        }
    }

    /// Takes the bar away; what [`Face::message`] printed stays. Showing again draws again.
    pub fn finish(&mut self) {
        if let Inner::Drawn { bar, phase, .. } = &mut self.inner {
            bar.finish_and_clear();
            *phase = None;
        }
    }

    fn drawn_on(target: ProgressDrawTarget) -> Face {
        let bar =
            ProgressBar::with_draw_target(Some(1), target).with_finish(ProgressFinish::AndClear);
        Face {
            inner: Inner::Drawn {
                bar,
                phase: None,
                timed: false,
            },
        }
    }

    fn plain_on(out: Box<dyn Write + Send>) -> Face {
        Face {
            inner: Inner::Plain { out, last: None },
        }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "ramp",
        Phase::Run => "run",
        Phase::Tail => "tail",
    }
}

/// A bar where there is something to fill it by.
fn bar_style(live: &Live) -> ProgressStyle {
    let (_, length) = progress(live);
    let template = if length > 0 {
        "{prefix:4}  {bar:30.cyan/dim}  {msg}"
    } else {
        "{prefix:4}  {msg}"
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

/// How far along, of how much: connections in the ramp, time in the run; nothing where no end is known.
fn progress(live: &Live) -> (u64, u64) {
    let planned = live.planned.filter(|planned| !planned.is_zero());
    match (live.phase, planned) {
        (Phase::Ramp, _) if live.wanted > 0 => (live.connected.min(live.wanted), live.wanted),
        (_, Some(planned)) => {
            let part = live.at.as_secs_f64() / planned.as_secs_f64();
            ((part.min(1.0) * TIME_STEPS as f64) as u64, TIME_STEPS)
        }
        _ => (0, 0),
    }
}

/// What the bar is about.
fn headline(live: &Live) -> String {
    match live.phase {
        Phase::Ramp if live.wanted > 0 => {
            format!(
                "{} of {} connected",
                exact(live.connected),
                exact(live.wanted)
            )
        }
        Phase::Ramp => format!("{} connected", exact(live.connected)),
        Phase::Run | Phase::Tail => {
            let at = whole_seconds(live.at);
            match live.planned {
                Some(planned) => format!("{at} of {}", units::seconds(planned.as_secs_f64())),
                None => at,
            }
        }
    }
}

/// What happens now, in one line that fits beside nothing else on 80 columns; what is zero is left out.
fn figures(live: &Live) -> String {
    let mut said = Vec::new();
    match live.phase {
        Phase::Ramp => said.push(rate(live.connects_per_s)),
        Phase::Run => said.push(format!("{} deliveries", rate(live.deliveries_per_s))),
        Phase::Tail if live.deliveries_per_s > 0.0 => {
            said.push(format!("{} still arriving", rate(live.deliveries_per_s)));
        }
        Phase::Tail => said.push("waiting for the last lines".to_string()),
    }
    if live.p99_us > 0 {
        let (p50, p99) = (
            units::micros(live.p50_us as f64),
            units::micros(live.p99_us as f64),
        );
        said.push(format!("p50 {p50}, p99 {p99}"));
    }
    if live.faults > 0 {
        said.push(format!("{} FAULTS", exact(live.faults)));
    }
    if live.refused > 0 {
        said.push(format!("{} refused", exact(live.refused)));
    }
    let process = [
        live.server_cpu.map(|cores| format!("{cores:.2} cores")),
        live.server_rss_bytes
            .map(|bytes| units::bytes(bytes as f64)),
    ];
    let process: Vec<String> = process.into_iter().flatten().collect();
    if !process.is_empty() {
        said.push(format!("server {}", process.join(" ")));
    }
    said.join(", ")
}

/// A time that moves by whole seconds: tenths would only flicker.
fn whole_seconds(at: Duration) -> String {
    units::seconds(at.as_secs() as f64).replacen("0 µs", "0 s", 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::InMemoryTerm;

    use super::*;

    /// Where a plain face writes, to be read by a test.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn ramp() -> Live {
        Live {
            wanted: 10_000,
            connected: 5_000,
            connects_per_s: 5_400.0,
            refused: 12,
            ..Live::default()
        }
    }

    fn run(at_s: u64) -> Live {
        Live {
            phase: Phase::Run,
            at: Duration::from_secs(at_s),
            planned: Some(Duration::from_secs(60)),
            wanted: 10_000,
            connected: 10_000,
            published_per_s: 100.0,
            deliveries_per_s: 1_000_000.0,
            p50_us: 31_000,
            p99_us: 93_000,
            server_cpu: Some(0.934),
            server_rss_bytes: Some(13_237_184),
            ..Live::default()
        }
    }

    fn drawn() -> (Face, InMemoryTerm) {
        let term = InMemoryTerm::new(10, 80);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        (Face::drawn_on(target), term)
    }

    #[test]
    fn the_ramp_is_a_bar_of_connections_and_the_run_one_of_time() {
        let (mut face, term) = drawn();
        face.show(&ramp());
        let screen = term.contents();
        assert!(screen.starts_with("ramp  ━━━━━━━━━━━━━━━"), "{screen}");
        assert!(
            screen.contains("5,000 of 10,000 connected\n      5.4 k/s, 12 refused"),
            "{screen}"
        );
        face.show(&run(30));
        let screen = term.contents();
        let filled = screen.matches('━').count();
        assert!((14..=16).contains(&filled), "half of 30: {screen}");
        assert!(screen.contains("30 s of 60 s\n"), "{screen}");
        let figures = "1 M/s deliveries, p50 31 ms, p99 93 ms, server 0.93 cores 12.6 MiB";
        assert_eq!(
            screen.lines().nth(1).map(str::trim),
            Some(figures),
            "one line, not wrapped"
        );
    }

    #[test]
    fn a_message_stands_above_the_bar_and_stays_when_the_bar_goes() {
        let (mut face, term) = drawn();
        face.show(&run(1));
        face.message("the server said no");
        face.show(&run(2));
        let screen = term.contents();
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines[0], "the server said no");
        assert!(lines[1].starts_with("run ") && lines.len() == 3, "{screen}");
        face.finish();
        assert_eq!(term.contents(), "the server said no");
        face.show(&run(3));
        assert!(
            term.contents().contains("3 s of 60 s"),
            "it can be shown again"
        );
        drop(face);
        assert_eq!(term.contents(), "the server said no");
    }

    #[test]
    fn plain_says_a_line_for_each_phase_and_every_five_seconds() {
        let out = Shared::default();
        let mut face = Face::plain_on(Box::new(out.clone()));
        face.show(&ramp());
        for fifth in 0..=60 {
            face.show(&Live {
                at: Duration::from_millis(fifth * 200),
                ..run(0)
            });
        }
        face.message("cut \x1b[2J");
        face.finish();
        let text = out.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(
            lines[0],
            "ramp  5,000 of 10,000 connected  5.4 k/s, 12 refused"
        );
        assert!(
            lines[1].starts_with("run   0 s of 60 s  1 M/s deliveries, p50 31 ms"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("run   5 s of") && lines[3].starts_with("run   10 s of"),
            "{text}"
        );
        assert_eq!(lines[4], "cut \u{fffd}[2J");
        assert!(!text.contains('\x1b') && !text.contains('━'));
    }

    #[test]
    fn faults_are_never_left_out_and_quiet_is_quiet() {
        assert!(
            figures(&Live {
                faults: 3,
                ..run(1)
            })
            .contains("3 FAULTS")
        );
        let tail = Live {
            phase: Phase::Tail,
            ..Live::default()
        };
        assert_eq!(figures(&tail), "waiting for the last lines");
        assert_eq!(progress(&tail), (0, 0));
        let nonsense = Live {
            planned: Some(Duration::ZERO),
            deliveries_per_s: f64::NAN,
            ..run(9)
        };
        assert_eq!(progress(&nonsense), (0, 0));
        assert!(!figures(&nonsense).contains("NaN"));
        let mut quiet = Face::new(Style::Quiet);
        quiet.show(&run(1));
        quiet.message("nobody hears");
        quiet.finish();
        assert!(matches!(quiet.inner, Inner::Quiet));
    }
}
