//! HTTP requests that wait for home shards: kept by key, answered or timed out. Owned by the shard the client is on.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Shard;
use crate::api::{Ctx, Exchange, Listener, NodeFacts, Question, Special};
use crate::base::ids::{ConnId, ShardId};
use crate::base::pressure::Level;
use crate::base::rate::{self, Rate};
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, Msg, NodeAsk, Policy, ReplyTo};
use crate::proto::http::reply::Reply;
use crate::room::ask::Publish;
use crate::telemetry::process::ProcessStats;
use crate::telemetry::render;
use crate::telemetry::table::{Bucket, Counter};

/// Exchanges under way.
#[derive(Default)]
pub struct Exchanges {
    next_key: u64,
    waiting: HashMap<u64, Waiting>,
    /// Flood buckets of addresses that push without a token.
    anonymous: HashMap<IpAddr, rate::Bucket>,
}

struct Waiting {
    conn: ConnId,
    exchange: Exchange,
    deadline_ms: u64,
}

impl Exchanges {
    /// Keeps an exchange until it is answered. At most one per connection, so connections bound it.
    pub fn insert(&mut self, conn: ConnId, exchange: Exchange, deadline_ms: u64) -> u64 {
        self.next_key += 1;
        let waiting = Waiting {
            conn,
            exchange,
            deadline_ms,
        };
        self.waiting.insert(self.next_key, waiting);
        self.next_key
    }

    fn overdue(&self, now_ms: u64) -> Vec<u64> {
        let overdue =
            |(&key, waiting): (&u64, &Waiting)| (waiting.deadline_ms <= now_ms).then_some(key);
        self.waiting.iter().filter_map(overdue).collect()
    }
}

impl Shard {
    /// Posts an exchange's questions, part by part.
    pub(super) fn post_questions(&mut self, key: u64, questions: Vec<Question>) {
        for (part, question) in questions.into_iter().enumerate() {
            let from = ReplyTo::Exchange {
                shard: self.id,
                exchange: key,
                part: part as u32,
            };
            let pushes = match &question {
                Question::Publish { .. } => true,
                Question::Node(ask) => {
                    matches!(ask, NodeAsk::Broadcast { .. } | NodeAsk::UserPush { .. })
                }
                Question::Room { .. } => false,
            };
            self.metrics.add(Counter::ApiPushesTotal, u64::from(pushes));
            match question {
                Question::Room { room, ask } => {
                    let home = room.home(self.shards());
                    self.mail.post(home, Msg::Ask { room, ask, from });
                }
                Question::Publish {
                    room,
                    publish,
                    judge_user,
                } => match self.judge_anonymous(key, &publish) {
                    Ok(()) => self.publish(room, publish, judge_user, from),
                    Err(refusal) => self.answer(from, Some(room), Err(refusal)),
                },
                Question::Node(ask) => {
                    for shard in 0..self.shards() {
                        let (ask, from) = (ask.clone(), from.clone());
                        self.mail
                            .post(ShardId(shard as u16), Msg::Node { ask, from });
                    }
                }
            }
        }
    }

    /// A push by nobody named has no user's bucket to spend from: it spends from its address's, on this shard.
    fn judge_anonymous(&mut self, key: u64, publish: &Publish) -> Result<(), Refusal> {
        if publish.exempt || publish.who.is_some() {
            return Ok(());
        }
        let Some(waiting) = self.exchanges.waiting.get(&key) else {
            return Ok(());
        };
        let id = waiting.conn;
        let limits = &self.policy.config.limits;
        let rate = Rate {
            per_s: limits.lines_per_s,
            burst: limits.line_burst,
        };
        let Some(peer) = self.conn(id).map(|conn| conn.peer) else {
            return Ok(());
        };
        let now_ms = self.now.mono_ms();
        let bucket = self.exchanges.anonymous.entry(peer).or_default();
        bucket.take(rate, now_ms).map_err(|wait_ms| {
            self.metrics.line_refused(Code::RateLimited);
            self.metrics.rate_limited(Bucket::Connection);
            let reason = format!("more than {} lines per second without a token", rate.per_s);
            Refusal::new(Code::RateLimited, reason).retry(wait_ms)
        })
    }

    /// An answer for an exchange; one that is gone (timed out, client left) wants it no more.
    pub(super) fn exchange_answered(
        &mut self,
        key: u64,
        part: u32,
        answer: Result<Answer, Refusal>,
    ) {
        let Some(mut waiting) = self.exchanges.waiting.remove(&key) else {
            return;
        };
        let id = waiting.conn;
        if self.http(id).is_none_or(|http| http.exchange != Some(key)) {
            return;
        }
        let policy = std::sync::Arc::clone(&self.policy);
        let ctx = self.api_ctx(&policy, waiting.exchange.listener());
        match waiting.exchange.answered(part, answer, &ctx) {
            Some(progress) => self.progress(id, waiting.exchange, progress),
            None => {
                self.exchanges.waiting.insert(key, waiting);
            }
        }
    }

    /// Answers what has waited too long. Once a second.
    pub(super) fn time_out_exchanges(&mut self) {
        let limits = &self.policy.config.limits;
        let rate = Rate {
            per_s: limits.lines_per_s,
            burst: limits.line_burst,
        };
        let now_ms = self.now.mono_ms();
        let spent = |_: &IpAddr, bucket: &mut rate::Bucket| !bucket.is_full(rate, now_ms);
        self.exchanges.anonymous.retain(spent);
        for key in self.exchanges.overdue(self.now.mono_ms()) {
            let Some(mut waiting) = self.exchanges.waiting.remove(&key) else {
                continue;
            };
            let policy = std::sync::Arc::clone(&self.policy);
            let ctx = self.api_ctx(&policy, waiting.exchange.listener());
            let reply = waiting.exchange.timed_out(&ctx);
            self.log_access(waiting.conn, &waiting.exchange, reply.status);
            self.reply(waiting.conn, &reply);
        }
    }

    /// What a route needs to know of the node.
    pub(super) fn api_ctx<'a>(&self, policy: &'a Policy, listener: Listener) -> Ctx<'a> {
        Ctx {
            policy,
            now: self.now,
            listener,
            shards: self.shards(),
            takes_pushes: !self.overload.gives_up(Level::Pushes),
            node: NodeFacts {
                name: self.node.name.clone(),
                started_ms: self.node.started_ms,
            },
        }
    }

    /// The routes only a shard can answer.
    pub(super) fn special(&self, special: Special) -> Reply {
        match special {
            Special::Ready => match self.node.unready() {
                None => match self.node.pressure().0 {
                    Level::Calm => Reply::json(200, serde_json::json!({"status": "ready"})),
                    level => {
                        let body =
                            serde_json::json!({"status": "ready", "gives_up": level.as_str()});
                        Reply::json(200, body)
                    }
                },
                Some(why) => Reply::refusal(&why.refusal()),
            },
            Special::Nodes => Reply::json(200, self.node.nodes()),
            Special::Metrics => {
                let text = render::render(&self.node.view(ProcessStats::read()));
                Reply::with_body(200, render::CONTENT_TYPE, text)
            }
        }
    }

    /// One line of the access log, sampled.
    pub(super) fn log_access(&mut self, id: ConnId, exchange: &Exchange, status: u16) {
        let share = self.policy.config.log.access_sample;
        if !crate::telemetry::log::Sampler::new(share).pick(self.rng.next_u64()) {
            return;
        }
        let Some(conn) = self.conn(id) else {
            return;
        };
        let facts = exchange.facts();
        tracing::info!(
            target: "access",
            peer = %conn.peer,
            method = %facts.method,
            path = %facts.path,
            caller = %facts.caller,
            status,
        );
    }
}
