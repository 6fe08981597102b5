//! Log lines: one line of text or one JSON object each, to standard error.
//!
//! Whoever logs formats its line on its own thread and puts it into a bounded queue; one thread of the appender owns
//! standard error and writes. A full queue drops the line and counts it: logging never blocks a shard, however slow the
//! terminal, pipe or disk behind standard error is. The level is one atomic; changing it takes no lock on a logging path.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::base::clock::Clock;

use super::line::Lines;

pub use super::line::Format;

/// Lines that may wait for the writer: a burst's worth. With lines of 200 bytes it is 1.6 MB, and it is counted when full.
const LINES_MAX: usize = 8192;

/// Keeps the log's writer alive. Dropping it flushes what waits, for a second at most, so `main` holds it to its end.
#[must_use = "dropping it ends the log"]
#[derive(Debug)]
pub struct LogGuard {
    handle: LogHandle,
    _worker: WorkerGuard,
}

impl LogGuard {
    /// What the rest of the process may ask and change.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// [`LogHandle::dropped`].
    pub fn dropped(&self) -> u64 {
        self.handle.dropped()
    }

    /// [`LogHandle::set_level`].
    pub fn set_level(&self, level: Level) {
        self.handle.set_level(level);
    }
}

/// The log as other threads see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHandle {
    threshold: Threshold,
    queue: ErrorCounter,
    unwritten: Arc<AtomicU64>,
}

impl LogHandle {
    /// Lines lost since the start: the queue was full, or standard error would not take them.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped_lines() as u64 + self.unwritten.load(Relaxed)
    }

    /// Writes lines of this level and of more severe ones from now on. For the main thread, on reload: it walks
    /// every place that logs once, so that each of them knows without asking.
    pub fn set_level(&self, level: Level) {
        self.threshold.0.store(rank(level), Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Begins to log to standard error, for the whole process: lines of `level` and of more severe ones.
///
/// # Errors
/// If the process logs already.
pub fn init(level: Level, format: Format) -> Result<LogGuard, SetGlobalDefaultError> {
    let (subscriber, guard) = assemble(level, format, io::stderr(), LINES_MAX);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(guard)
}

fn assemble<W: Write + Send + 'static>(
    level: Level,
    format: Format,
    out: W,
    lines_max: usize,
) -> (impl Subscriber + Send + Sync + use<W>, LogGuard) {
    let unwritten = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        out,
        unwritten: Arc::clone(&unwritten),
    };
    let (queue, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(lines_max)
        .thread_name("log")
        .finish(counted);
    let threshold = Threshold(Arc::new(AtomicU8::new(rank(level))));
    let handle = LogHandle {
        threshold: threshold.clone(),
        queue: queue.error_counter(),
        unwritten,
    };
    let lines = Lines {
        clock: Clock::start(),
        format,
    };
    let subscriber = tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .event_format(lines)
                .with_writer(queue),
        )
        .with(threshold);
    let guard = LogGuard {
        handle,
        _worker: worker,
    };
    (subscriber, guard)
}

/// Which share of requests and connections gets a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of 2^64 equally likely chances, how many are picked.
    picked: u128,
}

impl Sampler {
    /// Picks this share: 0.0 none, 1.0 all. What lies outside counts as the nearer end, and NaN as 0.
    pub fn new(share: f64) -> Sampler {
        let all = 1u128 << 64;
        // A cast from float saturates below at 0 and takes NaN to 0.
        let picked = (share * all as f64) as u128;
        Sampler {
            picked: picked.min(all),
        }
    }

    /// Whether to write this one; `chance` is 64 random bits.
    pub fn pick(self, chance: u64) -> bool {
        u128::from(chance) < self.picked
    }
}

/// The level gate. Each place that logs keeps the answer it got, so a line below the level costs one load and a branch.
#[derive(Clone, Debug)]
struct Threshold(Arc<AtomicU8>);

impl Threshold {
    fn lets(&self, level: Level) -> bool {
        rank(level) <= self.0.load(Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for Threshold {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.lets(*metadata.level()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.lets(*metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = LEVELS.get(usize::from(self.0.load(Relaxed)));
        level.copied().map(LevelFilter::from_level)
    }
}

const LEVELS: [Level; 5] = [
    Level::ERROR,
    Level::WARN,
    Level::INFO,
    Level::DEBUG,
    Level::TRACE,
];

/// The level's index in [`LEVELS`].
fn rank(level: Level) -> u8 {
    LEVELS
        .iter()
        .take_while(|&&severer| severer < level)
        .count() as u8
}

/// A writer that never fails: what cannot be written is counted, because nobody is left to tell.
struct Counted<W> {
    out: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.out.write_all(line).is_err() {
            self.unwritten.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::mpsc;

    /// A writer others can read back.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `body` logs, once the writer has written it.
    fn logged(format: Format, body: impl FnOnce(&LogHandle)) -> String {
        let page = Page::default();
        let (subscriber, guard) = assemble(Level::INFO, format, page.clone(), 64);
        tracing::subscriber::with_default(subscriber, || body(&guard.handle()));
        assert_eq!(guard.dropped(), 0);
        drop(guard);
        let bytes = page.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_is_one_object_with_its_fields_flat() {
        let page = logged(Format::Json, |_| {
            let reason = "a \"quote\"\nand a new line";
            tracing::info!(target: "access", shard = 3u64, delta = -2i64, tls = false, share = f64::NAN,
                level = "mine", %reason, "turned {} away", "one");
        });
        assert_eq!(page.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "access");
        assert_eq!(line["message"], "turned one away");
        assert_eq!(line["shard"], 3);
        assert_eq!(line["delta"], -2);
        assert_eq!(line["tls"], false);
        assert!(line["share"].is_null());
        assert_eq!(line["field.level"], "mine");
        assert_eq!(line["reason"], "a \"quote\"\nand a new line");
        let ts = line["ts"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(ts).is_ok(), "{ts}");
    }

    #[test]
    fn a_plain_line_stays_one_line() {
        let page = logged(Format::Plain, |_| {
            let agent = "x\n2026 ERROR forged \u{1b}[2J";
            tracing::warn!(target: "access", status = 403u16, agent, empty = "", "no {}", "\r\nway");
        });
        assert_eq!(page.matches('\n').count(), 1, "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains('\r'));
        let (_, line) = page.split_once(' ').unwrap();
        assert_eq!(
            line,
            "WARN  access: no \\r\\nway status=403 agent=\"x\\n2026 ERROR forged \\u{1b}[2J\" empty=\"\"\n"
        );
    }

    #[test]
    fn a_long_field_is_cut_at_a_character() {
        let page = logged(Format::Json, |_| {
            tracing::info!(text = %"é".repeat(5000), debug = ?vec![7u8; 100_000]);
        });
        let line: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!(line["text"].as_str().unwrap(), "é".repeat(512) + "…");
        assert!(page.len() < 3 * crate::telemetry::line::FIELD_BYTES_MAX);
    }

    #[test]
    fn the_level_changes_while_running() {
        let page = logged(Format::Plain, |handle| {
            for round in 0..3u64 {
                tracing::debug!(round, "fine");
                tracing::error!(round, "grave");
                handle.set_level([Level::DEBUG, Level::ERROR, Level::INFO][round as usize]);
            }
        });
        let kept: Vec<_> = page
            .lines()
            .map(|l| l.split_once(": ").unwrap().1)
            .collect();
        assert_eq!(
            kept,
            [
                "grave round=0",
                "fine round=1",
                "grave round=1",
                "grave round=2"
            ]
        );
    }

    /// Blocks in its first write until it is let go.
    struct Blocked(mpsc::Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_writer_blocks_nobody_and_every_lost_line_is_counted() {
        let (release, gate) = mpsc::channel();
        let (subscriber, guard) = assemble(Level::INFO, Format::Plain, Blocked(gate), 16);
        // Were a line to wait for the writer, this would never end: only the line below lets the writer go.
        tracing::subscriber::with_default(subscriber, || {
            for line in 0..1000u64 {
                tracing::info!(line, "into the void");
            }
        });
        // 16 wait in the queue and at most one is with the writer.
        let dropped = guard.dropped();
        assert!((983..=984).contains(&dropped), "{dropped}");
        drop(release);
    }

    #[test]
    fn a_writer_that_fails_is_counted_too() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (subscriber, guard) = assemble(Level::INFO, Format::Plain, Gone, 16);
        let handle = guard.handle();
        tracing::subscriber::with_default(subscriber, || tracing::info!("lost"));
        drop(guard);
        assert_eq!(handle.dropped(), 1);
    }

    #[test]
    fn a_sampler_picks_its_share() {
        let cases = [
            (0.0, 0, false),
            (0.0, u64::MAX, false),
            (1.0, u64::MAX, true),
            (7.0, u64::MAX, true),
            (-1.0, 0, false),
            (f64::NAN, 0, false),
            (0.5, u64::MAX / 2, true),
            (0.5, u64::MAX / 2 + 1, false),
            (0.01, u64::MAX / 101, true),
            (0.01, u64::MAX / 99, false),
        ];
        for (share, chance, picked) in cases {
            assert_eq!(Sampler::new(share).pick(chance), picked, "{share} {chance}");
        }
    }

    #[test]
    fn ranks_follow_severity() {
        for (index, level) in LEVELS.into_iter().enumerate() {
            assert_eq!(usize::from(rank(level)), index);
        }
    }
}
