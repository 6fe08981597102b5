//! What happened in a room lately, as its home counts it: for who looks at the figures.

use super::Home;
use crate::base::clock::Now;
use crate::proto::node::part::Part;
use crate::room::ask::{Author, Content, Publish};
use crate::room::stats::Stats;

impl Home {
    /// Whether somebody here wants to know what happens in it.
    pub fn is_wanted(&self) -> bool {
        self.here() > 0 || self.watchers > 0
    }

    /// So many connections look at its figures.
    pub fn set_watchers(&mut self, watchers: u32) {
        self.watchers = watchers;
    }

    /// What happened in it lately, as far as this node was told; `None`: nothing, and nobody is here.
    pub fn part(&mut self, now: Now) -> Option<Part> {
        let (viewers, now_s) = (self.here(), mono_s(now));
        self.rest(now);
        match &mut self.stats {
            Some(stats) => Some(stats.part(viewers, now_s)),
            None if viewers == 0 => None,
            None => Some(Part {
                viewers,
                ..Part::default()
            }),
        }
    }

    /// Gives back what was kept of what happened, if that is long ago.
    pub fn rest(&mut self, now: Now) {
        let is_quiet = |stats: &mut Box<Stats>| stats.is_quiet(mono_s(now));
        if self.stats.as_mut().is_some_and(is_quiet) {
            self.stats = None;
        }
    }

    pub(super) fn stats_at(&mut self, now: Now) -> &mut Stats {
        self.stats
            .get_or_insert_with(|| Box::new(Stats::new(mono_s(now))))
    }

    pub(super) fn note_said(&mut self, publish: &Publish, now: Now) {
        if let Content::Line { .. } = publish.content {
            let by = match &publish.author {
                Author::User(user) => Some(user),
                Author::Anonymous => None,
            };
            self.stats_at(now).said(by, mono_s(now));
        }
    }
}

/// Seconds on the monotonic clock.
pub fn mono_s(now: Now) -> u64 {
    now.mono_ns / 1_000_000_000
}
