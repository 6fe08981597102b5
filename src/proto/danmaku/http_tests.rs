//! Tests of the request bodies: every body of the protocol page, every mistake in them by name, and garbage.

use proptest::prelude::*;

use super::super::{ANY_TEXT, Mode};
use super::*;

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn push(body: &str) -> Result<PushBody, Refusal> {
    parse_push(body.as_bytes(), 16)
}

fn refused<T: std::fmt::Debug>(found: Result<T, Refusal>, code: Code, says: &str) {
    let refusal = found.expect_err(says);
    assert_eq!(refusal.code, code, "{}", refusal.reason);
    assert!(refusal.reason.contains(says), "{} / {says}", refusal.reason);
}

#[test]
fn a_line_is_pushed_with_all_its_parts() {
    let body = push(
        r##"{"room":"a","text":" 6\n","style":{"color":"#010203","mode":"top"},"data":{"k" : [1,
            2]},"user":{"id":"u1","name":"Ann"},"later":0}"##,
    )
    .unwrap();
    assert_eq!(body.target, Target::One(room("a")));
    let user = body.user.unwrap();
    assert_eq!((user.id.as_str(), &*user.name), ("u1", "Ann"));
    let PushContent::Line { text, style, data } = body.content else {
        panic!("an event")
    };
    assert_eq!(&*text, "6");
    assert_eq!(
        style,
        Some(Style {
            color: 0x010203,
            mode: Mode::Top,
            size: 25
        })
    );
    assert_eq!(data.unwrap().get(), r#"{"k":[1,2]}"#);
}

#[test]
fn an_event_is_pushed_to_many_rooms_and_an_ill_spelt_one_has_its_own_answer() {
    let body = push(
        r#"{"type":"event","rooms":["a","b c","a"],"event":"gift","data":null,"user":{"id":"7"}}"#,
    )
    .unwrap();
    let Target::Many(entries) = body.target else {
        panic!("one room")
    };
    assert_eq!(
        (&entries[0], &entries[2]),
        (&Entry::Room(room("a")), &Entry::Room(room("a")))
    );
    let Entry::Refused { room, refusal } = &entries[1] else {
        panic!("taken")
    };
    assert_eq!((&**room, refusal.code), ("b c", Code::BadRoom));
    assert!(
        refusal.reason.starts_with("rooms[1] is"),
        "{}",
        refusal.reason
    );
    assert_eq!(&*body.user.unwrap().name, "7");
    assert!(matches!(body.content, PushContent::Event { event, data: None } if &*event == "gift"));
}

#[test]
fn every_mistake_in_a_push_is_named() {
    use Code::{BadEvent, BadMessage, BadRoom, BadStyle, BadText, BadUser};
    let many = format!(r#"{{"text":"x","rooms":[{}"a"]}}"#, "\"a\",".repeat(1000));
    for (body, code, says) in [
        ("", BadMessage, "found nothing"),
        ("[]", BadMessage, "found an array"),
        ("{}", BadMessage, "room is missing"),
        (r#"{"room":"a"}"#, BadMessage, "text is missing"),
        (
            r#"{"room":"a","event":"gift"}"#,
            BadMessage,
            "\"type\":\"event\"",
        ),
        (
            r#"{"room":"a","text":1}"#,
            BadMessage,
            "text must be a string",
        ),
        (r#"{"room":"a","text":" "}"#, BadText, "empty"),
        (
            r#"{"room":"a","text":"12345678901234567"}"#,
            BadText,
            "17 bytes",
        ),
        (r#"{"room":"","text":"x"}"#, BadRoom, "room is \"\""),
        (
            r#"{"room":7,"text":"x"}"#,
            BadMessage,
            "room must be a string",
        ),
        (
            r#"{"room":"a","rooms":["b"],"text":"x"}"#,
            BadMessage,
            "both",
        ),
        (
            r#"{"rooms":[],"text":"x"}"#,
            BadMessage,
            "rooms has 0 entries",
        ),
        (
            r#"{"rooms":{},"text":"x"}"#,
            BadMessage,
            "rooms must be an array",
        ),
        (
            r#"{"rooms":["a",7],"text":"x"}"#,
            BadMessage,
            "rooms[1] must be a string",
        ),
        (&many, BadMessage, "rooms has 1001 entries"),
        (
            r#"{"room":"a","text":"x","data":1e999}"#,
            BadMessage,
            "data cannot be passed on",
        ),
        (
            r#"{"room":"a","text":"x","style":{"mode":"up"}}"#,
            BadStyle,
            "style.mode",
        ),
        (
            r#"{"room":"a","text":"x","user":"u1"}"#,
            BadUser,
            "user must be a JSON object",
        ),
        (
            r#"{"room":"a","text":"x","user":{"name":"n"}}"#,
            BadUser,
            "user.id is missing",
        ),
        (
            r#"{"room":"a","text":"x","user":{"id":7}}"#,
            BadUser,
            "user.id must be a string",
        ),
        (
            r#"{"room":"a","text":"x","user":{"id":""}}"#,
            BadUser,
            "user.id is \"\"",
        ),
        (
            r#"{"room":"a","text":"x","user":{"id":"u","name":"\u202e"}}"#,
            BadUser,
            "user.name",
        ),
        (
            r#"{"room":"a","type":"gift"}"#,
            BadMessage,
            "found \"gift\"",
        ),
        (
            r#"{"room":"a","type":"event"}"#,
            BadMessage,
            "event is missing",
        ),
        (
            r#"{"room":"a","type":"event","event":"a b"}"#,
            BadEvent,
            "event is \"a b\"",
        ),
        (
            r#"{"room":"a","room":"a","text":"x"}"#,
            BadMessage,
            "room stands there twice",
        ),
    ] {
        refused(push(body), code, says);
    }
    refused(
        parse_push(b"{\"text\":\"\xff\"}", 9),
        BadMessage,
        "not UTF-8 at byte 9",
    );
}

#[test]
fn broadcasts_disconnects_and_kicks() {
    let body = parse_broadcast(br#"{"event":"news","data":[ 1 ]}"#).unwrap();
    assert_eq!((&*body.event, body.data.unwrap().get()), ("news", "[ 1 ]"));
    refused(parse_broadcast(b"{}"), Code::BadMessage, "event is missing");
    refused(
        parse_broadcast(br#"{"event":""}"#),
        Code::BadEvent,
        "0 bytes",
    );

    assert_eq!(parse_disconnect(b" \r\n"), Ok(DisconnectBody::default()));
    assert_eq!(
        parse_disconnect(br#"{"reason":" \n"}"#),
        Ok(DisconnectBody::default())
    );
    let back = DisconnectBody {
        reason: Some("see you".into()),
        reconnect: true,
    };
    assert_eq!(
        parse_disconnect(br#"{"reason":"see\u0000 you","reconnect":true}"#),
        Ok(back)
    );
    refused(
        parse_disconnect(br#"{"reconnect":1}"#),
        Code::BadMessage,
        "reconnect must be true or false",
    );
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(124));
    refused(
        parse_disconnect(long.as_bytes()),
        Code::BadMessage,
        "124 bytes",
    );

    let kick = KickBody {
        user: UserId::parse("u1").unwrap(),
        reason: None,
    };
    assert_eq!(parse_kick(br#"{"user":"u1"}"#), Ok(kick));
    refused(parse_kick(b"{}"), Code::BadUser, "user is missing");
    refused(
        parse_kick(br#"{"user":{"id":"u1"}}"#),
        Code::BadUser,
        "user must be a string",
    );
}

#[test]
fn a_room_is_patched_only_where_something_is_given() {
    let none = parse_room_patch(b"").unwrap();
    assert!(none.title.is_none() && none.access.is_none() && none.data.is_none());
    let patch = parse_room_patch(
        br#"{"title":" T ","access":"login","tick_ms":0,"deliver_per_s_max":30,"data":{}}"#,
    )
    .unwrap();
    assert_eq!(patch.title.as_deref(), Some("T"));
    assert_eq!(
        (patch.access, patch.tick_ms),
        (Some(Access::Login), Some(0))
    );
    assert_eq!(
        (patch.deliver_per_s_max, patch.data.unwrap().get()),
        (Some(30), "{}")
    );
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(ROOM_DATA_BYTES_MAX));
    for (body, says) in [
        (&*large, "data has 8194 bytes"),
        (
            r#"{"access":"open"}"#,
            "access must be public, login or private",
        ),
        (
            r#"{"tick_ms":10001}"#,
            "tick_ms must be a whole number from 0 to 10000",
        ),
        (
            r#"{"deliver_per_s_max":4294967296}"#,
            "deliver_per_s_max must be",
        ),
        (r#"{"title":[]}"#, "title must be a string"),
    ] {
        refused(parse_room_patch(body.as_bytes()), Code::BadMessage, says);
    }
}

#[test]
fn a_batch_keeps_its_order_and_its_bodies() {
    let batch = parse_batch(br#"{"requests":[{"method":"POST","path":"/api/v1/broadcast","body":{"a" :1}},{"method":"GET","path":"/x?y=%20"}]}"#).unwrap();
    let found: Vec<_> = batch
        .requests
        .iter()
        .map(|r| (&*r.method, &*r.path, r.body.map(RawValue::get)))
        .collect();
    assert_eq!(
        found,
        [
            ("POST", "/api/v1/broadcast", Some("{\"a\" :1}")),
            ("GET", "/x?y=%20", None)
        ]
    );
    let many = format!("{{\"requests\":[{}1]}}", "1,".repeat(100));
    for (body, says) in [
        ("{}", "requests is missing"),
        (r#"{"requests":[]}"#, "0 entries"),
        (&many, "101 entries"),
        (
            r#"{"requests":[1]}"#,
            "requests[0] must be a JSON object, found a number",
        ),
        (
            r#"{"requests":[{"path":"/"}]}"#,
            "requests[0].method is missing",
        ),
        (
            r#"{"requests":[{"method":"get","path":"/"}]}"#,
            "requests[0].method must be",
        ),
        (
            r#"{"requests":[{"method":"GET","path":"x"}]}"#,
            "requests[0].path must begin",
        ),
        (
            r#"{"requests":[{"method":"GET","path":"/ HTTP/1.1"}]}"#,
            "requests[0].path must begin",
        ),
    ] {
        refused(parse_batch(body.as_bytes()), Code::BadMessage, says);
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), json in "[\\[\\]{}\",:\\\\0-9a-z \n]{0,64}") {
        for body in [&bytes[..], json.as_bytes()] {
            let _ = (parse_push(body, 9), parse_broadcast(body), parse_disconnect(body));
            let _ = (parse_kick(body), parse_room_patch(body), parse_batch(body));
        }
    }

    #[test]
    fn data_means_the_same_and_stands_on_one_line(text in ANY_TEXT, number: i64) {
        let value = serde_json::json!({ "a": [&text, number, null, true], &text: {} });
        let body = format!("{{\n\"event\":\"e\",\r\n\"data\":{:#}}}", value);
        let data = parse_broadcast(body.as_bytes()).unwrap().data.unwrap();
        prop_assert!(!data.get().contains(['\n', '\r']));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(data.get()).unwrap(), value);
    }
}
