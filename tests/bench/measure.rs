//! How micro-benches are measured: nanoseconds by the clock, instructions by valgrind. Standard library only.
//!
//! `cargo bench --bench NAME` prints a table of nanoseconds, the best of many rounds: the rest is what else the machine did.
//! `-- --instructions` adds what valgrind counts, which no other load on the machine disturbs: the program runs itself under
//! callgrind, a piece N times and 2N times, and the difference is N pieces without start-up. `-- --quick` takes N as 1 and
//! times no longer than it must: a smoke run. `-- --table FILE` writes the rows into a file as well, tab-separated. What an instruction count does not see is the memory: caches and the kernel.

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long a piece is timed.
const TIMED: Duration = Duration::from_millis(300);
/// Rounds it is timed at least.
const ROUNDS_MIN: usize = 20;

/// One row of the table.
pub struct Piece {
    /// What is measured.
    pub what: String,
    /// What the figures are for one of: a frame, a line, a visit.
    pub per: &'static str,
    /// How many of them a call handles.
    pub units: usize,
    /// Calls under valgrind: some millions of instructions.
    pub calls: usize,
    /// Prepares, and returns the call; that says how many units it saw.
    pub make: Box<dyn Fn() -> Call>,
}

/// What is measured, ready to be called.
pub type Call = Box<dyn FnMut() -> usize>;

impl Piece {
    /// A row. The `make` it is given may borrow nothing.
    pub fn new<C: FnMut() -> usize + 'static>(
        what: impl Into<String>,
        (units, per): (usize, &'static str),
        calls: usize,
        make: impl Fn() -> C + 'static,
    ) -> Piece {
        Piece {
            what: what.into(),
            per,
            units,
            calls,
            make: Box::new(move || Box::new(make())),
        }
    }

    fn call(&self, times: usize) {
        let mut call = (self.make)();
        for _ in 0..times {
            assert_eq!(black_box(call()), self.units, "{}", self.what);
        }
    }

    fn ns(&self, timed: Duration) -> f64 {
        let mut call = (self.make)();
        let begun = Instant::now();
        let mut best = Duration::MAX;
        let mut rounds = 0;
        while rounds < ROUNDS_MIN || begun.elapsed() < timed {
            let round = Instant::now();
            assert_eq!(black_box(call()), self.units, "{}", self.what);
            best = best.min(round.elapsed());
            rounds += 1;
        }
        best.as_nanos() as f64 / self.units as f64
    }

    fn instructions(&self, calls: usize) -> Result<f64, String> {
        let (once, twice) = (self.counted(calls)?, self.counted(2 * calls)?);
        Ok(twice.saturating_sub(once) as f64 / (calls * self.units) as f64)
    }

    /// Instructions of this whole program when it does nothing but so many calls.
    fn counted(&self, calls: usize) -> Result<u64, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(own)
            .args(["--calls", &calls.to_string(), &self.what]);
        let out = valgrind.output().map_err(|error| {
            format!("cannot count instructions: valgrind: {error}; apt-get install valgrind")
        })?;
        let said = String::from_utf8_lossy(&out.stderr);
        let collected = said.split("Collected : ").nth(1);
        let count = collected.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        match count {
            Some(count) if out.status.success() => Ok(count),
            _ => Err(format!(
                "valgrind counted nothing ({}):\n{said}",
                out.status
            )),
        }
    }
}

/// What `main` returns: does what the command line says with these pieces.
pub fn measure(pieces: Vec<Piece>) -> ExitCode {
    match attend(&pieces) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn attend(pieces: &[Piece]) -> Result<(), String> {
    let words: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        Some(&words[at + 1..])
    };
    if let Some([times, what, ..]) = after("--calls") {
        let piece = pieces.iter().find(|piece| piece.what == *what);
        let piece = piece.ok_or_else(|| format!("no piece is called {what}"))?;
        piece.call(times.parse().map_err(|_| "--calls N WHAT".to_owned())?);
        return Ok(());
    }
    let quick = after("--quick").is_some();
    let timed = if quick { Duration::ZERO } else { TIMED };
    let counts = after("--instructions").is_some();
    let heading = if counts { "instructions" } else { "" };
    println!("{:<58} {:>6} {:>12} {heading:>13}", "what", "per", "ns");
    let mut table = String::new();
    for piece in pieces {
        let ns = piece.ns(timed);
        let calls = if quick { 1 } else { piece.calls };
        let counted = counts.then(|| piece.instructions(calls)).transpose()?;
        let instructions = counted.map_or(String::new(), |count| format!("{count:.1}"));
        let (what, per) = (&piece.what, piece.per);
        println!("{what:<58} {per:>6} {ns:>12.1} {instructions:>13}");
        let _ = writeln!(table, "{what}\t{per}\t{ns:.2}\t{instructions}");
    }
    if let Some([path, ..]) = after("--table") {
        std::fs::write(path, table).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
