//! Pushes: bodies to the letter, who may push what, many rooms, idempotency.

use super::*;

use crate::room::ask::{Author, Content};

const PUSH: &str = "POST /api/v1/danmaku/push";

fn by_key() -> String {
    format!("Authorization: Bearer {KEY}")
}

#[test]
fn a_push_answers_room_seq_and_epoch() {
    let api = Api::new();
    let line = r##"{"room":"a","text":" hi ","style":{"color":"#010203"},"data":{"k":1}}"##;
    let token = api.token("u1", Role::Viewer);
    for reply in [
        api.public(PUSH, &[&token], line),
        api.public(PUSH, &[&by_key()], line),
        api.internal(PUSH, line),
    ] {
        succeeds(&reply, json!({"room":"a","seq":7,"epoch":9}));
        assert_eq!(reply.content_type, Some("application/json"));
    }
}

#[test]
fn a_tokens_user_is_the_author_and_is_judged() {
    let api = Api::new();
    let pushed = |role| {
        let token = api.token("u1", role);
        api.publishes(&[&token], r#"{"room":"a","text":" hi "}"#)
            .remove(0)
    };
    let (room, publish, judge_user) = pushed(Role::Viewer);
    assert_eq!(room.as_str(), "a");
    let Author::User(user) = &publish.author else {
        panic!("{:?}", publish.author)
    };
    assert_eq!((user.id.as_str(), &*user.name), ("u1", "Name"));
    assert_eq!(publish.who.unwrap().user, *user);
    assert!(judge_user && !publish.exempt && publish.once.is_none());
    assert!(matches!(&publish.content, Content::Line { text, .. } if &**text == "hi"));
    let (_, publish, judge_user) = pushed(Role::Moderator);
    assert!(judge_user && !publish.exempt);
    let (_, publish, judge_user) = pushed(Role::Admin);
    assert!(!judge_user && publish.exempt);
}

#[test]
fn a_key_speaks_for_whom_it_names() {
    let api = Api::new();
    let line = r#"{"room":"private","text":"x","user":{"id":"bot","name":"Bot"}}"#;
    let (_, publish, judge_user) = api.publishes(&[&by_key()], line).remove(0);
    assert!(matches!(&publish.author, Author::User(u) if &*u.name == "Bot"));
    assert!(publish.exempt && publish.who.is_none() && !judge_user);
    let (_, publish, _) = api
        .publishes(&[&by_key()], r#"{"room":"a","text":"x"}"#)
        .remove(0);
    assert_eq!(publish.author, Author::Anonymous);
}

#[test]
fn who_may_push_what() {
    let line = r#"{"room":"a","text":"x"}"#;
    let named = r#"{"room":"a","text":"x","user":{"id":"other"}}"#;
    let gift = r#"{"room":"a","type":"event","event":"gift","data":{"rose":1}}"#;
    let many = r#"{"rooms":["a","b"],"text":"x"}"#;
    let api = Api::new();
    let viewer = api.token("u", Role::Viewer);
    for body in [line, many] {
        refuses(&api.public(PUSH, &[], body), Code::TokenMissing);
        assert_eq!(api.public(PUSH, &[&viewer], body).status, 200);
    }
    for body in [named, gift] {
        refuses(&api.public(PUSH, &[&viewer], body), Code::Forbidden);
    }
    let admin = api.token("u", Role::Admin);
    refuses(&api.public(PUSH, &[&admin], named), Code::Forbidden);
    for role in [Role::Host, Role::Moderator, Role::Admin] {
        let token = api.token("u", role);
        assert_eq!(api.public(PUSH, &[&token], gift).status, 200, "{role:?}");
    }
    for body in [line, named, gift, many] {
        assert_eq!(api.internal(PUSH, body).status, 200);
    }
    refuses(
        &Api::anonymous(Anonymous::Deny).public(PUSH, &[], line),
        Code::TokenMissing,
    );
    let api = Api::anonymous(Anonymous::Speak);
    let (_, publish, judge_user) = api.publishes(&[], line).remove(0);
    assert_eq!(publish.author, Author::Anonymous);
    assert!(publish.who.is_none() && !publish.exempt && !judge_user);
    for body in [named, gift, many] {
        refuses(&api.public(PUSH, &[], body), Code::Forbidden);
    }
}

#[test]
fn an_event_keeps_its_name_and_data() {
    let api = Api::new();
    let gift = r#"{"room":"a","type":"event","event":"gift","data":{"rose": 1.0}}"#;
    let (_, publish, _) = api.publishes(&[&by_key()], gift).remove(0);
    let Content::Event { event, data } = publish.content else {
        panic!("{:?}", publish.content)
    };
    assert_eq!((&*event, data.unwrap().get()), ("gift", r#"{"rose": 1.0}"#));
}

#[test]
fn many_rooms_are_answered_in_order_each_for_itself() {
    let api = Api::new();
    let token = api.token("u", Role::Viewer);
    let body = r#"{"rooms":["a","no room","private","b","a","full"],"text":"x"}"#;
    let asked = api.publishes(&[&token], body);
    let rooms: Vec<&str> = asked.iter().map(|(room, ..)| room.as_str()).collect();
    assert_eq!(rooms, ["a", "private", "b", "full"], "once each");
    let reply = api.public(PUSH, &[&token], body);
    assert_eq!(reply.status, 200);
    let results = super::body(&reply)["results"].clone();
    let a = json!({"room":"a","seq":7,"epoch":9});
    assert_eq!((&results[0], &results[4]), (&a, &a));
    assert_eq!(results[3], json!({"room":"b","seq":7,"epoch":9}));
    for (index, room, code) in [
        (1, "no room", "bad_room"),
        (2, "private", "room_forbidden"),
        (5, "full", "busy"),
    ] {
        let result = &results[index];
        assert_eq!(
            (&result["room"], &result["code"]),
            (&json!(room), &json!(code))
        );
        assert!(!result["reason"].as_str().unwrap().is_empty());
        assert!(result.get("seq").is_none());
    }
    assert_eq!(results.as_array().unwrap().len(), 6);
}

#[test]
fn rooms_that_are_none_are_told_without_asking() {
    let api = Api::new();
    let reply = api.internal(PUSH, r#"{"rooms":["?","!"],"text":"x"}"#);
    let results = super::body(&reply)["results"].clone();
    assert_eq!(
        (reply.status, &results[1]["code"]),
        (200, &json!("bad_room"))
    );
    for rooms in ["[]".to_owned(), format!("[{}\"a\"]", "\"a\",".repeat(1000))] {
        let body = format!(r#"{{"rooms":{rooms},"text":"x"}}"#);
        refuses(&api.internal(PUSH, &body), Code::BadMessage);
    }
    let rooms: Vec<String> = (0..1000).map(|n| format!("r{n}")).collect();
    let body = json!({"rooms": rooms, "text": "x"}).to_string();
    assert_eq!(api.publishes(&[&by_key()], &body).len(), 1000);
}

#[test]
fn one_room_that_refuses_gives_its_status() {
    let api = Api::new();
    let token = api.token("u", Role::Viewer);
    let push = |room: &str| {
        let body = json!({"room": room, "text": "x"}).to_string();
        api.public(PUSH, &[&token], &body)
    };
    refuses(&push("private"), Code::RoomForbidden);
    refuses(&push("nowhere"), Code::RoomNotFound);
    refuses(&push("no room"), Code::BadRoom);
    let busy = push("full");
    refuses(&busy, Code::Busy);
    assert_eq!(super::body(&busy)["retry_after_ms"], 1000);
    assert_eq!(header(&busy, "Retry-After"), Some("1"));
}

#[test]
fn bad_bodies_are_told_where_they_break() {
    let api = Api::new();
    for (body, code, told) in [
        ("", Code::BadMessage, "nothing"),
        (r#"{"room":"a","#, Code::BadMessage, "line 1 column 12"),
        (
            "{\"room\":\"a\",\n \"text\":?}",
            Code::BadMessage,
            "line 2 column 9",
        ),
        (r#"{"text":"x"}"#, Code::BadMessage, "room is missing"),
        (r#"{"room":"a","text":" "}"#, Code::BadText, ""),
        (
            r#"{"room":"a","text":"x","style":{"size":1}}"#,
            Code::BadStyle,
            "",
        ),
        (
            r#"{"room":"a","text":"x","user":{"id":""}}"#,
            Code::BadUser,
            "",
        ),
        (
            r#"{"room":"a","type":"event","event":"a b"}"#,
            Code::BadEvent,
            "",
        ),
        (r#"{"room":"a","type":"gift"}"#, Code::BadMessage, "gift"),
    ] {
        let reply = api.internal(PUSH, body);
        refuses(&reply, code);
        let reason = super::body(&reply)["reason"].to_string();
        assert!(reason.contains(told), "{body}: {reason}");
    }
    let form = "Content-Type: application/x-www-form-urlencoded";
    let reply = api.public(PUSH, &[&by_key(), form], r#"{"room":"a","text":"x"}"#);
    refuses(&reply, Code::UnsupportedMedia);
    let json = "Content-Type: application/json; charset=utf-8";
    let reply = api.public(PUSH, &[&by_key(), json], r#"{"room":"a","text":"x"}"#);
    assert_eq!(reply.status, 200);
}

#[test]
fn an_idempotency_key_is_its_callers_and_its_requests() {
    let api = Api::new();
    let once = |who: &str, key: &str, body: &str| {
        let key = format!("Idempotency-Key: {key}");
        let (_, publish, _) = api.publishes(&[who, &key], body).remove(0);
        publish.once.unwrap()
    };
    let (x, y) = (r#"{"room":"a","text":"x"}"#, r#"{"room":"a","text":"y"}"#);
    let shop = by_key();
    let (u, shop_user) = (
        api.token("u", Role::Viewer),
        api.token("shop", Role::Viewer),
    );
    let first = once(&shop, "k", x);
    assert_eq!(&*first.key, "key:shop\nk");
    assert_eq!(once(&shop, "k", x), first);
    let other_body = once(&shop, "k", y);
    assert_eq!(other_body.key, first.key);
    assert_ne!(other_body.fingerprint, first.fingerprint);
    assert_eq!(once(&shop, "k2", x).fingerprint, first.fingerprint);
    let keys = [&shop, &u, &shop_user].map(|who| once(who, "k", x).key);
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    // Stable across versions, because a retry may reach a newer gateway: the first 8 bytes of SHA-256 over method, 0, path, 0, body.
    assert_eq!(first.fingerprint, 8_507_498_849_828_678_243);
}

#[test]
fn a_useless_idempotency_key_is_refused() {
    let api = Api::anonymous(Anonymous::Speak);
    let line = r#"{"room":"a","text":"x"}"#;
    let (fits, long) = ("k".repeat(128), "k".repeat(129));
    for (key, ok) in [
        (&*fits, true),
        (&*long, false),
        ("", false),
        ("a b", false),
        ("é", false),
    ] {
        let key = format!("Idempotency-Key: {key}");
        let reply = api.public(PUSH, &[&by_key(), &key], line);
        assert_eq!(reply.status == 200, ok, "{key}");
    }
    let twice = ["Idempotency-Key: a", "Idempotency-Key: b", &by_key()];
    refuses(&api.public(PUSH, &twice, line), Code::BadRequest);
    let reply = api.public(PUSH, &["Idempotency-Key: a"], line);
    refuses(&reply, Code::BadRequest);
}

#[test]
fn answers_may_come_in_any_order_and_strangers_change_nothing() {
    let api = Api::new();
    let ctx = api.ctx(Listener::Public);
    let body = r#"{"rooms":["a","b","c"],"text":"x"}"#;
    let (mut exchange, _) = api.begin(Listener::Public, PUSH, &[&by_key()], body);
    let published = |seq| {
        let epoch = Epoch(1);
        Ok(Answer::Published(Published { epoch, seq }))
    };
    assert!(exchange.answered(2, published(30), &ctx).is_none());
    assert!(exchange.answered(2, published(31), &ctx).is_none());
    assert!(exchange.answered(3, published(40), &ctx).is_none());
    assert!(exchange.answered(u32::MAX, published(50), &ctx).is_none());
    assert!(
        exchange
            .answered(0, Ok(Answer::Connections(1)), &ctx)
            .is_none()
    );
    let Some(Progress::Done(reply)) = exchange.answered(1, published(20), &ctx) else {
        panic!("all have answered")
    };
    let results = super::body(&reply)["results"].clone();
    assert_eq!(results[0]["code"], "internal");
    assert_eq!(
        (&results[1]["seq"], &results[2]["seq"]),
        (&json!(20), &json!(30))
    );
    assert!(exchange.answered(1, published(20), &ctx).is_none());
}

#[test]
fn a_timeout_tells_what_is_known() {
    let api = Api::new();
    let ctx = api.ctx(Listener::Public);
    let begin = |body| api.begin(Listener::Public, PUSH, &[&by_key()], body).0;
    let mut one = begin(r#"{"room":"a","text":"x"}"#);
    let reply = one.timed_out(&ctx);
    refuses(&reply, Code::Timeout);
    assert_eq!(super::body(&reply)["retry_after_ms"], 1000);
    let many = r#"{"rooms":["a","b"],"text":"x"}"#;
    refuses(&begin(many).timed_out(&ctx), Code::Timeout);
    let mut many = begin(many);
    let published = Published {
        epoch: Epoch(1),
        seq: 2,
    };
    assert!(
        many.answered(1, Ok(Answer::Published(published)), &ctx)
            .is_none()
    );
    let reply = many.timed_out(&ctx);
    let results = super::body(&reply)["results"].clone();
    assert_eq!(
        (reply.status, &results[0]["code"]),
        (200, &json!("timeout"))
    );
    assert_eq!(results[1], json!({"room":"b","seq":2,"epoch":1}));
    let late = many.answered(0, Ok(Answer::Published(published)), &ctx);
    assert!(late.is_none());
}
