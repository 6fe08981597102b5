//! Settles the accounts: every membership against its room's ledger. On the main thread, after the run.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Accepted, Ledger, Membership};
use crate::report::Deliveries;

/// Sentences about what was wrong, at most this many.
const EXAMPLES_MAX: usize = 12;

/// Everything the client threads wrote down.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Lines with the number they were given.
    pub accepted: Vec<Accepted>,
    /// Rooms in which a publisher's answer was lost, so that a line may have been numbered that is not in `accepted`.
    pub unsure: HashSet<u32>,
    /// Every membership of the run.
    pub memberships: Vec<Membership>,
    /// Rooms by their index, for sentences.
    pub rooms: Vec<String>,
    /// Nodes the viewers were on: one, or several that are to be one to the viewers.
    pub nodes: usize,
}

/// Holds every membership against its room's ledger and adds up what came of it.
pub fn settle(mut books: Books) -> Deliveries {
    let mut found = Deliveries::default();
    let ledgers = ledgers(std::mem::take(&mut books.accepted));
    for ((room, _), ledger) in &ledgers {
        if ledger.given_twice > 0 {
            let name = name(&books.rooms, *room);
            found.corrupted += ledger.given_twice;
            example(&mut found, || {
                format!(
                    "room {name} gave {} numbers to two lines each",
                    ledger.given_twice
                )
            });
        }
    }
    let ends = ends(&books.memberships, &ledgers);
    let empty = Ledger::new(Vec::new());
    for membership in &books.memberships {
        let room = membership.room;
        let numbering = (room, membership.tally.epoch);
        let account = Account {
            name: name(&books.rooms, room),
            ledger: ledgers.get(&numbering).unwrap_or(&empty),
            end: ends.get(&numbering).copied().unwrap_or(0),
            sure: !books.unsure.contains(&room),
        };
        account.settle(membership, &mut found);
    }
    if books.nodes > 1 {
        apart(&books, &ledgers, &mut found);
    }
    found
}

/// What became of rooms that several nodes share: lines that a viewer had no part in because they were said in another
/// numbering than its own, although it was there from the first line to the last; and rooms that had several numberings at
/// the end. A viewer's memberships of a room stand together, in the order in which it had them.
fn apart(books: &Books, ledgers: &BTreeMap<Numbering, Ledger>, found: &mut Deliveries) {
    let mut said: HashMap<u32, u64> = HashMap::new();
    for ((room, _), ledger) in ledgers {
        *said.entry(*room).or_default() += ledger.lines();
    }
    let mut at_end: BTreeMap<u32, HashSet<u64>> = BTreeMap::new();
    let of_one_viewer =
        |one: &Membership, next: &Membership| (one.room, one.viewer) == (next.room, next.viewer);
    for stay in books.memberships.chunk_by(of_one_viewer) {
        let [before @ .., last] = stay else {
            continue;
        };
        for (nth, membership) in before.iter().enumerate() {
            if membership.renumbered {
                unheard(books, membership, &stay[nth + 1..], ledgers, found);
            }
        }
        if !last.to_the_end {
            continue;
        }
        let numberings = at_end.entry(last.room).or_default();
        numberings.insert(last.tally.epoch);
        let unbroken = before.iter().all(|membership| membership.renumbered);
        if unbroken && stay.first().is_some_and(|first| first.early) {
            let own = stay.iter().map(|membership| {
                let tally = &membership.tally;
                let to = match membership.to_the_end {
                    true => u64::MAX,
                    false => tally.last,
                };
                let ledger = ledgers.get(&(membership.room, tally.epoch));
                ledger.map_or(0, |ledger| ledger.between(tally.base, to).0)
            });
            let all = said.get(&last.room).copied().unwrap_or(0);
            found.apart += all.saturating_sub(own.sum());
        }
    }
    let split = at_end.iter().filter(|(_, numberings)| numberings.len() > 1);
    for (room, numberings) in split {
        found.split += 1;
        example(found, || {
            format!(
                "room {} has {} numberings at the end",
                name(&books.rooms, *room),
                numberings.len()
            )
        });
    }
}

/// One numbering of a room, as one of its memberships is held against it.
struct Account<'a> {
    name: &'a str,
    ledger: &'a Ledger,
    /// The highest number anyone knows of.
    end: u64,
    /// Whether the ledger has every line of ours.
    sure: bool,
}

impl Account<'_> {
    fn settle(&self, membership: &Membership, found: &mut Deliveries) {
        let tally = &membership.tally;
        let tail = if membership.to_the_end {
            self.end.saturating_sub(tally.last)
        } else {
            0
        };
        let missing = match membership.cut_short {
            true => membership.missing.lines().min(tally.told),
            false => membership.missing.lines() + tail,
        };
        let lost = missing.saturating_sub(tally.told);
        found.expected += tally.received + missing;
        found.delivered += tally.received;
        found.told_dropped += tally.told.min(missing);
        found.lost += lost;
        found.duplicated += u64::from(tally.duplicated);
        found.out_of_order += u64::from(tally.out_of_order);
        let viewer = membership.viewer;
        let too_many = tally.told.saturating_sub(missing);
        if membership.to_the_end && too_many > 0 {
            found.told_too_many += too_many;
            example(found, || {
                format!(
                    "viewer {viewer} in room {} was told of {too_many} drops that were none",
                    self.name
                )
            });
        }
        if lost > 0 {
            example(found, || {
                format!(
                    "viewer {viewer} in room {} lost {lost} lines without a word: missing {} below {}, {tail} after it, told {}",
                    self.name,
                    ranges(&membership.missing.ranges),
                    tally.last,
                    tally.told
                )
            });
        }
        if tally.duplicated > 0 || tally.out_of_order > 0 {
            example(found, || {
                format!(
                    "viewer {viewer} in room {} got {} lines twice and {} out of order",
                    self.name, tally.duplicated, tally.out_of_order
                )
            });
        }
        self.contents(membership, found);
    }

    /// Whether the lines that came are those that were sent under their numbers.
    fn contents(&self, membership: &Membership, found: &mut Deliveries) {
        if !self.sure || membership.missing.forgotten > 0 {
            found.memberships_unchecked += 1;
            return;
        }
        found.memberships_checked += 1;
        let tally = &membership.tally;
        let (mut lines, mut sum) = self.ledger.between(tally.base, tally.last);
        for (from, to) in &membership.missing.ranges {
            let (gone, gone_sum) = self.ledger.between(from - 1, *to);
            lines = lines.saturating_sub(gone);
            sum = sum.wrapping_sub(gone_sum);
        }
        if sum != tally.sum {
            found.corrupted += 1;
            example(found, || {
                format!(
                    "viewer {} in room {}: the {lines} lines it got between {} and {} are not those that were sent",
                    membership.viewer, self.name, tally.base, tally.last
                )
            });
        }
        found.foreign += tally.received.saturating_sub(lines);
    }
}

/// A room and one of its numberings.
type Numbering = (u32, u64);

fn ledgers(accepted: Vec<Accepted>) -> BTreeMap<Numbering, Ledger> {
    let mut numberings: BTreeMap<Numbering, Vec<Accepted>> = BTreeMap::new();
    for line in accepted {
        let lines = numberings.entry((line.room, line.epoch)).or_default();
        lines.push(line);
    }
    let ledger = |(numbering, accepted)| (numbering, Ledger::new(accepted));
    numberings.into_iter().map(ledger).collect()
}

/// The highest number of each numbering, by its publishers and by everyone who saw it.
fn ends(
    memberships: &[Membership],
    ledgers: &BTreeMap<Numbering, Ledger>,
) -> HashMap<Numbering, u64> {
    let mut ends: HashMap<Numbering, u64> = HashMap::new();
    let known = ledgers.iter().map(|(at, ledger)| (*at, ledger.last()));
    let seen = memberships.iter().map(|membership| {
        let tally = &membership.tally;
        ((membership.room, tally.epoch), tally.last)
    });
    for (numbering, last) in known.chain(seen) {
        let end = ends.entry(numbering).or_default();
        *end = last.max(*end);
    }
    ends
}

/// A viewer was told of a new numbering: of the one it leaves it has heard all that was said at its own node, whatever becomes
/// of the others. What it has not is lost.
fn unheard(
    books: &Books,
    left: &Membership,
    next: &[Membership],
    ledgers: &BTreeMap<Numbering, Ledger>,
    found: &mut Deliveries,
) {
    let tally = &left.tally;
    let Some(ledger) = ledgers.get(&(left.room, tally.epoch)) else {
        return;
    };
    // As the plan spreads viewers.
    let node = (left.viewer as usize % books.nodes.max(1)) as u16;
    let back = next.iter().find(|next| next.tally.epoch == tally.epoch);
    let to = back.map_or(u64::MAX, |back| back.tally.base);
    let told = tally.told.saturating_sub(left.missing.lines());
    let lost = ledger.said_at(node, tally.last, to).saturating_sub(told);
    if lost > 0 {
        found.expected += lost;
        found.lost += lost;
        example(found, || {
            format!(
                "viewer {} in room {} was told of a new numbering before it had heard {lost} lines of its own node above {}",
                left.viewer,
                name(&books.rooms, left.room),
                tally.last
            )
        });
    }
}

fn name(rooms: &[String], room: u32) -> &str {
    rooms.get(room as usize).map_or("?", String::as_str)
}

fn example(found: &mut Deliveries, sentence: impl FnOnce() -> String) {
    if found.examples.len() < EXAMPLES_MAX {
        found.examples.push(sentence());
    }
}

fn ranges(missing: &VecDeque<(u64, u64)>) -> String {
    let mut shown: Vec<String> = missing
        .iter()
        .take(4)
        .map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect();
    if missing.len() > 4 {
        shown.push("...".into());
    }
    if shown.is_empty() {
        "nothing".into()
    } else {
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gaps, Missing, Tally, fingerprint};
    use super::*;
    use proptest::prelude::*;

    const LINES: u64 = 50;

    fn ledger() -> Vec<Accepted> {
        (1..=LINES)
            .map(|seq| Accepted {
                room: 0,
                epoch: 9,
                seq,
                line: 1000 + seq,
                node: 0,
            })
            .collect()
    }

    /// A viewer that joined after `base` and got these numbers, each with its own content unless told otherwise.
    fn viewer(base: u64, got: impl IntoIterator<Item = (u64, u64)>, told: u64) -> Membership {
        let mut gaps = Gaps::default();
        let mut tally = Tally::joined(9, base);
        for (seq, line) in got {
            tally.line(seq, fingerprint(seq, Some(line)), 0, &mut gaps);
        }
        tally.told = told;
        Membership {
            viewer: 0,
            room: 0,
            tally,
            missing: gaps.remove(&0).unwrap_or_default(),
            cut_short: false,
            to_the_end: true,
            early: base == 0,
            renumbered: false,
        }
    }

    fn honest(seqs: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (u64, u64)> {
        seqs.into_iter().map(|seq| (seq, 1000 + seq))
    }

    fn settled(memberships: Vec<Membership>) -> Deliveries {
        settle(Books {
            accepted: ledger(),
            memberships,
            rooms: vec!["r".into()],
            ..Books::default()
        })
    }

    fn faults(found: &Deliveries) -> [u64; 5] {
        [
            found.lost,
            found.duplicated,
            found.out_of_order,
            found.corrupted,
            found.told_too_many,
        ]
    }

    #[test]
    fn all_is_well() {
        let found = settled(vec![
            viewer(0, honest(1..=LINES), 0),
            viewer(20, honest(21..=LINES), 0),
        ]);
        assert_eq!(faults(&found), [0; 5]);
        assert_eq!(
            (found.expected, found.delivered, found.foreign),
            (80, 80, 0)
        );
        assert_eq!(found.memberships_checked, 2);
    }

    #[test]
    fn each_fault_is_named() {
        let skips = |skipped: u64| honest((1..=LINES).filter(move |seq| *seq != skipped));
        assert_eq!(
            faults(&settled(vec![viewer(0, skips(7), 0)])),
            [1, 0, 0, 0, 0],
            "a line dropped"
        );
        assert_eq!(
            faults(&settled(vec![viewer(0, skips(LINES), 0)])),
            [1, 0, 0, 0, 0],
            "the last line dropped"
        );
        assert_eq!(
            faults(&settled(vec![viewer(0, skips(1), 0)])),
            [1, 0, 0, 0, 0],
            "the first line dropped"
        );
        assert_eq!(
            faults(&settled(vec![viewer(0, skips(7), 1)])),
            [0; 5],
            "dropped and told"
        );
        assert_eq!(
            faults(&settled(vec![viewer(0, skips(7), 3)])),
            [0, 0, 0, 0, 2],
            "told too many"
        );
        let twice = honest((1..=LINES).flat_map(|seq| vec![seq; if seq == 9 { 2 } else { 1 }]));
        assert_eq!(
            faults(&settled(vec![viewer(0, twice, 0)])),
            [0, 1, 0, 0, 0],
            "a line twice"
        );
        let swapped = honest((1..=LINES).map(|seq| match seq {
            9 => 10,
            10 => 9,
            seq => seq,
        }));
        assert_eq!(
            faults(&settled(vec![viewer(0, swapped, 0)])),
            [0, 0, 1, 0, 0],
            "two lines swapped"
        );
        let other = (1..=LINES).map(|seq| (seq, if seq == 9 { 5 } else { 1000 + seq }));
        assert_eq!(
            faults(&settled(vec![viewer(0, other, 0)])),
            [0, 0, 0, 1, 0],
            "another line under its number"
        );
        let exchanged = (1..=LINES).map(|seq| (seq, if seq == 9 { 1010 } else { 1000 + seq }));
        assert_eq!(
            faults(&settled(vec![viewer(0, exchanged, 0)])),
            [0, 0, 0, 1, 0],
            "one line in place of another"
        );
    }

    #[test]
    fn who_left_early_misses_nothing() {
        let mut early = viewer(0, honest(1..=20), 0);
        early.to_the_end = false;
        let found = settled(vec![early, viewer(0, honest(1..=LINES), 0)]);
        assert_eq!(faults(&found), [0; 5]);
        assert_eq!(found.expected, 70);
    }

    #[test]
    fn who_was_cut_short_is_not_asked_for_what_it_could_not_read() {
        let mut deaf = viewer(0, honest((1..=20).filter(|seq| seq % 5 > 0)), 2);
        (deaf.to_the_end, deaf.cut_short) = (false, true);
        let found = settled(vec![deaf]);
        assert_eq!(faults(&found), [0; 5]);
        assert_eq!((found.expected, found.told_dropped), (16 + 2, 2));
    }

    #[test]
    fn lines_of_others_are_counted_apart() {
        let mut guest = viewer(0, honest(1..=LINES), 0);
        let mut gaps = Gaps::default();
        guest
            .tally
            .line(LINES + 1, fingerprint(LINES + 1, None), 0, &mut gaps);
        let found = settled(vec![guest]);
        assert_eq!((faults(&found), found.foreign), ([0; 5], 1));
    }

    #[test]
    fn an_unsure_room_is_judged_by_number_and_not_by_content() {
        let unsure = |membership| {
            settle(Books {
                accepted: ledger().split_off(1),
                memberships: vec![membership],
                unsure: HashSet::from([0]),
                rooms: vec!["r".into()],
                nodes: 1,
            })
        };
        let found = unsure(viewer(0, honest(1..=LINES), 0));
        assert_eq!((faults(&found), found.memberships_unchecked), ([0; 5], 1));
        let found = unsure(viewer(0, honest(1..LINES), 0));
        assert_eq!(found.lost, 1, "the last line did not come");
    }

    #[test]
    fn each_numbering_of_a_room_has_its_own_ledger() {
        let mut accepted = ledger();
        accepted.extend((1..=3).map(|seq| Accepted {
            room: 0,
            epoch: 10,
            seq,
            line: 2000 + seq,
            node: 0,
        }));
        let mut before = viewer(0, honest(1..=LINES), 0);
        before.to_the_end = false;
        let mut after = viewer(0, (1..=3).map(|seq| (seq, 2000 + seq)), 0);
        after.tally.epoch = 10;
        let mut mixed = viewer(0, honest(1..=3), 0);
        mixed.tally.epoch = 10;
        let books = |memberships| Books {
            accepted: accepted.clone(),
            memberships,
            rooms: vec!["r".into()],
            ..Books::default()
        };
        let found = settle(books(vec![before, after]));
        assert_eq!((faults(&found), found.memberships_checked), ([0; 5], 2));
        assert_eq!(settle(books(vec![mixed])).corrupted, 1);
    }

    /// A room of two nodes: in numbering 9 while they are one, in 20 and 21 while they are not.
    fn nodes_apart(memberships: Vec<Membership>) -> Deliveries {
        let mut accepted = ledger();
        for (epoch, lines) in [(20, 4), (21, 3)] {
            accepted.extend((1..=lines).map(|seq| Accepted {
                room: 0,
                epoch,
                seq,
                line: 1000 * epoch + seq,
                node: (epoch % 2) as u16,
            }));
        }
        settle(Books {
            accepted,
            memberships,
            rooms: vec!["r".into()],
            nodes: 2,
            ..Books::default()
        })
    }

    /// A viewer's stay: numbering, what it had seen before, and the numbers it got.
    fn stay(number: u32, parts: [(u64, u64, std::ops::RangeInclusive<u64>); 3]) -> Vec<Membership> {
        let mut memberships: Vec<Membership> = parts
            .into_iter()
            .enumerate()
            .map(|(nth, (epoch, base, got))| {
                let offset = if epoch == 9 { 1000 } else { 1000 * epoch };
                let mut membership = viewer(base, got.map(|seq| (seq, offset + seq)), 0);
                membership.viewer = number;
                membership.tally.epoch = epoch;
                (membership.early, membership.renumbered) = (nth == 0, nth < 2);
                membership.to_the_end = nth == 2;
                membership
            })
            .collect();
        memberships[0].early = true;
        memberships
    }

    #[test]
    fn lines_said_while_nodes_were_apart_are_counted_and_not_lost() {
        let one = stay(1, [(9, 0, 1..=20), (20, 0, 1..=4), (9, 20, 21..=LINES)]);
        let other = stay(2, [(9, 0, 1..=20), (21, 0, 1..=3), (9, 20, 21..=LINES)]);
        let found = nodes_apart([one, other].concat());
        assert_eq!(faults(&found), [0; 5], "{:?}", found.examples);
        assert_eq!((found.apart, found.split), (3 + 4, 0));
        assert_eq!(found.expected, 2 * LINES + 7);
    }

    #[test]
    fn lines_that_the_others_got_before_the_return_count_as_apart() {
        let back_late = stay(1, [(9, 0, 1..=20), (20, 0, 1..=4), (9, 25, 26..=LINES)]);
        let found = nodes_apart(back_late);
        assert_eq!((faults(&found), found.apart), ([0; 5], 3 + 5));
    }

    #[test]
    fn lines_of_the_own_node_that_a_change_of_numbering_swallowed_are_lost() {
        // Of three lines that its node numbered alone it got two.
        let robbed = stay(1, [(9, 0, 1..=20), (21, 0, 1..=2), (9, 20, 21..=LINES)]);
        let found = nodes_apart(robbed);
        assert_eq!(faults(&found), [1, 0, 0, 0, 0]);
        assert!(found.examples[0].contains("1 lines of its own node above 2"));
    }

    #[test]
    fn a_room_with_several_numberings_at_the_end_is_named() {
        let mut one = viewer(0, honest(1..=LINES), 0);
        one.viewer = 1;
        let mut alone = viewer(0, (1..=4).map(|seq| (seq, 20_000 + seq)), 0);
        (alone.viewer, alone.tally.epoch) = (2, 20);
        let found = nodes_apart(vec![one, alone]);
        assert_eq!(found.split, 1);
        assert_eq!(found.apart, (4 + 3) + (LINES + 3));
        assert!(found.examples[0].contains("2 numberings"));
    }

    #[test]
    fn what_could_not_be_remembered_is_not_judged_by_content() {
        let mut forgetful = viewer(0, honest(11..=LINES), 10);
        forgetful.missing = Missing {
            ranges: VecDeque::from([(6, 10)]),
            forgotten: 5,
        };
        let found = settled(vec![forgetful]);
        assert_eq!((faults(&found), found.memberships_unchecked), ([0; 5], 1));
        assert_eq!(found.told_dropped, 10);
    }

    proptest! {
        /// Whatever a server drops, doubles or swaps, the sums come out: nothing is both expected and unaccounted for.
        #[test]
        fn accounts_always_add_up(got in proptest::collection::vec(1u64..=LINES, 0..200), base in 0u64..LINES) {
            let found = settled(vec![viewer(base, honest(got.clone()), 0)]);
            let distinct: HashSet<u64> = got.into_iter().filter(|seq| *seq > base).collect();
            prop_assert_eq!(found.delivered, distinct.len() as u64);
            prop_assert_eq!(found.expected, found.delivered + found.told_dropped + found.lost);
            prop_assert_eq!(found.expected, LINES - base);
            prop_assert_eq!(found.corrupted, 0);
        }
    }
}
