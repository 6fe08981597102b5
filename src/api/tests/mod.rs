//! The API without sockets: requests are read from their bytes, and a fake node of two shards answers what is asked.

mod access;
mod batch;
mod browsers;
mod pushes;
mod reads;
mod server;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Ctx, Exchange, Listener, NodeFacts, Progress, Question};
use crate::auth::api_keys::ApiKeys;
use crate::auth::keys::KeySet;
use crate::auth::mint::{MintClaims, mint};
use crate::base::clock::Now;
use crate::base::identity::{Access, Role, User};
use crate::base::ids::{Epoch, RoomId, UserId};
use crate::base::refusal::{Code, Refusal};
use crate::bus::{Answer, NodeAsk, Policy, RoomAsk, ShardInfo};
use crate::config::checked::*;
use crate::proto::http::reply::Reply;
use crate::proto::http::{HttpLimits, Reader, Request, Step};
use crate::room::ask::{Detail, HistoryPage, MemberEntry, MembersPage, Publish, Published};

const KEY: &str = "0123456789abcdef";
const SHARDS: usize = 2;
const NOW_MS: u64 = 1_800_000_000_000;

fn config() -> Config {
    let address = "127.0.0.1:0".parse().unwrap();
    Config {
        listen: Listen {
            public: address,
            internal: address,
        },
        server: Server {
            shards: SHARDS,
            fd_tables: FdTables::Shared,
            node: "n1".into(),
            address: String::new(),
            region: String::new(),
            demo_page: true,
            compression: true,
        },
        auth: Auth {
            anonymous: Anonymous::Watch,
            origins: Origins::Listed(vec!["https://live.example".into()]),
            issuer: None,
            audience: None,
            leeway_s: 5,
            keys: vec![KeySpec {
                kid: "k1".into(),
                algorithm: Algorithm::Hs256,
                material: KeyMaterial::Secret(b"an HS256 secret of these tests, 32+".to_vec()),
            }],
        },
        api_keys: vec![ApiKey {
            name: "shop".into(),
            key: KEY.into(),
        }],
        admission: Admission {
            connections_max: 0,
            handshakes_max: 1,
            handshake_timeout_ms: 1,
            accepts_per_s: 0,
            accept_burst: 0,
            per_address_max: 0,
            trusted_proxies: vec![],
        },
        heartbeat: Heartbeat {
            interval_ms: 30_000,
        },
        limits: Limits {
            head_bytes_max: 8192,
            body_bytes_max: 65_536,
            message_bytes_max: 16_384,
            text_bytes_max: 1024,
            body_timeout_ms: 1,
            rooms_per_connection_max: 16,
            connections_per_user_max: 0,
            lines_per_s: 5,
            line_burst: 10,
            room_lines_per_s: 0,
        },
        rooms: Rooms {
            default: RoomClass {
                access: Access::Public,
                history_lines: 100,
                log_bytes_max: 1 << 18,
                tick: Tick::Auto,
                deliver_per_s_max: 0,
                idle_after_ms: 1,
            },
            classes: vec![],
        },
        slow: Slow {
            policy: SlowPolicy::Drop,
            outbox_bytes_max: 1 << 16,
            stuck_timeout_ms: 1,
            unsent_bytes_max: 0,
        },
        overload: Overload {
            lag_ms: 500,
            memory_max: 0,
        },
        drain: Drain {
            batch: 1,
            interval_ms: 1,
            deadline_ms: 1,
        },
        redis: None,
        events: Events { stream_max: 0 },
        kafka: None,
        log: Log {
            level: tracing::Level::INFO,
            format: LogFormat::Plain,
            access_sample: 0.0,
        },
    }
}

/// The settings, and every way to call under them.
struct Api {
    policy: Policy,
}

impl Api {
    fn new() -> Api {
        Api::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Config)) -> Api {
        let mut config = config();
        change(&mut config);
        Api {
            policy: Policy {
                keys: KeySet::new(&config.auth).unwrap(),
                api_keys: ApiKeys::new(&config.api_keys),
                config,
            },
        }
    }

    fn anonymous(anonymous: Anonymous) -> Api {
        Api::with(|config| config.auth.anonymous = anonymous)
    }

    fn ctx(&self, listener: Listener) -> Ctx<'_> {
        Ctx {
            policy: &self.policy,
            now: Now {
                mono_ns: 0,
                unix_ms: NOW_MS,
            },
            listener,
            shards: SHARDS,
            takes_pushes: true,
            node: NodeFacts {
                name: "n1".into(),
                started_ms: NOW_MS - 61_500,
            },
        }
    }

    /// `Authorization: Bearer ..` of a user with this role, who may enter every room that is not private.
    fn token(&self, user: &str, role: Role) -> String {
        format!("Authorization: Bearer {}", self.bare_token(user, role))
    }

    fn bare_token(&self, user: &str, role: Role) -> String {
        let claims = MintClaims {
            user,
            name: Some("Name"),
            rooms: &[],
            role,
            ttl_s: 3600,
            now_unix_s: NOW_MS / 1000,
        };
        mint(&self.policy.config.auth, &claims).unwrap()
    }

    fn begin(
        &self,
        listener: Listener,
        line: &str,
        headers: &[&str],
        body: &str,
    ) -> (Exchange, Progress) {
        Exchange::begin(request(line, headers, body), &self.ctx(listener))
    }

    /// A request, answered by the fake node.
    fn call(&self, listener: Listener, line: &str, headers: &[&str], body: &str) -> Reply {
        let (mut exchange, progress) = self.begin(listener, line, headers, body);
        let ctx = self.ctx(listener);
        finish(&mut exchange, progress, &ctx, &mut answer)
    }

    fn public(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        self.call(Listener::Public, line, headers, body)
    }

    /// With the API key, on the internal listener.
    fn internal(&self, line: &str, body: &str) -> Reply {
        let key = format!("X-Api-Key: {KEY}");
        self.call(Listener::Internal, line, &[&key], body)
    }

    /// What a request asks; it must ask something.
    fn asks(&self, listener: Listener, line: &str, headers: &[&str], body: &str) -> Vec<Question> {
        match self.begin(listener, line, headers, body).1 {
            Progress::Ask(questions) => questions,
            other => panic!("{line} asked nothing: {other:?}"),
        }
    }

    /// The publishes a push asks for.
    fn publishes(&self, headers: &[&str], body: &str) -> Vec<(RoomId, Publish, bool)> {
        let line = "POST /api/v1/danmaku/push";
        let publish = |question| match question {
            Question::Publish {
                room,
                publish,
                judge_user,
            } => (room, *publish, judge_user),
            other => panic!("{other:?}"),
        };
        self.asks(Listener::Public, line, headers, body)
            .into_iter()
            .map(publish)
            .collect()
    }
}

/// Reads a request from its bytes, as a client writes them.
fn request(line: &str, headers: &[&str], body: &str) -> Request {
    let mut text = format!("{line} HTTP/1.1\r\nHost: gateway.example\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let limits = HttpLimits {
        head_bytes_max: 8192,
        body_bytes_max: 1 << 20,
    };
    match Reader::new(limits).feed(text.as_bytes()).unwrap().step {
        Step::Request(request) => *request,
        other => panic!("{other:?}"),
    }
}

/// Answers an exchange's questions until it is done.
fn finish(
    exchange: &mut Exchange,
    mut progress: Progress,
    ctx: &Ctx,
    node: &mut dyn FnMut(&Question, usize) -> Result<Answer, Refusal>,
) -> Reply {
    loop {
        let questions = match progress {
            Progress::Done(reply) => return reply,
            Progress::Special(special) => panic!("{special:?} is the reactor's"),
            Progress::Ask(questions) => questions,
        };
        assert!(!questions.is_empty(), "nothing would ever answer");
        let mut next = None;
        for (part, question) in questions.iter().enumerate() {
            let answers = match question {
                Question::Node(_) => ctx.shards,
                _ => 1,
            };
            for shard in 0..answers {
                assert!(next.is_none(), "it went on without all its answers");
                next = exchange.answered(part as u32, node(question, shard), ctx);
            }
        }
        progress = next.expect("all is answered");
    }
}

/// The fake node: rooms `a` to `c` are public, `login` and `private` are what they are called, `full` is busy, others are unknown.
fn answer(question: &Question, shard: usize) -> Result<Answer, Refusal> {
    match question {
        Question::Publish { room, publish, .. } => {
            access(room)?
                .admits(publish.who.as_deref(), room)
                .or_else(|refusal| match publish.exempt {
                    true => Ok(()),
                    false => Err(refusal),
                })?;
            Ok(Answer::Published(Published {
                epoch: Epoch(9),
                seq: 7,
            }))
        }
        Question::Room { room, ask } => answer_room(room, ask),
        Question::Node(ask) => Ok(match ask {
            NodeAsk::Rooms { limit, after } => Answer::Rooms {
                rooms: shard_rooms(shard, *limit, after),
                stale: false,
            },
            NodeAsk::Info => Answer::Info(ShardInfo {
                connections: 10 + shard as u32,
                rooms: 2,
                members: 5,
            }),
            _ => Answer::Connections(3 + shard as u32),
        }),
    }
}

fn access(room: &RoomId) -> Result<Access, Refusal> {
    match room.as_str() {
        "a" | "b" | "c" => Ok(Access::Public),
        "login" => Ok(Access::Login),
        "private" => Ok(Access::Private),
        "full" => Err(Refusal::new(Code::Busy, "the room's home is busy")),
        _ => Err(Refusal::new(Code::RoomNotFound, "nobody knows this room")),
    }
}

fn answer_room(room: &RoomId, ask: &RoomAsk) -> Result<Answer, Refusal> {
    let access = access(room)?;
    Ok(match ask {
        RoomAsk::Admit { who, then } => {
            access.admits(who.as_deref(), room)?;
            return answer_room(room, then);
        }
        RoomAsk::Detail | RoomAsk::Put(_) => {
            Answer::Detail(Box::new(detail(room.as_str(), 3, access)))
        }
        RoomAsk::History { since, limit } => Answer::History(Box::new(HistoryPage {
            epoch: Epoch(9),
            seq: 7,
            messages: (since.unwrap_or(0) + 1..=7)
                .take(*limit)
                .map(|seq| Bytes::from(format!(r#"{{"seq":{seq},"text":"é"}}"#)))
                .collect(),
        })),
        RoomAsk::Members { limit, after } => Answer::Members(Box::new(MembersPage {
            members: vec![
                MemberEntry {
                    user: Some(User {
                        id: UserId::parse("u1").unwrap(),
                        name: format!("{limit} {after:?}").into(),
                    }),
                    connections: 2,
                    joined_ms: 5,
                },
                MemberEntry {
                    user: None,
                    connections: 4,
                    joined_ms: 6,
                },
            ],
            next: Some("u1".into()),
            stale: false,
        })),
        RoomAsk::Close { .. } | RoomAsk::Kick { .. } => Answer::Connections(2),
        RoomAsk::Join(_) | RoomAsk::Leave(_) | RoomAsk::Watch { .. } | RoomAsk::Unwatch { .. } => {
            panic!("not over HTTP")
        }
    })
}

fn detail(room: &str, online: u32, access: Access) -> Detail {
    Detail {
        visitors: None,
        stale: false,
        room: RoomId::parse(room).unwrap(),
        online,
        users: 1,
        epoch: Epoch(9),
        seq: 7,
        title: "Tea \"time\"".into(),
        access,
        tick_ms: None,
        deliver_per_s_max: 0,
        data: Some(Arc::from(
            serde_json::value::RawValue::from_string(r#"{"host": 1.50}"#.into()).unwrap(),
        )),
        created_ms: 100,
        peak: 4,
    }
}

/// Shard 0 is home to `a`, `c` and `private`, shard 1 to `b` and `login`.
fn shard_rooms(shard: usize, limit: usize, after: &Option<(u32, Box<str>)>) -> Vec<Detail> {
    let mut rooms = match shard {
        0 => vec![
            detail("a", 5, Access::Public),
            detail("private", 4, Access::Private),
            detail("c", 1, Access::Public),
        ],
        _ => vec![
            detail("b", 5, Access::Public),
            detail("login", 2, Access::Login),
        ],
    };
    if let Some((online, room)) = after {
        rooms.retain(|d| d.online < *online || (d.online == *online && d.room.as_str() > &**room));
    }
    rooms.truncate(limit);
    rooms
}

/// What a room is shown as.
fn shown(room: &str, online: u32, access: &str) -> Value {
    json!({
        "room": room, "online": online, "users": 1, "seq": 7, "epoch": 9, "title": "Tea \"time\"",
        "access": access, "tick_ms": null, "deliver_per_s_max": 0, "data": {"host": 1.5}, "created": 100, "peak": 4,
    })
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

#[track_caller]
fn succeeds(reply: &Reply, expected: Value) {
    let shown = String::from_utf8_lossy(&reply.body);
    assert_eq!((reply.status, body(reply)), (200, expected), "{shown}");
}

#[track_caller]
fn refuses(reply: &Reply, code: Code) {
    let body = body(reply);
    assert_eq!(
        (reply.status, body["code"].as_str()),
        (code.status(), Some(code.as_str())),
        "{body}"
    );
    assert!(!body["reason"].as_str().unwrap().is_empty());
    assert_eq!(body["hint"], code.hint());
}

/// The value of a reply's header; it must stand there once at most.
fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let mut fields = reply
        .headers
        .iter()
        .filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = fields.next().map(|(_, value)| value.as_str());
    assert!(fields.next().is_none(), "{name} twice");
    value
}
