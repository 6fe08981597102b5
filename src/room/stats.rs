//! What happens in a room, as figures: who comes and goes, how much is said and by whom. Owned by the room's home, each node counting what
//! it was told itself; parts of several nodes are put together by whoever shows them.
//!
//! Sans-IO. A room in which nothing has happened for a minute has none of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::base::identity::User;
use crate::base::ids::UserId;
use crate::proto::node::part::{Part, Spoke};

/// Joins and leaves are told of for so many seconds, ...
const WINDOW_S: u64 = 60;
/// ... lines for so many, ...
const LINES_S: u64 = 5;
/// ... and who spoke most for this one and the one before it.
const SPEAKERS_S: u64 = 60;
/// Speakers that are counted apart in that time. Of more than these the busiest are right, the others may be told too high.
const SPEAKERS_MAX: usize = 128;
/// Speakers that a part names.
const TOP: usize = 20;

/// One room's figures.
#[derive(Debug)]
pub struct Stats {
    /// The newest second, on the monotonic clock.
    at_s: u64,
    seconds: [Second; WINDOW_S as usize],
    /// Sums over them.
    sum: Second,
    speakers: Speakers,
    before: Speakers,
    speakers_since_s: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Second {
    joins: u32,
    leaves: u32,
    lines: u32,
}

/// Lines by user.
type Speakers = HashMap<UserId, (Box<str>, u32)>;

impl Stats {
    /// Nothing yet.
    pub fn new(now_s: u64) -> Stats {
        Stats {
            at_s: now_s,
            seconds: [Second::default(); WINDOW_S as usize],
            sum: Second::default(),
            speakers: HashMap::new(),
            before: HashMap::new(),
            speakers_since_s: now_s,
        }
    }

    /// Somebody came.
    pub fn joined(&mut self, now_s: u64) {
        self.now(now_s).joins += 1;
        self.sum.joins += 1;
    }

    /// Somebody went.
    pub fn left(&mut self, now_s: u64) {
        self.now(now_s).leaves += 1;
        self.sum.leaves += 1;
    }

    /// A line was taken.
    pub fn said(&mut self, by: Option<&User>, now_s: u64) {
        self.now(now_s).lines += 1;
        self.sum.lines += 1;
        let Some(user) = by else {
            return;
        };
        if let Some((_, lines)) = self.speakers.get_mut(&user.id) {
            *lines += 1;
            return;
        }
        let mut lines = 1;
        if self.speakers.len() >= SPEAKERS_MAX {
            // Space-Saving (Metwally et al., 2005): the newcomer takes the place of the least, and its count.
            let least = self.speakers.iter().min_by_key(|(_, (_, lines))| *lines);
            if let Some((id, (_, count))) = least.map(|(id, it)| (id.clone(), it.clone())) {
                self.speakers.remove(&id);
                lines += count;
            }
        }
        let name = user.name.as_ref().into();
        self.speakers.insert(user.id.clone(), (name, lines));
    }

    /// Whether nothing happened for so long that nothing is told of any more.
    pub fn is_quiet(&mut self, now_s: u64) -> bool {
        self.advance(now_s);
        self.sum == Second::default() && self.speakers.is_empty() && self.before.is_empty()
    }

    /// What there is to tell, with so many viewers here now.
    pub fn part(&mut self, viewers: u32, now_s: u64) -> Part {
        self.advance(now_s);
        let since_s = now_s.saturating_sub(LINES_S - 1);
        let lines = (since_s..=now_s).map(|at_s| self.seconds[slot(at_s)].lines);
        let spoken = [&self.speakers, &self.before].into_iter().flatten();
        let spoken = spoken.map(|(id, (name, lines))| Spoke {
            id: id.clone(),
            name: name.clone(),
            lines: *lines,
        });
        Part {
            viewers,
            joins: self.sum.joins,
            leaves: self.sum.leaves,
            lines: lines.sum(),
            speakers: top(spoken, TOP),
        }
    }

    fn now(&mut self, now_s: u64) -> &mut Second {
        self.advance(now_s);
        &mut self.seconds[slot(self.at_s)]
    }

    fn advance(&mut self, now_s: u64) {
        let passed = now_s.saturating_sub(self.at_s);
        for at_s in self.at_s + 1..=self.at_s + passed.min(WINDOW_S) {
            let gone = std::mem::take(&mut self.seconds[slot(at_s)]);
            self.sum.joins -= gone.joins;
            self.sum.leaves -= gone.leaves;
            self.sum.lines -= gone.lines;
        }
        self.at_s = self.at_s.max(now_s);
        let since_s = self.at_s - self.speakers_since_s;
        if since_s >= SPEAKERS_S {
            self.before = std::mem::take(&mut self.speakers);
            if since_s >= 2 * SPEAKERS_S {
                self.before.clear();
            }
            self.speakers_since_s = self.at_s;
        }
    }
}

fn slot(at_s: u64) -> usize {
    (at_s % WINDOW_S) as usize
}

/// The busiest, those of the same name put together.
fn top(spoken: impl Iterator<Item = Spoke>, max: usize) -> Vec<Spoke> {
    let mut by_user: BTreeMap<UserId, Spoke> = BTreeMap::new();
    for spoke in spoken {
        match by_user.get_mut(&spoke.id) {
            Some(known) => known.lines = known.lines.saturating_add(spoke.lines),
            None => {
                by_user.insert(spoke.id.clone(), spoke);
            }
        }
    }
    let mut busiest: Vec<Spoke> = by_user.into_values().collect();
    busiest.sort_by_key(|spoke| Reverse(spoke.lines));
    busiest.truncate(max);
    busiest
}

/// Parts of several nodes, put together, with so many speakers.
pub fn together<'a>(parts: impl Iterator<Item = &'a Part>, speakers: usize) -> Part {
    let mut all = Part::default();
    let mut spoken = Vec::new();
    for part in parts {
        all.viewers = all.viewers.saturating_add(part.viewers);
        all.joins = all.joins.saturating_add(part.joins);
        all.leaves = all.leaves.saturating_add(part.leaves);
        all.lines = all.lines.saturating_add(part.lines);
        spoken.extend(part.speakers.iter().cloned());
    }
    all.speakers = top(spoken.into_iter(), speakers);
    all
}

/// Lines a second, in tenths, of a part's lines.
pub fn lines_per_s_tenths(part: &Part) -> u64 {
    u64::from(part.lines) * 10 / LINES_S
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> User {
        User {
            id: UserId::parse(id).unwrap(),
            name: format!("name of {id}").into(),
        }
    }

    fn spoke(part: &Part) -> Vec<(&str, u32)> {
        let spoken = part.speakers.iter();
        spoken.map(|it| (it.id.as_str(), it.lines)).collect()
    }

    #[test]
    fn what_happened_is_told_for_a_minute() {
        let mut stats = Stats::new(1_000);
        for at_s in [1_000, 1_010, 1_010, 1_059] {
            stats.joined(at_s);
        }
        stats.left(1_059);
        let part = stats.part(3, 1_059);
        assert_eq!((part.viewers, part.joins, part.leaves), (3, 4, 1));
        assert_eq!(stats.part(3, 1_060).joins, 3, "the first is a minute ago");
        assert_eq!(stats.part(3, 1_070).joins, 1);
        assert!(!stats.is_quiet(1_118));
        assert!(stats.is_quiet(1_119));
        // A long silence does not count back.
        stats.joined(9_000);
        assert_eq!(stats.part(1, 9_000).joins, 1);
    }

    #[test]
    fn lines_are_those_of_the_last_seconds() {
        let mut stats = Stats::new(50);
        for at_s in 50..60 {
            for _ in 0..7 {
                stats.said(None, at_s);
            }
        }
        assert_eq!(lines_per_s_tenths(&stats.part(0, 59)), 70);
        assert_eq!(lines_per_s_tenths(&stats.part(0, 61)), 42);
        assert_eq!(lines_per_s_tenths(&stats.part(0, 70)), 0);
    }

    #[test]
    fn the_busiest_speakers_are_right_among_many() {
        let mut stats = Stats::new(0);
        for n in 0..3_000_u32 {
            stats.said(Some(&user(&format!("crowd-{n}"))), 1);
            if n % 3 == 0 {
                stats.said(Some(&user("loud")), 1);
            }
            if n % 10 == 0 {
                stats.said(Some(&user("louder than most")), 1);
            }
        }
        let part = stats.part(0, 2);
        assert_eq!(
            spoke(&part)[..2],
            [("loud", 1000), ("louder than most", 300)]
        );
        assert_eq!(&*part.speakers[0].name, "name of loud");
        assert_eq!(part.speakers.len(), TOP);
        assert_eq!(
            spoke(&stats.part(0, 61))[0],
            ("loud", 1000),
            "a minute later"
        );
        stats.said(Some(&user("late")), 125);
        assert_eq!(spoke(&stats.part(0, 125)), [("late", 1)]);
    }

    #[test]
    fn parts_of_several_nodes_add_up() {
        let part = |viewers, speakers: &[(&str, u32)]| Part {
            viewers,
            joins: 2,
            leaves: 1,
            lines: 10,
            speakers: speakers
                .iter()
                .map(|(id, lines)| Spoke {
                    id: UserId::parse(id).unwrap(),
                    name: "n".into(),
                    lines: *lines,
                })
                .collect(),
        };
        let parts = [
            part(3, &[("a", 5), ("b", 4)]),
            part(4, &[("b", 2), ("c", 1)]),
        ];
        let all = together(parts.iter(), 2);
        assert_eq!(
            (all.viewers, all.joins, all.leaves, all.lines),
            (7, 4, 2, 20)
        );
        assert_eq!(spoke(&all), [("b", 6), ("a", 5)]);
    }
}
