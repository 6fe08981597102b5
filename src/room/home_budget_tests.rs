//! Tests of what a home leaves out when a room says more than its budget, and whom it tells.

use std::collections::HashMap;

use super::super::ask::{Chunk, Mark, Seat, Speaker};
use super::tests::{at, class, event, home_of, identity, limits, line, objects, seat};
use super::*;
use crate::base::identity::{Identity, RoomScope};
use crate::base::ids::ConnId;

/// A room of one plain and one batch member with a budget.
fn room(per_s: u32) -> Home {
    let mut home = home_of(&class());
    for encoding in Encoding::ALL {
        let join = Join {
            who: None,
            seat: seat(0, encoding),
            resume: None,
        };
        home.join(join, at(0)).unwrap();
    }
    home.put(Patch {
        deliver_per_s_max: Some(per_s),
        ..Patch::default()
    });
    home
}

fn speaker(slot: u32, seat: Seat) -> Speaker {
    let conn = ConnId {
        slot,
        generation: 1,
    };
    Speaker { seat, conn }
}

fn say(home: &mut Home, speaker: Option<Speaker>, role: Role, now_ms: u64) -> u64 {
    let who = Identity {
        role,
        ..(*identity("u", RoomScope::EveryOpen)).clone()
    };
    let publish = Publish {
        speaker,
        who: Some(Arc::new(who)),
        ..line("x")
    };
    home.publish(publish, &limits(0), at(now_ms)).unwrap().seq
}

fn crowd(home: &mut Home, lines: u32, now_ms: u64) {
    for _ in 0..lines {
        say(home, None, Role::Viewer, now_ms);
    }
}

/// Numbers of the lines and events of a chunk, and how many it says are missing.
fn read(chunk: &Chunk) -> (Vec<u64>, u64) {
    let (mut seqs, mut told) = (Vec::new(), 0);
    for object in objects(chunk) {
        match object["type"].as_str().unwrap() {
            "dropped" => told += object["count"].as_u64().unwrap(),
            _ => seqs.push(object["seq"].as_u64().unwrap()),
        }
    }
    (seqs, told)
}

fn sum(chunk: &Chunk, of: impl Fn(&Mark) -> u32) -> u32 {
    chunk.marks.iter().map(of).sum()
}

#[test]
fn below_the_budget_nothing_is_held_back() {
    let mut home = room(10);
    crowd(&mut home, 2, 0);
    assert_eq!(home.due_ns(), Some(0), "at once");
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert_eq!((sealed.lines, sealed.own.len()), (2, 0));
}

#[test]
fn above_it_lines_gather_and_as_many_as_fit_are_chosen() {
    let mut home = room(10);
    crowd(&mut home, 30, 0);
    assert_eq!(home.due_ns(), Some(WINDOW_NS), "a window");
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(100))
        .unwrap();
    assert_eq!(sealed.lines, 2);
    for chunk in sealed.chunks.iter().flatten() {
        let (seqs, told) = read(chunk);
        assert_eq!((seqs.len(), told), (2, 28));
        assert!(seqs.is_sorted());
        assert_eq!((sum(chunk, |m| m.lines), sum(chunk, |m| m.told)), (2, 28));
        let newest = objects(chunk).pop().unwrap();
        assert_eq!(newest["upto"], 30, "accounted for up to here");
    }
    // Everything was numbered, and the history knows all of it.
    assert_eq!(home.history(None, 100).messages.len(), 5);
    assert_eq!(home.history(None, 100).seq, 30);
    // The window is spent; a second brings ten.
    crowd(&mut home, 1, 101);
    assert!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(101))
            .unwrap()
            .lines
            == 0
    );
    crowd(&mut home, 30, 1100);
    assert_eq!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(1100))
            .unwrap()
            .lines,
        2
    );
}

#[test]
fn events_and_hosts_are_never_left_out() {
    let mut home = room(10);
    crowd(&mut home, 30, 0);
    let mut kept = Vec::new();
    for role in [Role::Host, Role::Moderator, Role::Admin] {
        kept.push(say(&mut home, None, role, 0));
        kept.push(home.publish(event(), &limits(0), at(0)).unwrap().seq);
    }
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(100))
        .unwrap();
    let (seqs, told) = read(sealed.chunks[0].as_ref().unwrap());
    assert_eq!((seqs, told), (kept, 30), "they used up the crowd's share");
    assert_eq!(read(sealed.events.as_ref().unwrap()).0.len(), 3);
}

#[test]
fn who_speaks_gets_its_own_line_in_its_place() {
    let mut home = room(10);
    let speakers = [
        speaker(7, seat(0, Encoding::Plain)),
        speaker(8, seat(1, Encoding::Batch)),
    ];
    crowd(&mut home, 10, 0);
    let mut said: HashMap<u32, Vec<u64>> = HashMap::new();
    for nth in 0..6 {
        let speaker = speakers[nth % 2];
        let seq = say(&mut home, Some(speaker), Role::Viewer, 0);
        said.entry(speaker.conn.slot).or_default().push(seq);
        crowd(&mut home, 5, 0);
    }
    let host = say(&mut home, None, Role::Host, 0);
    let sealed = home
        .seal(&mut Rng::seed(3), &mut Deflator::default(), at(100))
        .unwrap();
    let (all, told_all) = read(sealed.chunks[0].as_ref().unwrap());
    assert_eq!(sealed.own.len(), 2);
    for own in &sealed.own {
        let chunk = Chunk {
            bytes: own.bytes.clone(),
            marks: marks(&own.bytes),
        };
        let (seqs, told) = read(&chunk);
        assert!(seqs.is_sorted() && seqs.contains(&host));
        let said = &said[&own.speaker.conn.slot];
        assert!(said.iter().all(|seq| seqs.contains(seq)), "all of its own");
        assert!(all.iter().all(|seq| seqs.contains(seq)), "and all others'");
        assert_eq!(seqs.len() as u64 + told, all.len() as u64 + told_all);
        assert_eq!(
            (own.lines as usize, u64::from(own.told)),
            (seqs.len(), told)
        );
        assert_eq!(own.frames as usize, chunk.marks.len());
    }
}

/// Where the frames of a sealed chunk end.
fn marks(bytes: &[u8]) -> Arc<[Mark]> {
    use tungstenite::protocol::frame::FrameHeader;
    let mut cursor = std::io::Cursor::new(bytes);
    let mut marks = Vec::new();
    while let Some((_, length)) = FrameHeader::parse(&mut cursor).unwrap() {
        let end = cursor.position() + length;
        cursor.set_position(end);
        marks.push(Mark {
            end: end as u32,
            lines: 0,
            told: 0,
            events: 0,
        });
    }
    marks.into()
}

#[test]
fn an_overloaded_node_sends_a_part_of_the_crowd_and_never_none() {
    let mut home = room(0);
    home.press(WHOLE / 4);
    crowd(&mut home, 1, 0);
    assert_eq!(home.due_ns(), Some(0), "one line is no crowd");
    assert_eq!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
            .unwrap()
            .lines,
        1
    );
    crowd(&mut home, 40, 5);
    let host = say(&mut home, None, Role::Host, 5);
    assert_eq!(home.due_ns(), Some(at(5).mono_ns + WINDOW_NS));
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(105))
        .unwrap();
    assert_eq!((sealed.lines, sealed.left_out), (11, 30));
    let (seqs, told) = read(sealed.chunks[0].as_ref().unwrap());
    assert!(seqs.contains(&host));
    assert_eq!(told, 30);
    home.press(1);
    crowd(&mut home, 40, 200);
    assert_eq!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(300))
            .unwrap()
            .lines,
        1
    );
    home.press(WHOLE);
    crowd(&mut home, 40, 400);
    assert_eq!(home.due_ns(), Some(at(400).mono_ns));
    assert_eq!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(400))
            .unwrap()
            .left_out,
        0
    );
}

#[test]
fn versions_of_ones_own_are_bounded() {
    let mut class = class();
    class.log_bytes_max = 4096;
    let mut home = Home::new(RoomId::parse("r").unwrap(), &class, Epoch(1), at(0), 1);
    home.put(Patch {
        deliver_per_s_max: Some(1),
        ..Patch::default()
    });
    for slot in 0..500 {
        let speaker = speaker(slot, seat(0, Encoding::Plain));
        say(&mut home, Some(speaker), Role::Viewer, 0);
    }
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(100))
        .unwrap();
    let bytes: usize = sealed.own.iter().map(|own| own.bytes.len()).sum();
    assert!((1000..=4096).contains(&bytes), "{bytes}");
}

#[test]
fn a_large_room_takes_breath_and_a_small_one_does_not() {
    let mut home = home_of(&class());
    let join = || Join {
        who: None,
        seat: seat(0, Encoding::Plain),
        resume: None,
    };
    for _ in 0..4999 {
        home.join(join(), at(0)).unwrap();
    }
    home.publish(line("a"), &limits(0), at(5)).unwrap();
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(5))
        .unwrap();
    home.publish(line("b"), &limits(0), at(5)).unwrap();
    assert_eq!(home.due_ns(), Some(at(5).mono_ns), "a small one");
    for _ in 4999..20_000 {
        home.join(join(), at(0)).unwrap();
    }
    assert_eq!(home.due_ns(), Some(at(25).mono_ns), "20,000 members: 20 ms");
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(25))
        .unwrap();
    home.publish(line("c"), &limits(0), at(100)).unwrap();
    assert_eq!(home.due_ns(), Some(at(100).mono_ns), "quiet: at once");
}
