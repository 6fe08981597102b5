//! Tests of the writers: every message to the letter, and any string, id and `data` through them and back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{ANY_TEXT, Mode, client};
use super::*;
use crate::base::ids::UserId;
use crate::base::refusal::Code;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before").unwrap().to_owned()
}

fn room() -> RoomId {
    RoomId::parse("r:1").unwrap()
}

fn user(id: &str, name: &str) -> User {
    User {
        id: UserId::parse(id).unwrap(),
        name: name.into(),
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// The id of a ping that carried `json` as its id.
fn with_id<T>(json: &str, then: impl FnOnce(&str) -> T) -> T {
    let ping = format!("{{\"type\":\"ping\",\"id\":{json}}}");
    then(client::parse(&ping).unwrap().id.unwrap().as_raw())
}

#[test]
fn answers_are_written_to_the_letter() {
    let (room, epoch_) = (room(), Epoch(7));
    let answer = Joined {
        room: &room,
        online: 12,
        epoch: epoch_,
        seq: 9,
        recovered: false,
        messages: None,
    };
    with_id("1.0", |id| {
        let some = Some(id);
        let list = [Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")];
        let recovered = Joined {
            recovered: true,
            messages: Some(&list),
            ..answer
        };
        for (found, expected) in [
            (written(|o| pong(o, None, 5)), r#"{"type":"pong","ts":5}"#),
            (
                written(|o| pong(o, some, 5)),
                r#"{"type":"pong","id":1.0,"ts":5}"#,
            ),
            (
                written(|o| joined(o, some, &answer)),
                r#"{"type":"joined","id":1.0,"room":"r:1","online":12,"epoch":7,"seq":9,"recovered":false}"#,
            ),
            (
                written(|o| joined(o, None, &recovered)),
                r#"{"type":"joined","room":"r:1","online":12,"epoch":7,"seq":9,"recovered":true,"messages":[{"a":1},{}]}"#,
            ),
            (
                written(|o| {
                    joined(
                        o,
                        None,
                        &Joined {
                            messages: Some(&[]),
                            ..recovered
                        },
                    )
                }),
                r#"{"type":"joined","room":"r:1","online":12,"epoch":7,"seq":9,"recovered":true,"messages":[]}"#,
            ),
            (
                written(|o| left(o, some, &room, None)),
                r#"{"type":"left","id":1.0,"room":"r:1"}"#,
            ),
            (
                written(|o| left(o, None, &room, Some(("kicked", "be \"nice\"")))),
                r#"{"type":"left","room":"r:1","code":"kicked","reason":"be \"nice\""}"#,
            ),
            (
                written(|o| ack(o, id, &room, None, 3)),
                r#"{"type":"ack","id":1.0,"room":"r:1","seq":3}"#,
            ),
            (
                written(|o| ack(o, id, &room, Some(Epoch(7)), 3)),
                r#"{"type":"ack","id":1.0,"room":"r:1","epoch":7,"seq":3}"#,
            ),
            (
                written(|o| authed(o, some, 99)),
                r#"{"type":"authed","id":1.0,"exp":99}"#,
            ),
        ] {
            assert_eq!(found, expected);
        }
    });
}

fn danmaku(out: &mut Vec<u8>, room: &RoomId, seq: u64, line: &Line<'_>) {
    numbered(out, Numbered::Danmaku, room, seq);
    danmaku_rest(out, line);
}

fn event(out: &mut Vec<u8>, room: &RoomId, event: &Event<'_>) {
    numbered(out, Numbered::Event, room, 3);
    event_rest(out, event);
}

#[test]
fn news_are_written_to_the_letter() {
    let (room, viewer, data) = (room(), user("u1", "Ann"), raw("{\"n\" :1}"));
    let line = Line {
        ts_ms: 4,
        user: Some(&viewer),
        text: "6",
        style: None,
        data: None,
    };
    let style = Some(Style {
        color: 0x00a0ff,
        mode: Mode::Bottom,
        size: 64,
    });
    let gift = Event {
        ts_ms: 4,
        event: "gift",
        data: Some(&data),
    };
    for (found, expected) in [
        (
            written(|o| welcome(o, "c-1", Some(&viewer), 30_000, "g/1")),
            r#"{"type":"welcome","connection":"c-1","user":{"id":"u1","name":"Ann"},"heartbeat_ms":30000,"server":"g/1"}"#,
        ),
        (
            written(|o| welcome(o, "c-1", None, 30_000, "g/1")),
            r#"{"type":"welcome","connection":"c-1","user":null,"heartbeat_ms":30000,"server":"g/1"}"#,
        ),
        (
            written(|o| danmaku(o, &room, 3, &line)),
            r##"{"type":"danmaku","room":"r:1","seq":3,"ts":4,"user":{"id":"u1","name":"Ann"},"text":"6","style":{"color":"#ffffff","mode":"scroll","size":25}}"##,
        ),
        (
            written(|o| {
                danmaku(
                    o,
                    &room,
                    3,
                    &Line {
                        user: None,
                        style,
                        data: Some(&data),
                        ..line
                    },
                )
            }),
            r##"{"type":"danmaku","room":"r:1","seq":3,"ts":4,"user":null,"text":"6","style":{"color":"#00a0ff","mode":"bottom","size":64},"data":{"n" :1}}"##,
        ),
        (
            written(|o| event(o, &room, &gift)),
            r#"{"type":"event","room":"r:1","seq":3,"ts":4,"event":"gift","data":{"n" :1}}"#,
        ),
        (
            written(|o| event(o, &room, &Event { data: None, ..gift })),
            r#"{"type":"event","room":"r:1","seq":3,"ts":4,"event":"gift","data":null}"#,
        ),
        (
            written(|o| online(o, &room, 2)),
            r#"{"type":"online","room":"r:1","count":2}"#,
        ),
        (
            written(|o| dropped(o, &room, u64::MAX)),
            r#"{"type":"dropped","room":"r:1","count":18446744073709551615}"#,
        ),
        (
            written(|o| notice_reconnect(o, 800)),
            r#"{"type":"notice","code":"reconnect","retry_after_ms":800}"#,
        ),
        (
            written(|o| broadcast(o, "news", Some(&data), 4)),
            r#"{"type":"broadcast","event":"news","data":{"n" :1},"ts":4}"#,
        ),
        (
            written(|o| push(o, "mail", None, 4)),
            r#"{"type":"push","event":"mail","data":null,"ts":4}"#,
        ),
        (
            written(|o| epoch(o, &room, Epoch(8), 1)),
            r#"{"type":"epoch","room":"r:1","epoch":8,"seq":1}"#,
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn an_error_carries_the_facts_the_hint_and_the_time() {
    let refusal = Refusal::new(Code::RateLimited, "5 lines per second").retry(500);
    let found: Value = with_id("\"a\"", |id| {
        serde_json::from_str(&written(|o| error(o, Some(id), &refusal))).unwrap()
    });
    assert_eq!(
        found,
        json!({"type": "error", "id": "a", "code": "rate_limited", "message": "5 lines per second",
                   "hint": Code::RateLimited.hint(), "retry_after_ms": 500})
    );
    let found: Value = serde_json::from_str(&written(|o| {
        error(o, None, &Refusal::new(Code::BadRoom, "x"))
    }))
    .unwrap();
    assert!(found.get("id").is_none() && found.get("retry_after_ms").is_none());
}

#[test]
fn data_over_several_lines_goes_out_on_one() {
    let data = raw("{\n \"a b\": [1,\r\n 2]\n}");
    assert_eq!(
        written(|o| push(o, "x", Some(&data), 1)),
        r#"{"type":"push","event":"x","data":{"a b":[1,2]},"ts":1}"#
    );
}

#[test]
fn every_byte_that_needs_it_is_escaped_wherever_it_stands() {
    for code in 0..=0x100u32 {
        let c = char::from_u32(code).unwrap();
        for before in 0..18 {
            let text = format!(
                "{}{c}{}",
                "é".repeat(before / 2) + &"x".repeat(before),
                "y".repeat(before % 9)
            );
            let found = written(|o| string(o, &text));
            assert_eq!(serde_json::from_str::<String>(&found).unwrap(), text);
            assert!(found.bytes().all(|b| b >= 0x20), "{found:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_string_comes_back_and_no_newline_goes_out(
        text in ANY_TEXT, name in ANY_TEXT, id in "[^\\p{Cc}]{1,20}", seq: u64, ts_ms: u64
    ) {
        let (room, author) = (room(), user(&id, &name));
        let data = json!({ "t": &text });
        let spread = raw(&serde_json::to_string_pretty(&data).unwrap());
        let line = Line { ts_ms, user: Some(&author), text: &text, style: None, data: Some(&spread) };
        let found = written(|o| danmaku(o, &room, seq, &line));
        prop_assert!(!found.contains(['\n', '\r']));
        let value: Value = serde_json::from_str(&found).unwrap();
        prop_assert_eq!(value, json!({"type": "danmaku", "room": "r:1", "seq": seq, "ts": ts_ms,
            "user": {"id": id, "name": name}, "text": text,
            "style": {"color": "#ffffff", "mode": "scroll", "size": 25}, "data": data}));

        let refusal = Refusal::new(Code::BadText, text.clone());
        for found in [
            written(|o| welcome(o, &text, None, seq, &name)),
            written(|o| left(o, None, &room, Some((&text, &name)))),
            written(|o| error(o, None, &refusal)),
            written(|o| broadcast(o, &text, Some(&spread), ts_ms)),
        ] {
            prop_assert!(!found.contains(['\n', '\r']));
            prop_assert!(serde_json::from_str::<Value>(&found).is_ok_and(|v| v.is_object()), "{}", found);
        }
    }

    #[test]
    fn ids_are_echoed_byte_for_byte(id in "\"[ -!#-\\[\\]-~é弹]{0,20}\"|-?[1-9][0-9]{0,30}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?") {
        let found = with_id(&id, |echoed| written(|o| ack(o, echoed, &room(), None, 1)));
        prop_assert_eq!(found, format!("{{\"type\":\"ack\",\"id\":{id},\"room\":\"r:1\",\"seq\":1}}"));
    }
}
