//! What a link does with lines on their way out and in.

use super::*;
use crate::base::ids::{ConnId, ShardId};
use crate::proto::node::{Message, parse, put};
use crate::room::ask::{Encoding, Seat};

const ME: &str = "me.1";
const EPOCH: Epoch = Epoch(7);

fn say(link: &mut Link<u32>, waits: u32, speaker: Option<Speaker>) {
    let sent = Sent {
        kind: Kind::Line,
        waits,
        once: None,
        speaker,
    };
    link.put(sent, |out| {
        out.extend_from_slice(waits.to_string().as_bytes())
    })
    .unwrap();
}

fn speaker(slot: u32) -> Speaker {
    Speaker {
        seat: Seat {
            shard: ShardId(0),
            encoding: Encoding::Plain,
        },
        conn: ConnId {
            slot,
            generation: 1,
        },
    }
}

/// A batch as Redis numbers it.
fn lines(epoch: Epoch, first: u64, count: u64, node: &str, batch: u64) -> Lines {
    let mut bytes = format!("L {} {first} {count} {node} {batch}\n", epoch.0).into_bytes();
    for seq in first..first + count {
        put(&mut bytes, Kind::Line, |out| {
            out.extend_from_slice(seq.to_string().as_bytes());
        });
    }
    match parse(bytes.into()) {
        Some(Message::Lines(lines)) => lines,
        other => panic!("{other:?}"),
    }
}

fn from(node: &str, first: u64, count: u64) -> Lines {
    lines(EPOCH, first, count, node, 1)
}

#[test]
fn one_batch_is_under_way_and_what_comes_meanwhile_is_the_next() {
    let mut link = Link::new(0);
    assert_eq!(link.next_batch(), None);
    say(&mut link, 1, None);
    say(&mut link, 2, None);
    let first = link.next_batch().unwrap();
    assert_eq!((first.batch, first.count), (1, 2));
    say(&mut link, 3, None);
    assert_eq!(link.next_batch(), None);
    let told: Vec<_> = link.numbered(1, EPOCH, 41, true).collect();
    let told: Vec<_> = told.iter().map(|(sent, at)| (sent.waits, at.seq)).collect();
    assert_eq!(told, [(1, 41), (2, 42)]);
    let second = link.next_batch().unwrap();
    assert_eq!((second.batch, second.count), (2, 1));
    assert_eq!(
        link.numbered(1, EPOCH, 41, true).count(),
        0,
        "it was told already"
    );
    assert!(!link.is_idle());
    assert_eq!(link.numbered(2, EPOCH, 43, true).count(), 1);
    assert!(link.is_idle());
}

#[test]
fn too_much_that_waits_is_refused_and_hands_back_who_waits() {
    let mut link = Link::new(0);
    let line = "x".repeat(1000);
    let mut put = |waits: u32| {
        let sent = Sent {
            kind: Kind::Event,
            waits,
            once: None,
            speaker: None,
        };
        link.put(sent, |out| out.extend_from_slice(line.as_bytes()))
    };
    let refused = (0..).find_map(|waits| put(waits).err()).unwrap();
    assert_eq!(refused.0 as usize, OPEN_BYTES_MAX.div_ceil(1005));
    assert_eq!(refused.1.code, Code::Busy);
    assert!(refused.1.retry_after_ms.is_some());
}

#[test]
fn a_cut_gives_back_everything_in_order_and_passes_over_what_comes_back() {
    let mut link = Link::new(0);
    say(&mut link, 1, None);
    link.next_batch().unwrap();
    say(&mut link, 2, None);
    say(&mut link, 3, None);
    assert_eq!(
        given_back(link.cut()),
        [
            ("1".into(), Some(1)),
            ("2".into(), Some(2)),
            ("3".into(), Some(3))
        ]
    );
    assert!(link.is_idle());
    assert_eq!(link.numbered(1, EPOCH, 5, true).count(), 0);
    let late = lines(EPOCH, 5, 1, ME, 1);
    assert_eq!(link.came(late.clone(), (EPOCH, 4), ME), Next::Pass(late));
    // The next one is not the one that was given up.
    say(&mut link, 4, None);
    assert_eq!(link.next_batch().unwrap().batch, 2);
    let next = lines(EPOCH, 6, 1, ME, 2);
    assert!(matches!(link.came(next, (EPOCH, 5), ME), Next::Take(..)));
}

fn given_back(cut: Vec<Cut<u32>>) -> Vec<(Bytes, Option<u32>)> {
    let one = |cut: Cut<u32>| (cut.rest, cut.sent.map(|sent| sent.waits));
    cut.into_iter().map(one).collect()
}

#[test]
fn what_has_its_number_and_has_not_come_back_is_cut_too_and_nobody_is_told_twice() {
    let mut link = Link::new(0);
    say(&mut link, 1, Some(speaker(3)));
    link.next_batch().unwrap();
    assert_eq!(link.numbered(1, EPOCH, 5, true).count(), 1);
    say(&mut link, 2, None);
    link.next_batch().unwrap();
    let cut = link.cut();
    assert_eq!(cut[0].speaker, Some(speaker(3)));
    assert_eq!(given_back(cut), [("1".into(), None), ("2".into(), Some(2))]);
    // What has come back, what was read, and what nobody here reads are not.
    say(&mut link, 3, None);
    link.next_batch().unwrap();
    assert_eq!(link.numbered(3, EPOCH, 7, true).count(), 1);
    link.came(lines(EPOCH, 7, 1, ME, 3), (EPOCH, 6), ME);
    say(&mut link, 4, None);
    link.next_batch().unwrap();
    assert_eq!(link.numbered(4, EPOCH, 8, true).count(), 1);
    link.has_all(8);
    say(&mut link, 5, None);
    link.next_batch().unwrap();
    assert_eq!(link.numbered(5, EPOCH, 9, false).count(), 1);
    assert!(link.cut().is_empty());
}

#[test]
fn nothing_is_sent_while_too_much_is_still_to_come_back() {
    let mut link = Link::new(0);
    let line = "x".repeat(100_000);
    let mut batches = 0;
    loop {
        let sent = Sent {
            kind: Kind::Line,
            waits: 0,
            once: None,
            speaker: None,
        };
        link.put(sent, |out| out.extend_from_slice(line.as_bytes()))
            .unwrap();
        let Some(batch) = link.next_batch() else {
            break;
        };
        batches += 1;
        assert_eq!(link.numbered(batch.batch, EPOCH, batches, true).count(), 1);
    }
    assert_eq!(batches as usize, AWAY_BYTES_MAX / 100_005 + 1);
    link.came(lines(EPOCH, 1, 1, ME, 1), (EPOCH, 0), ME);
    assert!(link.next_batch().is_some());
}

#[test]
fn a_new_tie_does_not_number_as_the_old_one_did() {
    let mut link = Link::new(41);
    let late = lines(EPOCH, 1, 1, ME, 41);
    assert_eq!(link.came(late.clone(), (EPOCH, 0), ME), Next::Pass(late));
    say(&mut link, 1, None);
    assert_eq!(link.next_batch().unwrap().batch, 42);
}

#[test]
fn own_lines_come_back_with_who_said_them() {
    let mut link = Link::new(0);
    say(&mut link, 1, Some(speaker(9)));
    say(&mut link, 2, None);
    link.next_batch().unwrap();
    // Another node's batch of the same number is not ours.
    let Next::Take(_, speakers) = link.came(lines(EPOCH, 1, 1, "other", 1), (EPOCH, 0), ME) else {
        panic!("it follows");
    };
    assert!(speakers.is_empty());
    let Next::Take(_, speakers) = link.came(lines(EPOCH, 2, 2, ME, 1), (EPOCH, 1), ME) else {
        panic!("it follows");
    };
    assert_eq!(*speakers, [Some(speaker(9)), None]);
}

#[test]
fn a_gap_is_read_once_and_what_came_behind_it_is_kept() {
    let mut link: Link<u32> = Link::new(0);
    let at = (EPOCH, 10);
    assert_eq!(
        link.came(from("a", 9, 2), at, ME),
        Next::Pass(from("a", 9, 2))
    );
    assert_eq!(link.came(from("a", 12, 1), at, ME), Next::Read);
    assert_eq!(link.came(from("b", 13, 2), at, ME), Next::Wait);
    let other = lines(Epoch(8), 1, 1, "a", 1);
    assert_eq!(link.came(other.clone(), at, ME), Next::Wait);
    assert!(link.is_reading());
    let held: Vec<Lines> = link.was_read().into();
    assert_eq!(held, [from("a", 12, 1), from("b", 13, 2), other]);
    assert!(!link.is_reading());
    assert_eq!(link.came(from("a", 12, 1), at, ME), Next::Read);
}

#[test]
fn what_is_held_has_a_bound() {
    let mut link: Link<u32> = Link::new(0);
    let mut bytes = 0;
    for first in 2..60_000 {
        let lines = from("a", first * 10, 10);
        bytes += lines.bytes();
        link.came(lines, (EPOCH, 1), ME);
    }
    assert!(bytes > 2 * HELD_BYTES_MAX);
    let held = link.was_read();
    let kept: usize = held.iter().map(Lines::bytes).sum();
    assert!(kept <= HELD_BYTES_MAX);
    assert_eq!(
        held.back(),
        Some(&from("a", 599_990, 10)),
        "the newest stay"
    );
}

#[test]
fn other_nodes_are_counted_and_this_one_is_not() {
    let mut link: Link<u32> = Link::new(0);
    link.counts(
        [("a".into(), 3), (ME.into(), 9), ("b".into(), 0)].into_iter(),
        ME,
    );
    assert_eq!(link.others(), 3);
    link.count("b", 4, ME);
    link.count(ME, 8, ME);
    assert_eq!(link.others(), 7);
    link.count("a", 0, ME);
    assert_eq!(link.others(), 4);
    link.count("d.7#1", 5, ME);
    link.count("d.7#2", 6, ME);
    link.count("d.7#1", 0, ME);
    link.count(&format!("{ME}#3"), 9, ME);
    assert_eq!(link.others(), 10, "a node counts under one name");
    link.count("c", u32::MAX, ME);
    assert_eq!(link.others(), u32::MAX, "no number that wraps");
}
