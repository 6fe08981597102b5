//! The server API: broadcast, users, rooms set and closed, kick, info.

use super::*;

/// The one question of a call with the API key.
fn asked(api: &Api, line: &str, body: &str) -> Question {
    let key = format!("X-Api-Key: {KEY}");
    let mut questions = api.asks(Listener::Internal, line, &[&key], body);
    assert_eq!(questions.len(), 1);
    questions.remove(0)
}

/// The JSON in a short text frame, checked against a client from another hand.
fn unframed(frame: &[u8]) -> Value {
    let mut rest = std::io::Cursor::new(frame);
    let (header, length) = tungstenite::protocol::frame::FrameHeader::parse(&mut rest)
        .unwrap()
        .unwrap();
    assert!(header.is_final && header.mask.is_none());
    let payload = &frame[rest.position() as usize..];
    assert_eq!(payload.len() as u64, length);
    serde_json::from_slice(payload).unwrap()
}

#[test]
fn a_broadcast_is_sealed_once_and_counted() {
    let api = Api::new();
    let body = r#"{"event":"sale","data":{"off": 10}}"#;
    let Question::Node(NodeAsk::Broadcast { frame }) = asked(&api, "POST /api/v1/broadcast", body)
    else {
        panic!("not a broadcast")
    };
    assert_eq!(
        unframed(&frame),
        json!({"type":"broadcast","event":"sale","data":{"off":10},"ts":NOW_MS})
    );
    succeeds(
        &api.internal("POST /api/v1/broadcast", body),
        json!({"connections": 7}),
    );
    let nothing = api.internal("POST /api/v1/broadcast", "{}");
    refuses(&nothing, Code::BadMessage);
}

#[test]
fn a_broadcast_that_reached_some_says_so() {
    let api = Api::new();
    let ctx = api.ctx(Listener::Internal);
    let key = format!("X-Api-Key: {KEY}");
    let begin = || {
        api.begin(
            Listener::Internal,
            "POST /api/v1/broadcast",
            &[&key],
            r#"{"event":"e"}"#,
        )
    };
    for (reached, told) in [(0, "full"), (5, "full; 5 connections were reached")] {
        let (mut exchange, progress) = begin();
        let mut node = |_: &Question, shard: usize| match shard {
            0 => Err(Refusal::new(Code::Busy, "full")),
            _ => Ok(Answer::Connections(reached)),
        };
        let reply = finish(&mut exchange, progress, &ctx, &mut node);
        refuses(&reply, Code::Busy);
        assert_eq!(super::body(&reply)["reason"], told);
    }
    let (mut exchange, _) = begin();
    refuses(&exchange.timed_out(&ctx), Code::Timeout);
}

#[test]
fn a_user_is_pushed_to_by_a_decoded_id() {
    let api = Api::new();
    let line = "POST /api/v1/users/%E5%BC%A0%2Fsan/push";
    let body = r#"{"event":"coupon"}"#;
    let Question::Node(NodeAsk::UserPush { user, frame }) = asked(&api, line, body) else {
        panic!("not a push")
    };
    assert_eq!(user.as_str(), "张/san");
    assert_eq!(
        unframed(&frame),
        json!({"type":"push","event":"coupon","data":null,"ts":NOW_MS})
    );
    succeeds(&api.internal(line, body), json!({"connections": 7}));
    for bad in ["%0a", &"x".repeat(129)] {
        let line = format!("POST /api/v1/users/{bad}/push");
        refuses(&api.internal(&line, body), Code::BadUser);
    }
}

#[test]
fn a_user_is_disconnected_for_good_or_to_come_back() {
    let api = Api::new();
    let line = "POST /api/v1/users/u/disconnect";
    for (body, expected, said) in [
        ("", 4008, None),
        (r#"{"reason":"bye"}"#, 4008, Some("bye")),
        (r#"{"reconnect":true}"#, 4400, None),
    ] {
        let Question::Node(NodeAsk::UserDisconnect { user, code, reason }) =
            asked(&api, line, body)
        else {
            panic!("not a disconnect")
        };
        assert_eq!((user.as_str(), code), ("u", expected));
        assert!((1..=123).contains(&reason.len()));
        assert!(said.is_none_or(|said| *reason == *said), "{reason}");
    }
    succeeds(&api.internal(line, ""), json!({"connections": 7}));
    refuses(&api.internal(line, r#"{"reconnect":1}"#), Code::BadMessage);
}

#[test]
fn a_room_is_set() {
    let api = Api::new();
    let body =
        r#"{"title":"Tea","access":"login","tick_ms":100,"deliver_per_s_max":5,"data":{"h": 1}}"#;
    let line = "PUT /api/v1/rooms/a";
    let Question::Room {
        room,
        ask: RoomAsk::Put(patch),
    } = asked(&api, line, body)
    else {
        panic!("not a put")
    };
    assert_eq!((room.as_str(), patch.title.as_deref()), ("a", Some("Tea")));
    assert_eq!(
        (patch.access, patch.tick_ms),
        (Some(Access::Login), Some(100))
    );
    assert_eq!(patch.deliver_per_s_max, Some(5));
    assert_eq!(patch.data.unwrap().get(), r#"{"h": 1}"#);
    succeeds(&api.internal(line, body), shown("a", 3, "public"));
    assert_eq!(api.internal(line, "").status, 200);
    refuses(
        &api.internal(line, r#"{"access":"open"}"#),
        Code::BadMessage,
    );
}

#[test]
fn a_room_is_closed_with_a_reason() {
    let api = Api::new();
    let reason = |line: &str, body: &str| match asked(&api, line, body) {
        Question::Room {
            ask: RoomAsk::Close { reason },
            ..
        } => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let line = "DELETE /api/v1/rooms/a";
    assert_eq!(reason(line, ""), "the room was closed");
    assert_eq!(reason(line, r#"{"reason":"tea is over"}"#), "tea is over");
    assert_eq!(
        reason(&format!("{line}?reason=tea+is%20over"), ""),
        "tea is over"
    );
    assert_eq!(
        reason(&format!("{line}?reason=x"), r#"{"reason":"y"}"#),
        "y"
    );
    assert_eq!(
        reason(&format!("{line}?reason=+"), "{}"),
        "the room was closed"
    );
    succeeds(&api.internal(line, ""), json!({"room":"a","connections":2}));
    let long = format!("{line}?reason={}", "x".repeat(124));
    refuses(&api.internal(&long, ""), Code::BadRequest);
    let nowhere = api.internal("DELETE /api/v1/rooms/nowhere", "");
    refuses(&nowhere, Code::RoomNotFound);
}

#[test]
fn a_user_is_kicked() {
    let api = Api::new();
    let line = "POST /api/v1/rooms/a/kick";
    let Question::Room {
        ask: RoomAsk::Kick { user, reason },
        ..
    } = asked(&api, line, r#"{"user":"u","reason":"rude"}"#)
    else {
        panic!("not a kick")
    };
    assert_eq!((user.as_str(), &*reason), ("u", "rude"));
    succeeds(
        &api.internal(line, r#"{"user":"u"}"#),
        json!({"connections": 2}),
    );
    refuses(&api.internal(line, "{}"), Code::BadUser);
}

#[test]
fn info_adds_the_shards_up() {
    let api = Api::new();
    succeeds(
        &api.internal("GET /api/v1/info", ""),
        json!({
            "node": "n1", "shards": 2, "connections": 21, "rooms": 4, "members": 10,
            "build": {"version": env!("CARGO_PKG_VERSION")},
            "started": NOW_MS - 61_500, "uptime": 61,
        }),
    );
}

#[test]
fn a_wrong_kind_of_answer_is_a_fault_and_not_a_guess() {
    let api = Api::new();
    let ctx = api.ctx(Listener::Internal);
    let key = format!("X-Api-Key: {KEY}");
    let push = r#"{"room":"a","text":"x"}"#;
    for (line, body) in [
        ("GET /api/v1/rooms/a", ""),
        ("GET /api/v1/rooms/a/history", ""),
        ("GET /api/v1/rooms/a/members", ""),
        ("DELETE /api/v1/rooms/a", ""),
        ("POST /api/v1/danmaku/push", push),
        ("GET /api/v1/rooms", ""),
        ("GET /api/v1/info", ""),
        ("POST /api/v1/broadcast", r#"{"event":"e"}"#),
    ] {
        let (mut exchange, progress) = api.begin(Listener::Internal, line, &[&key], body);
        let mut node = |question: &Question, _: usize| {
            Ok(match question {
                Question::Node(NodeAsk::Info) => Answer::Connections(1),
                _ => Answer::Info(ShardInfo::default()),
            })
        };
        let reply = finish(&mut exchange, progress, &ctx, &mut node);
        refuses(&reply, Code::Internal);
    }
}
