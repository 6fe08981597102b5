//! What the server API asks of every node: carried out here as on a node by itself, and by the others by way of the bridge. Part of
//! the shard's turn.
//!
//! Whoever asked is answered when every node has answered, or after [`AWAITED_MS`] with what is known by then. A node that carries out
//! another's order answers once for all its shards, and never passes it on.

use std::collections::HashMap;

use super::Shard;
use crate::base::ids::{RoomId, ShardId};
use crate::base::limits;
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, Msg, NodeAsk, Outward, ReplyTo, RoomAsk};
use crate::proto::node::page::Page;
use crate::proto::node::{Asker, Order};
use crate::proto::ws::encode;
use crate::room::ask::MembersPage;
use crate::room::members::{heard, merged, told};

/// Other nodes are waited for so long.
const AWAITED_MS: u64 = 500;

/// Shards of other nodes whose newest order is remembered.
const NEWEST_MAX: usize = 4096;

/// Orders under way on one shard, either way. As many as there are exchanges that wait for them, and orders of other nodes in one
/// turn's messages.
#[derive(Default)]
pub struct Orders {
    next: u64,
    given: HashMap<u64, Given>,
    taken: HashMap<u64, Taken>,
    /// The newest order of each shard of another node: one that comes twice is carried out once.
    newest: HashMap<(Box<str>, ShardId), u64>,
}

/// An order given to the other nodes.
struct Given {
    from: ReplyTo,
    room: Option<RoomId>,
    found: Found,
    /// What to say where nobody knew it.
    unknown: Option<Refusal>,
    /// Nodes that have not answered; `None` until it is known how many heard it.
    missing: Option<i64>,
    answered: i64,
    until_ms: u64,
}

/// What the nodes' answers add up to.
enum Found {
    /// Connections it concerned.
    Connections(u32),
    /// Who is in a room: the pages of each node, and how many may be in one.
    Members(Vec<MembersPage>, usize),
}

impl Found {
    /// `whole` says whether everybody answered.
    fn answer(self, whole: bool) -> Answer {
        match self {
            Found::Connections(connections) => Answer::Connections(connections),
            Found::Members(pages, limit) => Answer::Members(Box::new(MembersPage {
                stale: !whole,
                ..merged(pages, limit)
            })),
        }
    }
}

/// Another node's order.
struct Taken {
    asker: Asker,
    missing: usize,
    connections: u32,
    known: bool,
}

impl Orders {
    /// When the first of them is waited for no longer.
    pub fn next_ms(&self) -> Option<u64> {
        self.given.values().map(|given| given.until_ms).min()
    }
}

impl Shard {
    /// Answers what was done here. Where there are other nodes they do it too, and the answer is everybody's.
    pub(super) fn answer_everywhere(
        &mut self,
        order: Order,
        from: ReplyTo,
        room: Option<RoomId>,
        here: Result<u32, Refusal>,
    ) {
        let (connections, unknown) = match here {
            Ok(connections) => (connections, None),
            Err(refusal) if refusal.code == Code::RoomNotFound => (0, Some(refusal)),
            Err(refusal) => return self.answer(from, room, Err(refusal)),
        };
        let found = Found::Connections(connections);
        self.give_order(order, from, room, found, unknown);
    }

    /// Answers who is in a room: here, and where there are other nodes, there.
    pub(super) fn members_everywhere(
        &mut self,
        room: RoomId,
        limit: usize,
        after: Option<Box<str>>,
        from: ReplyTo,
        here: Result<MembersPage, Refusal>,
    ) {
        let (pages, unknown) = match here {
            Ok(page) => (vec![page], None),
            Err(refusal) => (Vec::new(), Some(refusal)),
        };
        let order = Order::Members {
            room: room.clone(),
            limit,
            after,
        };
        let found = Found::Members(pages, limit);
        self.give_order(order, from, Some(room), found, unknown);
    }

    fn give_order(
        &mut self,
        order: Order,
        from: ReplyTo,
        room: Option<RoomId>,
        found: Found,
        unknown: Option<Refusal>,
    ) {
        if !self.is_shared() || matches!(from, ReplyTo::Order { .. }) {
            let whole = self.cluster.is_none();
            let answer = unknown.map_or_else(|| Ok(found.answer(whole)), Err);
            return self.answer(from, room, answer);
        }
        self.orders.next += 1;
        let key = self.orders.next;
        let given = Given {
            from,
            room,
            found,
            unknown,
            missing: None,
            answered: 0,
            until_ms: self.now.mono_ms() + AWAITED_MS,
        };
        self.orders.given.insert(key, given);
        let shard = self.id;
        self.ask_cluster(Outward::Order { shard, key, order });
    }

    /// So many nodes hear an order, this one among them.
    pub(super) fn ordered(&mut self, key: u64, nodes: u32) {
        if let Some(given) = self.orders.given.get_mut(&key) {
            given.missing = Some(i64::from(nodes) - 1 - given.answered);
        }
        self.answer_given(key);
    }

    /// A node has carried it out.
    pub(super) fn order_done(&mut self, key: u64, connections: u32, known: bool) {
        self.one_answered(key, known, |found| {
            if let Found::Connections(all) = found {
                *all = all.saturating_add(connections);
            }
        });
    }

    /// A node has told who is in a room there.
    pub(super) fn page_came(&mut self, key: u64, page: Page) {
        self.one_answered(key, true, |found| {
            if let Found::Members(pages, _) = found {
                pages.push(heard(page));
            }
        });
    }

    fn one_answered(&mut self, key: u64, known: bool, add: impl FnOnce(&mut Found)) {
        if let Some(given) = self.orders.given.get_mut(&key) {
            add(&mut given.found);
            given.answered += 1;
            given.missing = given.missing.map(|missing| missing - 1);
            if known {
                given.unknown = None;
            }
        }
        self.answer_given(key);
    }

    fn answer_given(&mut self, key: u64) {
        let done = |given: &Given| given.missing.is_some_and(|missing| missing <= 0);
        if self.orders.given.get(&key).is_some_and(done) {
            self.give_up_waiting(key);
        }
    }

    fn give_up_waiting(&mut self, key: u64) {
        if let Some(given) = self.orders.given.remove(&key) {
            let whole = given.missing.is_some_and(|missing| missing <= 0);
            let found = given.found;
            let answer = given.unknown.map_or_else(|| Ok(found.answer(whole)), Err);
            self.answer(given.from, given.room, answer);
        }
    }

    /// Answers whoever has waited long enough; everybody, when the cluster is gone.
    pub(super) fn answer_orders(&mut self, everybody: bool) {
        let now_ms = self.now.mono_ms();
        let given = self.orders.given.iter();
        let due = given.filter(|(_, given)| everybody || given.until_ms <= now_ms);
        let due: Vec<u64> = due.map(|(key, _)| *key).collect();
        for key in due {
            self.give_up_waiting(key);
        }
    }

    /// Another node's order: asked of whom it concerns, and gathered here.
    pub(super) fn take_order(&mut self, asker: Asker, order: Order) {
        if self.orders.taken.len() >= limits::MESSAGES_PER_TURN {
            // The one who asked waits no longer than it would for a node that is gone.
            return;
        }
        if self.orders.newest.len() >= NEWEST_MAX {
            self.orders.newest.clear();
        }
        let newest = &mut self.orders.newest;
        let newest = newest.entry((asker.node.clone(), asker.shard)).or_default();
        if asker.key <= *newest {
            return;
        }
        *newest = asker.key;
        self.orders.next += 1;
        let key = self.orders.next;
        let from = ReplyTo::Order {
            shard: self.id,
            key,
        };
        let (room, missing) = match &order {
            Order::Kick { room, .. } | Order::Close { room, .. } | Order::Members { room, .. } => {
                (Some(room.clone()), 1)
            }
            _ => (None, self.shards()),
        };
        let taken = Taken {
            asker,
            missing,
            connections: 0,
            known: false,
        };
        self.orders.taken.insert(key, taken);
        let frame = |json: &[u8]| {
            let mut frame = Vec::with_capacity(json.len() + encode::HEADER_BYTES_MAX);
            encode::text(json, &mut frame);
            frame.into()
        };
        let everyone = match order {
            Order::Kick { user, reason, .. } => {
                let reason = (*reason).into();
                return self.ask_home(room, RoomAsk::Kick { user, reason }, from);
            }
            Order::Close { reason, .. } => {
                let reason = (*reason).into();
                return self.ask_home(room, RoomAsk::Close { reason }, from);
            }
            Order::Members { limit, after, .. } => {
                return self.ask_home(room, RoomAsk::Members { limit, after }, from);
            }
            Order::Broadcast { json } => NodeAsk::Broadcast {
                frame: frame(&json),
            },
            Order::Push { user, json } => NodeAsk::UserPush {
                user,
                frame: frame(&json),
            },
            Order::Disconnect { user, code, reason } => NodeAsk::UserDisconnect {
                user,
                code,
                reason: (*reason).into(),
            },
        };
        for shard in 0..self.shards() {
            let (ask, from) = (everyone.clone(), from.clone());
            self.mail
                .post(ShardId(shard as u16), Msg::Node { ask, from });
        }
    }

    fn ask_home(&mut self, room: Option<RoomId>, ask: RoomAsk, from: ReplyTo) {
        if let Some(room) = room {
            let home = room.home(self.shards());
            self.mail.post(home, Msg::Ask { room, ask, from });
        }
    }

    /// A shard of this node has carried out another node's order.
    pub(super) fn order_answered(&mut self, key: u64, answer: Result<Answer, Refusal>) {
        let Some(taken) = self.orders.taken.get_mut(&key) else {
            return;
        };
        if let Ok(Answer::Members(page)) = &answer {
            let page = told(page);
            if let Some(taken) = self.orders.taken.remove(&key) {
                let asker = taken.asker;
                self.ask_cluster(Outward::Page { asker, page });
            }
            return;
        }
        if let Ok(Answer::Connections(connections)) = answer {
            taken.connections = taken.connections.saturating_add(connections);
            taken.known = true;
        }
        taken.missing = taken.missing.saturating_sub(1);
        if taken.missing > 0 {
            return;
        }
        if let Some(taken) = self.orders.taken.remove(&key) {
            self.ask_cluster(Outward::Done {
                asker: taken.asker,
                connections: taken.connections,
                known: taken.known,
            });
        }
    }
}
