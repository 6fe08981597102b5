//! Tests of a room's home, each edge by itself.

use serde_json::Value;

use super::super::ask::{Chunk, Once, Seat};
use super::super::seal::tests::payloads;
use super::*;
use crate::base::identity::{Identity, Role, RoomScope, User};

pub const EPOCH: Epoch = Epoch(77);
pub const SHARDS: usize = 3;

pub fn class() -> RoomClass {
    RoomClass {
        access: Access::Public,
        history_lines: 5,
        log_bytes_max: 64 * 1024,
        tick: Tick::Auto,
        deliver_per_s_max: 0,
        idle_after_ms: 5_000,
    }
}

pub fn limits(room_lines_per_s: u32) -> Limits {
    Limits {
        head_bytes_max: 8192,
        body_bytes_max: 65_536,
        message_bytes_max: 16_384,
        text_bytes_max: 1024,
        body_timeout_ms: 10_000,
        rooms_per_connection_max: 16,
        connections_per_user_max: 0,
        lines_per_s: 5,
        line_burst: 10,
        room_lines_per_s,
    }
}

pub fn at(mono_ms: u64) -> Now {
    Now {
        mono_ns: mono_ms * 1_000_000,
        unix_ms: 1_700_000_000_000 + mono_ms,
    }
}

fn room() -> RoomId {
    RoomId::parse("r:1").unwrap()
}

pub fn home_of(class: &RoomClass) -> Home {
    Home::new(room(), class, EPOCH, at(0), SHARDS)
}

pub fn seat(shard: u16, encoding: Encoding) -> Seat {
    Seat {
        shard: ShardId(shard),
        encoding,
    }
}

pub fn identity(id: &str, rooms: RoomScope) -> Arc<Identity> {
    let user = User {
        id: UserId::parse(id).unwrap(),
        name: id.to_uppercase().into(),
    };
    Arc::new(Identity {
        user,
        role: Role::Viewer,
        rooms,
        exp_s: u64::MAX,
    })
}

fn join(who: Option<Arc<Identity>>, resume: Option<(Epoch, u64)>) -> Join {
    Join {
        who,
        seat: seat(0, Encoding::Plain),
        resume,
    }
}

pub fn line(text: &str) -> Publish {
    Publish {
        author: Author::Anonymous,
        who: None,
        exempt: false,
        content: Content::Line {
            text: text.into(),
            style: None,
            data: None,
        },
        speaker: None,
        once: None,
    }
}

pub fn event() -> Publish {
    let content = Content::Event {
        event: "gift".into(),
        data: None,
    };
    Publish {
        content,
        ..line("")
    }
}

fn say(home: &mut Home, text: &str) -> u64 {
    home.publish(line(text), &limits(0), at(0)).unwrap().seq
}

/// A room with lines 1..=8 sealed (5 kept: 4..=8) and 9, 10 numbered but still open.
fn spoken_in() -> Home {
    let mut home = home_of(&class());
    for n in 1..=8 {
        assert_eq!(say(&mut home, &format!("line {n}")), n);
    }
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert_eq!((say(&mut home, "nine"), say(&mut home, "ten")), (9, 10));
    home
}

fn value(json: &[u8]) -> Value {
    assert!(!json.contains(&b'\n'));
    serde_json::from_slice(json).unwrap()
}

pub fn seqs<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> Vec<u64> {
    let seq = |json: &Bytes| value(json)["seq"].as_u64().unwrap();
    messages.into_iter().map(seq).collect()
}

/// The objects of a chunk, whichever encoding it has.
pub fn objects(chunk: &Chunk) -> Vec<Value> {
    let frames = payloads(chunk);
    let objects = frames.iter().flat_map(|frame| frame.split('\n'));
    objects.map(|json| value(json.as_bytes())).collect()
}

#[test]
fn resume_is_told_exactly_at_every_edge() {
    let resumed = |epoch: Epoch, seq: u64| {
        let joined = spoken_in()
            .join(join(None, Some((epoch, seq))), at(1))
            .unwrap();
        assert_eq!((joined.epoch, joined.seq, joined.online), (EPOCH, 8, 1));
        assert_eq!(joined.recovered, joined.messages.is_some());
        joined.messages.map(|messages| seqs(&messages))
    };
    assert_eq!(
        resumed(EPOCH, 2),
        None,
        "4 is the oldest kept, 3 is missing"
    );
    assert_eq!(resumed(EPOCH, 0), None);
    assert_eq!(resumed(EPOCH, 3), Some(vec![4, 5, 6, 7, 8]));
    assert_eq!(resumed(EPOCH, 7), Some(vec![8]));
    assert_eq!(resumed(EPOCH, 8), Some(vec![]));
    assert_eq!(resumed(Epoch(78), 7), None, "another numbering");
    assert_eq!(resumed(EPOCH, 11), None, "a number never given");
}

#[test]
fn a_resume_point_in_the_open_batch_misses_nothing() {
    // An author knows its line's number from the ack before the line is sealed; the log brings 9 and 10.
    let mut home = spoken_in();
    let joined = home.join(join(None, Some((EPOCH, 10))), at(1)).unwrap();
    assert_eq!((joined.recovered, joined.seq), (true, 8));
    assert_eq!(joined.messages, Some(vec![]));
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    let plain = sealed.chunks[Encoding::Plain.index()].as_ref().unwrap();
    let numbers: Vec<_> = objects(plain).iter().map(|o| o["seq"].as_u64()).collect();
    assert_eq!(numbers, [Some(9), Some(10)]);
}

#[test]
fn the_largest_resume_point_is_only_a_wrong_one() {
    let joined = spoken_in().join(join(None, Some((EPOCH, u64::MAX))), at(1));
    assert!(!joined.unwrap().recovered);
}

#[test]
fn the_largest_since_has_nothing_after_it() {
    let page = spoken_in().history(Some(u64::MAX), 100);
    assert_eq!((seqs(&page.messages), page.seq), (vec![], 8));
}

#[test]
fn history_pages_are_ascending_and_of_sealed_lines() {
    let home = spoken_in();
    let page = |since, limit| seqs(&home.history(since, limit).messages);
    assert_eq!(page(None, 100), [4, 5, 6, 7, 8]);
    assert_eq!(page(None, 2), [7, 8]);
    assert_eq!(page(Some(5), 2), [6, 7]);
    assert_eq!(page(Some(0), 2), [4, 5]);
    assert!(page(Some(8), 2).is_empty());
    assert_eq!(page(None, 0), [8], "a page has at least one");
}

#[test]
fn history_follows_a_reload_at_once() {
    let mut home = spoken_in();
    let fewer = RoomClass {
        history_lines: 2,
        ..class()
    };
    home.apply_class(&fewer);
    assert_eq!(seqs(&home.history(None, 100).messages), [7, 8]);
}

#[test]
fn history_does_not_hold_on_to_what_it_let_go() {
    let mut home = home_of(&class());
    for _ in 0..200 {
        say(&mut home, &"x".repeat(1000));
    }
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    let mut kept = home.history(None, 100).messages;
    drop(home);
    let bytes: usize = kept.iter().map(Bytes::len).sum();
    // The last handle on a buffer takes it over, with all the memory it has.
    kept.truncate(1);
    let last_handle = kept.remove(0).try_into_mut().unwrap();
    let held = Vec::from(last_handle).capacity();
    assert!(bytes > 5000 && held <= bytes, "{held} held for {bytes}");
}

#[test]
fn a_giant_message_leaves_no_hole_in_history() {
    let small = RoomClass {
        log_bytes_max: 2000,
        ..class()
    };
    let mut home = home_of(&small);
    say(&mut home, "one");
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    say(&mut home, &"x".repeat(3000));
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    let joined = home.join(join(None, Some((EPOCH, 1))), at(1)).unwrap();
    assert!(!joined.recovered, "2 is not kept");
    assert_eq!(home.history(None, 9).messages.len(), 0);
    say(&mut home, "three");
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert_eq!(seqs(&home.history(None, 9).messages), [3]);
    let joined = home.join(join(None, Some((EPOCH, 2))), at(1)).unwrap();
    assert_eq!(joined.messages.map(|m| seqs(&m)), Some(vec![3]));
}

#[test]
fn a_key_is_numbered_once_even_when_the_room_is_full() {
    let mut home = home_of(&class());
    let keyed = |text: &str, fingerprint: u64| Publish {
        once: Some(Once {
            key: "backend:k".into(),
            fingerprint,
        }),
        ..line(text)
    };
    let first = home.publish(keyed("a", 1), &limits(1), at(0)).unwrap();
    let refused = home.publish(line("b"), &limits(1), at(0)).unwrap_err();
    assert_eq!(refused.code, Code::RateLimited);
    assert_eq!(refused.retry_after_ms, Some(1000));
    assert_eq!(home.publish(keyed("a", 1), &limits(1), at(1)), Ok(first));
    let other = home.publish(keyed("a", 2), &limits(1), at(1)).unwrap_err();
    assert_eq!(other.code, Code::IdempotencyMismatch);
    home.publish(event(), &limits(1), at(1)).unwrap();
    let exempt = Publish {
        exempt: true,
        ..line("c")
    };
    home.publish(exempt, &limits(1), at(1)).unwrap();
    assert_eq!(
        (
            home.seq,
            home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
                .unwrap()
                .lines
        ),
        (3, 2)
    );
}

#[test]
fn a_refused_publish_leaves_its_key_unused() {
    let mut home = home_of(&class());
    say(&mut home, "first");
    home.publish(line("b"), &limits(1), at(0)).unwrap();
    let keyed = Publish {
        once: Some(Once {
            key: "u:k".into(),
            fingerprint: 1,
        }),
        ..line("c")
    };
    let refused = home.publish(keyed.clone(), &limits(1), at(0)).unwrap_err();
    assert_eq!(refused.code, Code::RateLimited);
    let later = home.publish(keyed, &limits(1), at(2000)).unwrap();
    assert_eq!((later.seq, home.seq), (3, 3), "no number was spent on it");
}

#[test]
fn access_is_asked_of_joins_and_of_publishes() {
    let mut home = home_of(&class());
    let open = identity("u", RoomScope::EveryOpen);
    let listed = identity("u", RoomScope::Listed(["r:*".into()].into()));
    let elsewhere = identity("u", RoomScope::Listed(["x".into()].into()));
    let outcome = |home: &mut Home, who: Option<&Arc<Identity>>| {
        let joined = home.join(join(who.cloned(), None), at(0)).err();
        let publish = Publish {
            who: who.cloned(),
            ..line("x")
        };
        let published = home.publish(publish, &limits(0), at(0)).err();
        let code = |refusal: Option<Refusal>| refusal.map(|refusal| refusal.code);
        let (joined, published) = (code(joined), code(published));
        assert_eq!(joined, published);
        joined
    };
    let set = |home: &mut Home, access| {
        home.put(Patch {
            access: Some(access),
            ..Patch::default()
        });
    };
    assert_eq!(outcome(&mut home, None), None);
    assert_eq!(
        outcome(&mut home, Some(&elsewhere)),
        Some(Code::RoomForbidden)
    );
    set(&mut home, Access::Login);
    assert_eq!(outcome(&mut home, None), Some(Code::LoginRequired));
    assert_eq!(outcome(&mut home, Some(&open)), None);
    set(&mut home, Access::Private);
    assert_eq!(outcome(&mut home, Some(&open)), Some(Code::RoomForbidden));
    assert_eq!(outcome(&mut home, Some(&listed)), None);
    assert_eq!(home.online(), 3, "the refused are not counted");
    assert_eq!(home.seq, 3, "and their lines not numbered");
    let exempt = Publish {
        exempt: true,
        ..line("x")
    };
    assert!(home.publish(exempt, &limits(0), at(0)).is_ok());
}

#[test]
fn a_leave_of_another_life_is_not_of_this_room() {
    let mut home = home_of(&class());
    home.join(join(None, None), at(0)).unwrap();
    let leave = |life| Leave {
        who: None,
        life,
        seat: seat(0, Encoding::Plain),
    };
    home.leave(&leave(Life(1)), at(0));
    assert_eq!(home.online(), 1);
    home.leave(&leave(Life(EPOCH.0)), at(0));
    assert_eq!((home.online(), home.hosts().count()), (0, 0));
}

#[test]
fn a_batch_is_due_by_its_tick_or_by_its_size() {
    let mut home = home_of(&class());
    assert_eq!(home.due_ns(), None);
    assert!(
        home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
            .is_none()
    );
    home.publish(line("a"), &limits(0), at(7)).unwrap();
    assert_eq!(home.due_ns(), Some(at(7).mono_ns), "auto: this turn");
    home.put(Patch {
        tick_ms: Some(100),
        ..Patch::default()
    });
    home.publish(line("b"), &limits(0), at(50)).unwrap();
    assert_eq!(home.due_ns(), Some(at(107).mono_ns), "from the first line");
    let text = "x".repeat(1000);
    for _ in 0..70 {
        home.publish(line(&text), &limits(0), at(60)).unwrap();
    }
    assert_eq!(home.due_ns(), Some(at(7).mono_ns), "as much as a log holds");
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert_eq!((sealed.lines, sealed.begun_ns), (72, at(7).mono_ns));
    assert_eq!(home.due_ns(), None);
}

#[test]
fn the_count_is_told_once_a_second_and_only_on_change() {
    let mut home = home_of(&class());
    home.join(join(None, None), at(0)).unwrap();
    assert!(home.online_due(0));
    home.put_online(at(0));
    assert!(!home.online_due(5000), "nothing changed");
    home.join(join(None, None), at(100)).unwrap();
    assert!(!home.online_due(999) && home.online_changed());
    assert!(home.online_due(1000));
    home.put_online(at(1000));
    let sealed = home
        .seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert_eq!((sealed.lines, home.seq), (0, 0), "not numbered, not a line");
    let plain = sealed.chunks[Encoding::Plain.index()].as_ref().unwrap();
    let counts: Vec<_> = objects(plain).iter().map(|o| o["count"].clone()).collect();
    assert_eq!(counts, [1, 2]);
    assert!(plain.marks.iter().all(|mark| mark.lines + mark.events == 0));
    assert_eq!(home.history(None, 9).messages.len(), 0);
}

#[test]
fn in_a_storm_the_count_waits_until_it_is_still_or_goes_along_with_a_line() {
    let mut home = home_of(&class());
    for nth in 0..200 {
        let now = at(10_000 + 10 * nth);
        home.join(join(None, None), now).unwrap();
    }
    // The last came at 11,990.
    assert!(!home.online_due(12_000) && !home.online_due(12_989));
    assert!(home.online_due(12_990), "still for a second");
    assert!(home.online_due(15_000));
    home.join(join(None, None), at(14_900)).unwrap();
    assert!(!home.online_due(14_999));
    assert!(home.online_due(15_010), "it has waited for five seconds");
    home.publish(line("x"), &limits(0), at(14_950)).unwrap();
    assert!(home.online_due(14_999), "there is a line to go with");
}

#[test]
fn a_viewer_told_a_passing_count_is_told_the_true_one() {
    let mut home = home_of(&class());
    let leave = Leave {
        who: None,
        life: Life(EPOCH.0),
        seat: seat(0, Encoding::Plain),
    };
    home.join(join(None, None), at(0)).unwrap();
    home.put_online(at(0));
    // The second viewer's answer says 2; before the next telling the count is 1 again, which only the first one knows.
    let second = home.join(join(None, None), at(10)).unwrap();
    assert_eq!(second.online, 2);
    home.leave(&leave, at(20));
    assert!(home.online_due(1000));
    home.put_online(at(1000));
    assert!(!home.online_changed());
}

#[test]
fn a_room_is_forgotten_when_nobody_would_miss_it() {
    let leave = Leave {
        who: None,
        life: Life(EPOCH.0),
        seat: seat(0, Encoding::Plain),
    };
    let mut home = home_of(&class());
    assert!(home.forgettable(0), "never spoken in: at once");
    home.join(join(None, None), at(0)).unwrap();
    assert!(!home.forgettable(1_000_000));
    home.publish(line("x"), &limits(0), at(10)).unwrap();
    home.leave(&leave, at(100));
    assert!(!home.forgettable(1_000_000), "a line is not sealed yet");
    home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        .unwrap();
    assert!(!home.forgettable(5_099) && home.forgettable(5_100));
    home.put(Patch::default());
    assert!(!home.forgettable(1_000_000));
}

#[test]
fn what_the_owner_set_outlives_a_reload() {
    let mut home = home_of(&class());
    let patch = Patch {
        title: Some("t".into()),
        access: Some(Access::Login),
        tick_ms: None,
        deliver_per_s_max: Some(5),
        data: None,
    };
    assert_eq!(home.put(patch).access, Access::Login);
    let reloaded = RoomClass {
        access: Access::Private,
        tick: Tick::EveryMs(50),
        ..class()
    };
    home.apply_class(&reloaded);
    let detail = home.detail();
    assert_eq!((&*detail.title, detail.access), ("t", Access::Login));
    assert_eq!(
        detail.tick_ms,
        Some(50),
        "not set by the owner: the class's"
    );
    home.put(Patch {
        tick_ms: Some(0),
        ..Patch::default()
    });
    assert_eq!(home.detail().tick_ms, Some(0));
}
