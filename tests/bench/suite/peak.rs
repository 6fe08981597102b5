//! The highest rate without loss: doubling, then halving the gap; then rounds somewhat below the rate that was found, and a look
//! at what is beyond it. Bounded in probes, so bounded in time.

use crate::cases::Size;
use crate::drive::{Cores, Drive, Server, Setup};
use crate::results::Bound::{AtLeast, AtMost};
use crate::results::{Bound, Done, Figure, Purpose, Run};

/// What "without loss" includes, ms. A smoke run may be late: it shows how the search works wherever it is run.
const P99_MS_MAX: f64 = 250.0;
const P99_MS_MAX_SMOKE: f64 = 20_000.0;
/// A gap this small between a good and a bad rate is no gap.
const CLOSE: f64 = 1.05;
/// What holds once need not hold in most rounds: these begin at this share of what the search found ...
const FIRST_STEP: f64 = 0.9;
/// ... and a rate that does not hold in most of them is lowered to this share, so many times.
const STEP_DOWN: f64 = 0.85;
const STEPS_DOWN: usize = 4;

/// What is searched.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// Whose peak; the gateway's comes first.
    pub servers: &'static [Server],
    /// The swarm's arguments but for rate and duration.
    pub words: String,
    /// Members each line goes to.
    pub members: f64,
    /// Deliveries per second of the first probe.
    pub start_per_s: f64,
    pub doublings: usize,
    pub halvings: usize,
    /// Multiples of the peak that are looked at after it.
    pub beyond: &'static [f64],
    pub probe_s: u64,
    /// The latest that is without loss.
    pub p99_ms_max: f64,
    /// The share of lines that may be left out and told, and still count as no loss.
    pub told_share_max: f64,
    pub rounds: usize,
    /// The bound.
    pub at_least_per_s: f64,
    /// Above the peak at least this share of it goes on being delivered, if that is asked.
    pub beyond_at_least: Option<f64>,
}

impl Ladder {
    pub fn of(size: Size) -> Ladder {
        let full = !size.quick;
        Ladder {
            servers: &[Server::Gateway, Server::BareWalk],
            words: String::new(),
            members: 1.0,
            start_per_s: 1.0,
            doublings: if full { 5 } else { 1 },
            halvings: if full { 4 } else { 1 },
            beyond: if full { &[1.5, 2.0, 3.0] } else { &[2.0] },
            probe_s: size.seconds(5),
            told_share_max: 0.0,
            p99_ms_max: if full { P99_MS_MAX } else { P99_MS_MAX_SMOKE },
            rounds: size.rounds(),
            at_least_per_s: 0.0,
            beyond_at_least: None,
        }
    }

    /// What its figure is called.
    fn delivered(&self) -> &'static str {
        match self.told_share_max > 0.0 {
            true => "delivered",
            false => "delivered without loss",
        }
    }

    fn setup(&self, server: Server, per_s: f64) -> Setup {
        let (name, shards) = match server {
            Server::Gateway => ("gateway", " --shards 1"),
            Server::BareSend => ("bare send", ""),
            Server::BareWalk => ("bare walk", ""),
            Server::Nodes => ("nodes", ""),
        };
        Setup {
            name,
            server,
            cores: Cores::apart(),
            words: format!("{} --rate {:.2}{shards}", self.words, per_s / self.members),
            run_s: self.probe_s,
            offered_per_s: Some(per_s),
        }
    }
}

/// What later cases of a call need of earlier ones.
#[derive(Debug, Default)]
pub struct Found {
    /// Deliveries per second of a gateway's peak in one room.
    room: Option<f64>,
}

impl Found {
    /// The room's peak: as found before, or by a search of its own.
    pub fn peak_or_search(
        &mut self,
        ladder: &Ladder,
        drive: &Drive,
        done: &mut Done,
    ) -> Result<f64, String> {
        if let Some(per_s) = self.room {
            return Ok(per_s);
        }
        eprintln!("bench:   the room's peak is not known in this call: searching it first");
        let per_s = climb(ladder, Server::Gateway, drive, done)?;
        self.room = Some(per_s);
        Ok(per_s)
    }
}

/// The highest rate `holds` says yes to, as far as so many probes show: `None` if no rate held.
fn search(
    start: f64,
    doublings: usize,
    halvings: usize,
    mut holds: impl FnMut(f64) -> Result<bool, String>,
) -> Result<Option<f64>, String> {
    let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
    // Up, and one step further than the first rate that fails: if twice as much holds, it was bad luck.
    for nth in 0..=doublings {
        let rate = start * 2f64.powi(nth as i32);
        match (holds(rate)?, bad) {
            (true, _) => (good, bad) = (Some(rate), None),
            (false, None) => bad = Some(rate),
            (false, Some(_)) => break,
        }
    }
    // Down, if even the first was too much.
    for nth in 1..=doublings {
        if good.is_some() {
            break;
        }
        let rate = start / 2f64.powi(nth as i32);
        match holds(rate)? {
            true => good = Some(rate),
            false => bad = Some(rate),
        }
    }
    for _ in 0..halvings {
        let (Some(low), Some(high)) = (good, bad) else {
            break;
        };
        if high / low <= CLOSE {
            break;
        }
        let middle = (low + high) / 2.0;
        match holds(middle)? {
            true => good = Some(middle),
            false => bad = Some(middle),
        }
    }
    Ok(good)
}

/// Why a run was not without loss; empty if it was.
fn loss(run: &Run, ladder: &Ladder) -> String {
    if let Some(broken) = run.broken.first() {
        broken.clone()
    } else if run.told_dropped > 0 && 1.0 - run.delivered_share > ladder.told_share_max {
        format!("{} told as dropped", run.told_dropped)
    } else if run.p99_ms >= ladder.p99_ms_max {
        format!("p99 {:.0} ms", run.p99_ms)
    } else {
        String::new()
    }
}

fn probe(
    ladder: &Ladder,
    server: Server,
    purpose: Purpose,
    per_s: f64,
    drive: &Drive,
    done: &mut Done,
) -> Result<Run, String> {
    let setup = ladder.setup(server, per_s);
    let taken = drive.run(&setup)?;
    let mut run = Run::of(&setup, purpose, &taken);
    let why = loss(&run, ladder);
    eprintln!(
        "bench:   {}: {:.0} of {per_s:.0} deliveries/s, p99 {:.0} ms{}{why}",
        setup.name,
        run.delivered_per_s,
        run.p99_ms,
        if why.is_empty() { "" } else { ": " }
    );
    if run.broken.is_empty() && !why.is_empty() {
        run.broken.push(why);
    }
    done.runs.push(run.clone());
    Ok(run)
}

/// The search for one server. What fails is tried once more: a neighbour's hiccup is not a limit.
fn climb(ladder: &Ladder, server: Server, drive: &Drive, done: &mut Done) -> Result<f64, String> {
    let holds = |per_s: f64| {
        for _ in 0..2 {
            if probe(ladder, server, Purpose::Search, per_s, drive, done)?
                .broken
                .is_empty()
            {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let found = search(ladder.start_per_s, ladder.doublings, ladder.halvings, holds)?;
    found.ok_or_else(|| "no rate was without loss".into())
}

/// The whole case: each server to its own peak.
pub fn peak(
    name: &str,
    ladder: &Ladder,
    drive: &Drive,
    found: &mut Found,
    done: &mut Done,
) -> Result<(), String> {
    let mut at = Vec::new();
    for server in ladder.servers {
        at.push(FIRST_STEP * climb(ladder, *server, drive, done)?);
    }
    let rounds = confirm(ladder, &mut at, drive, done)?;
    figures(ladder, &rounds, done);
    for (server, (rate, runs)) in ladder.servers.iter().zip(at.iter().zip(&rounds)) {
        let mut worst = f64::INFINITY;
        for factor in ladder.beyond {
            let run = probe(ladder, *server, Purpose::Beyond, rate * factor, drive, done)?;
            worst = worst.min(run.delivered_per_s / rate);
        }
        let what = format!(
            "least delivered beyond the peak, times the peak, {}",
            runs[0].setup
        );
        let bound = ladder
            .beyond_at_least
            .filter(|_| *server == Server::Gateway)
            .map(AtLeast);
        done.figures
            .push(Figure::judge(&what, "x", bound, &[Some(worst)], done.smoke));
    }
    if name == "peak" && most_hold(&rounds[0]) {
        found.room = Some(at[0]);
    }
    Ok(())
}

/// Rounds in turns, each server at its rate, which is lowered until it holds in most of them; runs by server.
fn confirm(
    ladder: &Ladder,
    at: &mut [f64],
    drive: &Drive,
    done: &mut Done,
) -> Result<Vec<Vec<Run>>, String> {
    let servers = ladder.servers;
    let mut rounds: Vec<Vec<Run>> = vec![Vec::new(); servers.len()];
    for step in 0..=STEPS_DOWN {
        for (per_s, runs) in at.iter_mut().zip(&mut rounds) {
            if step > 0 && !most_hold(runs) {
                *per_s *= STEP_DOWN;
                runs.clear();
            }
        }
        for nth in 0..ladder.rounds {
            for ((server, per_s), runs) in servers.iter().zip(&*at).zip(&mut rounds) {
                if runs.len() == nth {
                    runs.push(probe(ladder, *server, Purpose::Round, *per_s, drive, done)?);
                }
            }
        }
        if rounds.iter().all(|runs| most_hold(runs)) {
            break;
        }
    }
    Ok(rounds)
}

fn most_hold(runs: &[Run]) -> bool {
    2 * runs.iter().filter(|run| run.broken.is_empty()).count() > runs.len()
}

fn figures(ladder: &Ladder, rounds: &[Vec<Run>], done: &mut Done) {
    let smoke = done.smoke;
    // Without loss all that was offered was delivered, if some of it after the last line was spoken. A round with a loss
    // delivered nothing that counts.
    let clean = |run: &Run| {
        let offered = run.offered_per_s?;
        Some(match run.broken.is_empty() {
            true => offered * run.delivered_share,
            false => 0.0,
        })
    };
    let (bound, p99_bound) = (AtLeast(ladder.at_least_per_s), AtMost(ladder.p99_ms_max));
    for (server, runs) in ladder.servers.iter().zip(rounds) {
        let is_ours = *server == Server::Gateway;
        let mut figure =
            |what: &str, unit, bound: Option<Bound>, read: &dyn Fn(&Run) -> Option<f64>| {
                let values: Vec<Option<f64>> = runs.iter().map(read).collect();
                let (what, bound) = match is_ours {
                    true => (what.to_owned(), bound),
                    false => (format!("{what}, {}", runs[0].setup), None),
                };
                let judged = Figure::judge(&what, unit, bound, &values, smoke);
                done.figures.push(judged);
            };
        figure(ladder.delivered(), "/s", Some(bound), &clean);
        figure("p99 there", "ms", Some(p99_bound), &|run| Some(run.p99_ms));
        figure("CPU for each delivery there", "us", None, &|run| {
            run.cpu_us_per_delivery
        });
        let limit = runs[0].limit();
        if !limit.is_empty() {
            let note = format!("At its peak the {} is limited by {limit}.", runs[0].setup);
            done.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search finds where everything up to `limit` holds, and after how many probes.
    fn found(limit: f64) -> (Option<f64>, usize) {
        let mut probes = 0;
        let peak = search(1000.0, 5, 4, |rate| {
            probes += 1;
            Ok(rate <= limit)
        });
        (peak.unwrap(), probes)
    }

    #[test]
    fn the_peak_is_found_from_either_side() {
        for limit in [32.0, 100.0, 999.0, 1000.0, 1500.0, 4300.0, 31_000.0] {
            let (peak, probes) = found(limit);
            let peak = peak.unwrap();
            assert!(peak <= limit && peak >= limit / 1.07, "{limit}: {peak}");
            assert!(probes <= 11, "{limit}: {probes}");
        }
    }

    #[test]
    fn what_never_fails_or_never_holds_ends_too() {
        assert_eq!(found(1e12), (Some(32_000.0), 6));
        assert_eq!(found(0.0), (None, 7));
    }

    #[test]
    fn bad_luck_on_the_way_up_is_not_the_peak() {
        let peak = search(1000.0, 5, 4, |rate| Ok(rate <= 9000.0 && rate != 2000.0));
        assert_eq!(peak, Ok(Some(9000.0)));
    }

    #[test]
    fn a_run_that_cannot_be_made_ends_the_search() {
        let failed = search(1.0, 5, 4, |_| Err("no server".into()));
        assert_eq!(failed, Err("no server".into()));
    }

    #[test]
    fn loss_is_named() {
        let run = Run::default();
        let strict = Ladder::of(Size::default());
        assert_eq!(loss(&run, &strict), "");
        let told = Run {
            told_dropped: 7,
            ..run.clone()
        };
        assert_eq!(loss(&told, &strict), "7 told as dropped");
        let lenient = Ladder {
            told_share_max: 0.05,
            ..strict.clone()
        };
        let few = Run {
            delivered_share: 0.96,
            ..told.clone()
        };
        assert_eq!(loss(&few, &lenient), "");
        assert_eq!(loss(&told, &lenient), "7 told as dropped");
        let late = Run {
            p99_ms: 250.0,
            ..run
        };
        assert_eq!(loss(&late, &strict), "p99 250 ms");
    }
}
