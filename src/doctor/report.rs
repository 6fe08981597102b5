//! Findings and their sum, for people and as JSON. Pure; main thread.

use std::fmt::Write;

use serde::Serialize;

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well or as much as it could.
    Warn,
    /// It will fail people.
    Bad,
    /// It cannot be known from here.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, one word or two; stays the same from version to version.
    pub check: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What it means.
    pub means: String,
    /// What mends it, most direct first; empty where nothing needs to be mended.
    pub mend: Vec<Mend>,
}

/// A command, or a line of a file, that mends a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// When or where: `now`, `for good`, `systemd`, `docker`.
    pub how: &'static str,
    /// Exactly what to run or write.
    pub command: String,
}

/// Something that bounds the viewers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// What.
    pub what: String,
    /// How many viewers it lets in.
    pub viewers: u64,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The system's name and release.
    pub system: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Reactor threads the settings come to.
    pub shards: usize,
    /// In the order they were looked at.
    pub findings: Vec<Finding>,
    /// The tightest first.
    pub bounds: Vec<Bound>,
}

impl Finding {
    /// A finding with nothing to mend.
    pub fn new(
        check: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        means: impl Into<String>,
    ) -> Finding {
        Finding {
            check,
            verdict,
            found: found.into(),
            means: means.into(),
            mend: Vec::new(),
        }
    }

    /// Something that cannot be seen from here.
    pub fn unknown(check: &'static str, what: &str) -> Finding {
        let found = format!("{what} cannot be read here");
        Finding::new(
            check,
            Verdict::Unknown,
            found,
            "so nothing is said about it",
        )
    }

    /// The same, with one more way to mend it.
    pub fn mend(mut self, how: &'static str, command: impl Into<String>) -> Finding {
        let command = command.into();
        self.mend.push(Mend { how, command });
        self
    }

    /// The same, mended by a kernel setting: now, for good, and for a container where it has its own.
    pub fn sysctl(self, key: &str, value: &str, is_per_container: bool) -> Finding {
        let quoted = match value.contains(char::is_whitespace) {
            true => format!("\"{value}\""),
            false => value.to_string(),
        };
        let mended = self.mend("now", format!("sysctl -w {key}={quoted}")).mend(
            "for good",
            format!("echo '{key} = {value}' >> /etc/sysctl.d/90-danmaku.conf"),
        );
        match is_per_container {
            true => mended.mend("docker", format!("docker run --sysctl {key}={quoted} ...")),
            false => mended,
        }
    }
}

impl Report {
    /// How many findings stand so.
    pub fn count(&self, verdict: Verdict) -> usize {
        let stands_so = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(stands_so).count()
    }

    /// 0 if nothing is bad, else 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.count(Verdict::Bad) > 0)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "danmaku doctor: {}, {} cores, {} shards\n",
            self.system, self.cores, self.shards
        );
        for finding in &self.findings {
            let _ = write!(
                text,
                "\n{:<4} {}: {}\n       {}\n",
                finding.verdict.word(),
                finding.check,
                finding.found,
                finding.means
            );
            for mend in &finding.mend {
                let _ = writeln!(text, "       {:<9} {}", mend.how, mend.command);
            }
        }
        let _ = write!(text, "\n{}\n", self.sum());
        let (bad, warn) = (self.count(Verdict::Bad), self.count(Verdict::Warn));
        let unseen = match self.count(Verdict::Unknown) {
            0 => String::new(),
            unseen => format!(" {unseen} could not be seen from here."),
        };
        let _ = match (bad, warn) {
            (0, 0) => writeln!(text, "Nothing to mend.{unseen}"),
            (bad, warn) => writeln!(
                text,
                "{bad} bad, {warn} to consider; the commands above mend them (sysctl needs root).{unseen}"
            ),
        };
        text
    }

    /// The findings' sum in a sentence.
    pub fn sum(&self) -> String {
        let Some(first) = self.bounds.first() else {
            return "How many viewers fit cannot be said: nothing that bounds them is visible here."
                .into();
        };
        let mut sum = format!(
            "This machine fits {} viewers with these settings; what limits it first is {}.",
            count(first.viewers),
            first.what
        );
        if let Some(second) = self.bounds.get(1) {
            let _ = write!(sum, " Next: {} ({}).", second.what, count(second.viewers));
        }
        sum
    }

    /// For programs: one object on one line. `fits` is null where it cannot be said.
    pub fn json(&self) -> String {
        let first = self.bounds.first();
        let line = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ok": self.exit_code() == 0,
            "fits": first.map(|bound| bound.viewers),
            "limited_by": first.map(|bound| &bound.what),
            "sum": self.sum(),
            "report": self,
        });
        format!("{line}\n")
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Bad => "BAD",
            Verdict::Unknown => "?",
        }
    }
}

/// A whole number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as a person reads them.
pub fn bytes(n: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if n >= size {
            return format!("{:.1} {unit}", n as f64 / size as f64);
        }
    }
    format!("{n} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>, bounds: &[(&str, u64)]) -> Report {
        let bound = |&(what, viewers): &(&str, u64)| Bound {
            what: what.into(),
            viewers,
        };
        Report {
            system: "Linux 6".into(),
            cores: 2,
            shards: 2,
            findings,
            bounds: bounds.iter().map(bound).collect(),
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn only_what_is_bad_fails() {
        let warn = Finding::new("a", Verdict::Warn, "f", "m");
        let bad = Finding::new("b", Verdict::Bad, "f", "m").sysctl("net.core.x", "1 2", true);
        assert_eq!(report(vec![warn.clone()], &[]).exit_code(), 0);
        let both = report(vec![warn, bad], &[("memory", 1200), ("descriptors", 5000)]);
        assert_eq!(both.exit_code(), 1);
        let text = both.text();
        for needle in [
            "warn a: f",
            "BAD  b: f",
            "sysctl -w net.core.x=\"1 2\"",
            "echo 'net.core.x = 1 2' >> /etc/sysctl.d/90-danmaku.conf",
            "docker run --sysctl net.core.x=\"1 2\" ...",
            "fits 1,200 viewers with these settings; what limits it first is memory. Next: descriptors (5,000).",
            "1 bad, 1 to consider",
        ] {
            assert!(text.contains(needle), "no {needle} in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&both.json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["fits"], 1200);
        assert_eq!(json["report"]["findings"][1]["verdict"], "bad");
        assert_eq!(json["report"]["findings"][1]["mend"][0]["how"], "now");
    }

    #[test]
    fn without_a_bound_nothing_is_promised() {
        let none = report(Vec::new(), &[]);
        assert!(none.sum().contains("cannot be said"));
        assert!(none.text().contains("Nothing to mend."));
        let json: serde_json::Value = serde_json::from_str(&none.json()).unwrap();
        assert!(json["fits"].is_null() && json["ok"] == true);
    }
}
