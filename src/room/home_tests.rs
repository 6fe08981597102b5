//! Tests of a room's home: each edge by itself, then any mixture of joins, leaves, publishes and seals against a model.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::Value;

use super::super::ask::{Chunk, Once, Seat};
use super::super::seal::tests::payloads;
use super::*;
use crate::base::identity::{Identity, Role, RoomScope, User};

const EPOCH: Epoch = Epoch(77);
const SHARDS: usize = 3;

fn class() -> RoomClass {
    RoomClass {
        access: Access::Public,
        history_lines: 5,
        log_bytes_max: 64 * 1024,
        tick: Tick::Auto,
        deliver_per_s_max: 0,
        idle_after_ms: 5_000,
    }
}

fn limits(room_lines_per_s: u32) -> Limits {
    Limits {
        head_bytes_max: 8192,
        body_bytes_max: 65_536,
        message_bytes_max: 16_384,
        text_bytes_max: 1024,
        body_timeout_ms: 10_000,
        rooms_per_connection_max: 16,
        lines_per_s: 5,
        line_burst: 10,
        room_lines_per_s,
    }
}

fn at(mono_ms: u64) -> Now {
    Now {
        mono_ns: mono_ms * 1_000_000,
        unix_ms: 1_700_000_000_000 + mono_ms,
    }
}

fn room() -> RoomId {
    RoomId::parse("r:1").unwrap()
}

fn home_of(class: &RoomClass) -> Home {
    Home::new(room(), class, EPOCH, at(0), SHARDS)
}

fn seat(shard: u16, encoding: Encoding) -> Seat {
    Seat {
        shard: ShardId(shard),
        encoding,
    }
}

fn identity(id: &str, rooms: RoomScope) -> Arc<Identity> {
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

fn line(text: &str) -> Publish {
    Publish {
        author: Author::Anonymous,
        who: None,
        exempt: false,
        content: Content::Line {
            text: text.into(),
            style: None,
            data: None,
        },
        once: None,
    }
}

fn event() -> Publish {
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
    home.seal().unwrap();
    assert_eq!((say(&mut home, "nine"), say(&mut home, "ten")), (9, 10));
    home
}

fn value(json: &[u8]) -> Value {
    assert!(!json.contains(&b'\n'));
    serde_json::from_slice(json).unwrap()
}

fn seqs<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> Vec<u64> {
    let seq = |json: &Bytes| value(json)["seq"].as_u64().unwrap();
    messages.into_iter().map(seq).collect()
}

/// The objects of a chunk, whichever encoding it has.
fn objects(chunk: &Chunk) -> Vec<Value> {
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
    let sealed = home.seal().unwrap();
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
    home.seal().unwrap();
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
    home.seal().unwrap();
    say(&mut home, &"x".repeat(3000));
    home.seal().unwrap();
    let joined = home.join(join(None, Some((EPOCH, 1))), at(1)).unwrap();
    assert!(!joined.recovered, "2 is not kept");
    assert_eq!(home.history(None, 9).messages.len(), 0);
    say(&mut home, "three");
    home.seal().unwrap();
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
    assert_eq!((home.seq, home.seal().unwrap().lines), (3, 2));
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
fn a_leave_of_another_numbering_is_not_of_this_room() {
    let mut home = home_of(&class());
    home.join(join(None, None), at(0)).unwrap();
    let leave = |epoch| Leave {
        who: None,
        epoch,
        seat: seat(0, Encoding::Plain),
    };
    home.leave(&leave(Epoch(1)), at(0));
    assert_eq!(home.online(), 1);
    home.leave(&leave(EPOCH), at(0));
    assert_eq!((home.online(), home.hosts().count()), (0, 0));
}

#[test]
fn a_batch_is_due_by_its_tick_or_by_its_size() {
    let mut home = home_of(&class());
    assert_eq!(home.due_ns(), None);
    assert!(home.seal().is_none());
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
    let sealed = home.seal().unwrap();
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
    let sealed = home.seal().unwrap();
    assert_eq!((sealed.lines, home.seq), (0, 0), "not numbered, not a line");
    let plain = sealed.chunks[Encoding::Plain.index()].as_ref().unwrap();
    let counts: Vec<_> = objects(plain).iter().map(|o| o["count"].clone()).collect();
    assert_eq!(counts, [1, 2]);
    assert!(plain.marks.iter().all(|mark| mark.lines + mark.events == 0));
    assert_eq!(home.history(None, 9).messages.len(), 0);
}

#[test]
fn a_viewer_told_a_passing_count_is_told_the_true_one() {
    let mut home = home_of(&class());
    let leave = Leave {
        who: None,
        epoch: EPOCH,
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
        epoch: EPOCH,
        seat: seat(0, Encoding::Plain),
    };
    let mut home = home_of(&class());
    assert!(home.forgettable(0), "never spoken in: at once");
    home.join(join(None, None), at(0)).unwrap();
    assert!(!home.forgettable(1_000_000));
    home.publish(line("x"), &limits(0), at(10)).unwrap();
    home.leave(&leave, at(100));
    assert!(!home.forgettable(1_000_000), "a line is not sealed yet");
    home.seal().unwrap();
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

/// One step of the mixture. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Join {
        user: u8,
        shard: u8,
        batch: bool,
    },
    /// A member goes and comes back, having seen `behind` fewer numbers than it has.
    Resume {
        member: u8,
        behind: u8,
    },
    Leave {
        member: u8,
    },
    Line {
        key: Option<u8>,
    },
    Event,
    Online,
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let byte = || any::<u8>();
    prop_oneof![
        4 => (byte(), byte(), any::<bool>())
            .prop_map(|(user, shard, batch)| Step::Join { user, shard, batch }),
        2 => (byte(), 0u8..9).prop_map(|(member, behind)| Step::Resume { member, behind }),
        3 => byte().prop_map(|member| Step::Leave { member }),
        6 => prop::option::weighted(0.3, 0u8..4).prop_map(|key| Step::Line { key }),
        2 => Just(Step::Event),
        1 => Just(Step::Online),
        4 => Just(Step::Seal),
    ]
}

/// One connection, as its shard and its viewer see it.
#[derive(Clone, Debug)]
struct Member {
    who: Option<Arc<Identity>>,
    seat: Seat,
    /// The last number it has seen; the next it gets must be the one after.
    seen: u64,
}

impl Member {
    fn user_id(&self) -> Option<UserId> {
        self.who.as_ref().map(|who| who.user.id.clone())
    }
}

/// The home under test, and the plainest account of what it should be.
struct Model {
    home: Home,
    members: Vec<Member>,
    /// By number, from 1: whether it is an event.
    given: Vec<bool>,
    sealed: usize,
    comforts_open: usize,
    keys: HashMap<u8, Published>,
    history_lines: usize,
    now_ms: u64,
}

impl Model {
    fn new(history_lines: usize) -> Model {
        let class = RoomClass {
            history_lines,
            ..class()
        };
        Model {
            home: home_of(&class),
            members: Vec::new(),
            given: Vec::new(),
            sealed: 0,
            comforts_open: 0,
            keys: HashMap::new(),
            history_lines,
            now_ms: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        self.now_ms += 10;
        match *step {
            Step::Join { user, shard, batch } => {
                let names = [None, Some("a"), Some("b"), Some("c")];
                let who = names[usize::from(user) % names.len()]
                    .map(|id| identity(id, RoomScope::EveryOpen));
                let encoding = Encoding::ALL[usize::from(batch)];
                let seat = seat(u16::from(shard) % SHARDS as u16, encoding);
                self.join(who, seat, None);
            }
            Step::Resume { member, behind } => {
                if let Some(gone) = self.leave(member) {
                    let seen = gone.seen.saturating_sub(u64::from(behind));
                    self.join(gone.who, gone.seat, Some(seen));
                }
            }
            Step::Leave { member } => {
                self.leave(member);
            }
            Step::Line { key } => self.publish(line("x"), key),
            Step::Event => self.publish(event(), None),
            Step::Online => {
                self.home.put_online(at(self.now_ms));
                self.comforts_open += 1;
            }
            Step::Seal => self.seal(),
        }
        self.agree();
    }

    /// The numbers history should hold.
    fn kept(&self) -> std::ops::RangeInclusive<u64> {
        let oldest = self.sealed.saturating_sub(self.history_lines) as u64 + 1;
        oldest..=self.sealed as u64
    }

    fn join(&mut self, who: Option<Arc<Identity>>, seat: Seat, resume: Option<u64>) {
        let join = Join {
            who: who.clone(),
            seat,
            resume: resume.map(|seq| (EPOCH, seq)),
        };
        let joined = self.home.join(join, at(self.now_ms)).unwrap();
        assert_eq!(joined.seq, self.sealed as u64);
        assert_eq!(joined.online as usize, self.members.len() + 1);
        let reaches = resume.is_some_and(|seen| seen + 1 >= *self.kept().start());
        assert_eq!(joined.recovered, reaches, "{resume:?} of {:?}", self.kept());
        if let (Some(seen), Some(messages)) = (resume, &joined.messages) {
            assert_eq!(seqs(messages), (seen + 1..=joined.seq).collect::<Vec<_>>());
        }
        self.members.push(Member {
            who,
            seat,
            seen: joined.seq,
        });
    }

    fn leave(&mut self, member: u8) -> Option<Member> {
        if self.members.is_empty() {
            return None;
        }
        let at_index = usize::from(member) % self.members.len();
        let gone = self.members.swap_remove(at_index);
        let leave = Leave {
            who: gone.user_id(),
            epoch: EPOCH,
            seat: gone.seat,
        };
        self.home.leave(&leave, at(self.now_ms));
        Some(gone)
    }

    fn publish(&mut self, publish: Publish, key: Option<u8>) {
        let is_event = matches!(publish.content, Content::Event { .. });
        let once = key.map(|key| Once {
            key: format!("k{key}").into(),
            fingerprint: 1,
        });
        let publish = Publish { once, ..publish };
        let published = self.home.publish(publish, &limits(0), at(self.now_ms));
        let published = published.unwrap();
        assert_eq!(published.epoch, EPOCH);
        if let Some(before) = key.and_then(|key| self.keys.get(&key)) {
            assert_eq!(published, *before);
            return;
        }
        self.given.push(is_event);
        assert_eq!(published.seq, self.given.len() as u64);
        if let Some(key) = key {
            self.keys.insert(key, published);
        }
    }

    fn seal(&mut self) {
        let Some(sealed) = self.home.seal() else {
            assert_eq!((self.given.len(), self.comforts_open), (self.sealed, 0));
            return;
        };
        let fresh = self.given[self.sealed..].to_vec();
        let first = self.sealed as u64 + 1;
        let lines = fresh.iter().filter(|is_event| !**is_event).count();
        assert_eq!(sealed.lines as usize, lines);
        for encoding in Encoding::ALL {
            let used = self.members.iter().any(|m| m.seat.encoding == encoding);
            let chunk = &sealed.chunks[encoding.index()];
            assert_eq!(chunk.is_some(), used, "{encoding:?}");
            if let Some(chunk) = chunk {
                self.deliver(chunk, encoding, &fresh);
            }
        }
        let numbered = (first..).zip(&fresh);
        let events: Vec<u64> = numbered.filter(|(_, e)| **e).map(|(seq, _)| seq).collect();
        let told = sealed.events.as_ref().map(objects).unwrap_or_default();
        let told: Vec<u64> = told.iter().map(|o| o["seq"].as_u64().unwrap()).collect();
        assert_eq!(told, events);
        self.sealed = self.given.len();
        self.comforts_open = 0;
    }

    /// Every member of that encoding reads the chunk: the numbers go on where it stood.
    fn deliver(&mut self, chunk: &Chunk, encoding: Encoding, fresh: &[bool]) {
        let objects = objects(chunk);
        assert_eq!(objects.len(), fresh.len() + self.comforts_open);
        let (lines, events) = chunk
            .marks
            .iter()
            .fold((0, 0), |(l, e), m| (l + m.lines, e + m.events));
        let events_fresh = fresh.iter().filter(|is_event| **is_event).count();
        assert_eq!(events as usize, events_fresh);
        assert_eq!(lines as usize, fresh.len() - events_fresh);
        for member in &mut self.members {
            if member.seat.encoding == encoding {
                for seq in objects.iter().filter_map(|o| o["seq"].as_u64()) {
                    assert_eq!(seq, member.seen + 1, "once, in order, none left out");
                    member.seen = seq;
                }
            }
        }
    }

    /// What can be asked of the home is what the model knows.
    fn agree(&self) {
        let home = &self.home;
        let mut users: BTreeMap<UserId, Vec<ShardId>> = BTreeMap::new();
        let mut hosts = BTreeSet::new();
        for member in &self.members {
            hosts.insert(member.seat.shard);
            if let Some(id) = member.user_id() {
                users.entry(id).or_default().push(member.seat.shard);
            }
        }
        assert_eq!(home.online() as usize, self.members.len());
        assert_eq!(home.hosts().collect::<BTreeSet<_>>(), hosts);
        let detail = home.detail();
        assert_eq!(detail.users as usize, users.len());
        assert_eq!(detail.seq, self.given.len() as u64);
        for (id, shards) in &users {
            let (connections, mut named) = home.kick_targets(id);
            named.sort();
            let distinct: BTreeSet<_> = shards.iter().copied().collect();
            assert_eq!(connections as usize, shards.len());
            assert_eq!(named, distinct.into_iter().collect::<Vec<_>>());
        }
        let page = home.members(10, None).members;
        let counted: u32 = page.iter().map(|entry| entry.connections).sum();
        assert_eq!(counted as usize, self.members.len());
        let ids: Vec<_> = page.iter().filter_map(|e| e.user.as_ref()).collect();
        assert!(ids.iter().map(|user| &user.id).eq(users.keys()));
        let kept: Vec<u64> = self.kept().collect();
        assert_eq!(seqs(&home.history(None, 1000).messages), kept);
        for member in &self.members {
            assert_eq!(member.seen, self.sealed as u64, "{member:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_is_what_the_model_says(
        history_lines in 0usize..12,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(history_lines);
        for step in &steps {
            model.take(step);
        }
        model.take(&Step::Seal);
        prop_assert!(model.home.seal().is_none());
    }
}
