//! Any mixture of joins, resumes, leaves, publishes and seals of a room's home, held against the plainest model of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::super::ask::{Chunk, Once, Seat};
use super::tests::{
    EPOCH, SHARDS, at, class, event, home_of, identity, limits, line, objects, seat, seqs,
};
use super::*;
use crate::base::identity::{Identity, RoomScope};
use crate::base::rng::Rng;

/// One step of the mixture. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Join {
        user: u8,
        shard: u8,
        encoding: u8,
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
        4 => (byte(), byte(), byte())
            .prop_map(|(user, shard, encoding)| Step::Join { user, shard, encoding }),
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
            Step::Join {
                user,
                shard,
                encoding,
            } => {
                let names = [None, Some("a"), Some("b"), Some("c")];
                let who = names[usize::from(user) % names.len()]
                    .map(|id| identity(id, RoomScope::EveryOpen));
                let encoding = Encoding::ALL[usize::from(encoding) % Encoding::COUNT];
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
            life: Life(EPOCH.0),
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
        let Some(sealed) = self
            .home
            .seal(&mut Rng::seed(1), &mut Deflator::default(), at(0))
        else {
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
        prop_assert!(model.home.seal(&mut Rng::seed(1), &mut Deflator::default(), at(0)).is_none());
    }
}
