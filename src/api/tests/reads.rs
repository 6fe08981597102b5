//! Reading rooms: list, detail, history, members; who sees what.

use super::*;

#[test]
fn a_room_is_shown_to_the_letter() {
    let api = Api::new();
    let reply = api.public("GET /api/v1/rooms/a", &[], "");
    succeeds(&reply, shown("a", 3, "public"));
    // The platform's own JSON goes out byte for byte.
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains(r#""data":{"host": 1.50}"#), "{text}");
    let encoded = api.public("GET /api/v1/rooms/%61", &[], "");
    succeeds(&encoded, shown("a", 3, "public"));
}

#[test]
fn rooms_follow_their_access_for_all_but_api_keys() {
    let api = Api::new();
    let token = api.token("u", Role::Viewer);
    let admin = api.token("u", Role::Admin);
    for of in ["", "/history"] {
        let get = |room: &str, headers: &[&str]| {
            api.public(&format!("GET /api/v1/rooms/{room}{of}"), headers, "")
        };
        refuses(&get("login", &[]), Code::LoginRequired);
        assert_eq!(get("login", &[&token]).status, 200);
        refuses(&get("private", &[&token]), Code::RoomForbidden);
        assert_eq!(get("private", &[&admin]).status, 200);
        let key = format!("X-Api-Key: {KEY}");
        assert_eq!(get("private", &[&key]).status, 200);
        assert_eq!(
            api.internal(&format!("GET /api/v1/rooms/private{of}"), "")
                .status,
            200
        );
        refuses(&get("nowhere", &[]), Code::RoomNotFound);
        refuses(&get("%20", &[]), Code::BadRoom);
        refuses(&get("%zz", &[]), Code::BadRequest);
        refuses(&get("a%2Fb", &[]), Code::BadRoom);
    }
    let deny = Api::anonymous(Anonymous::Deny);
    for path in ["rooms", "rooms/a", "rooms/a/history"] {
        let reply = deny.public(&format!("GET /api/v1/{path}"), &[], "");
        refuses(&reply, Code::TokenMissing);
        let query = deny.bare_token("u", Role::Viewer);
        let reply = deny.public(&format!("GET /api/v1/{path}?token={query}"), &[], "");
        assert_eq!(reply.status, 200, "{path}");
    }
}

#[test]
fn the_list_is_by_viewers_then_by_name() {
    let api = Api::new();
    let reply = api.internal("GET /api/v1/rooms", "");
    let rooms = json!([
        shown("a", 5, "public"),
        shown("b", 5, "public"),
        shown("private", 4, "private"),
        shown("login", 2, "login"),
        shown("c", 1, "public"),
    ]);
    succeeds(&reply, json!({"rooms": rooms, "next": null}));
}

#[test]
fn the_list_is_paged_without_gap_or_repetition() {
    let api = Api::new();
    for limit in 1..=6 {
        let mut names = Vec::new();
        let mut after = String::new();
        for _ in 0..6 {
            let line = format!("GET /api/v1/rooms?limit={limit}{after}");
            let page = super::body(&api.internal(&line, ""));
            let rooms = page["rooms"].as_array().unwrap();
            names.extend(rooms.iter().map(|room| room["room"].clone()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            assert_eq!(rooms.len(), limit);
            after = format!("&after={}", next.replace(':', "%3A"));
        }
        assert_eq!(names, ["a", "b", "private", "login", "c"], "limit {limit}");
    }
}

#[test]
fn the_list_hides_what_the_caller_may_not_enter() {
    let api = Api::new();
    let names = |headers: &[&str], query: &str| {
        let page = super::body(&api.public(&format!("GET /api/v1/rooms{query}"), headers, ""));
        let rooms = page["rooms"].as_array().unwrap().iter();
        let names: Vec<Value> = rooms.map(|room| room["room"].clone()).collect();
        (names, page["next"].clone())
    };
    let token = api.token("u", Role::Viewer);
    assert_eq!(names(&[], "").0, ["a", "b", "c"]);
    assert_eq!(names(&[&token], "").0, ["a", "b", "login", "c"]);
    let (page, next) = names(&[], "?limit=3");
    assert_eq!(
        (page, next),
        (vec![json!("a"), json!("b")], json!("4:private"))
    );
    assert_eq!(
        names(&[], "?limit=3&after=4:private"),
        (vec![json!("c")], Value::Null)
    );
}

#[test]
fn history_splices_its_messages_in() {
    let api = Api::new();
    let get = |query: &str| api.public(&format!("GET /api/v1/rooms/a/history{query}"), &[], "");
    let message = |seq: u64| json!({"seq": seq, "text": "é"});
    succeeds(
        &get("?since=4&limit=2"),
        json!({"room":"a","epoch":9,"seq":7,"messages":[message(5), message(6)]}),
    );
    succeeds(
        &get("?since=7"),
        json!({"room":"a","epoch":9,"seq":7,"messages":[]}),
    );
    assert_eq!(
        super::body(&get(""))["messages"].as_array().unwrap().len(),
        7
    );
    let asks = |query: &str| {
        let line = format!("GET /api/v1/rooms/a/history{query}");
        let question = api.asks(Listener::Public, &line, &[], "").remove(0);
        match question {
            Question::Room {
                ask: RoomAsk::Admit { who: None, then },
                ..
            } => match *then {
                RoomAsk::History { since, limit } => (since, limit),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asks(""), (None, 50));
    assert_eq!(asks("?since=0&limit=1000"), (Some(0), 1000));
    let max = u64::MAX;
    assert_eq!(asks(&format!("?since={max}")), (Some(max), 50));
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=%2B5",
        "since=-1",
        "since=1e3",
    ] {
        refuses(&get(&format!("?{bad}")), Code::BadRequest);
    }
    refuses(&get("?since=18446744073709551616"), Code::BadRequest);
    refuses(&get("?limit=%"), Code::BadRequest);
}

#[test]
fn members_are_for_back_ends() {
    let api = Api::new();
    let reply = api.internal("GET /api/v1/rooms/a/members?limit=7&after=u%200", "");
    succeeds(
        &reply,
        json!({"members":[
            {"user":{"id":"u1","name":"7 Some(\"u 0\")"},"connections":2,"joined":5},
            {"user":null,"connections":4,"joined":6},
        ],"next":"u1"}),
    );
    let key = format!("X-Api-Key: {KEY}");
    let reply = api.public("GET /api/v1/rooms/a/members", &[&key], "");
    refuses(&reply, Code::NotFound);
}

#[test]
fn a_bad_cursor_or_limit_is_told() {
    let api = Api::new();
    for query in [
        "after=",
        "after=x",
        "after=1",
        "after=x:a",
        "after=1:a%20b",
        "after=-1:a",
        "limit=1001",
    ] {
        let reply = api.internal(&format!("GET /api/v1/rooms?{query}"), "");
        refuses(&reply, Code::BadRequest);
    }
}

#[test]
fn a_shard_that_refuses_spoils_the_list() {
    let api = Api::new();
    let ctx = api.ctx(Listener::Public);
    let (mut exchange, progress) = api.begin(Listener::Public, "GET /api/v1/rooms", &[], "");
    let mut busy = |question: &Question, shard: usize| match shard {
        0 => Err(Refusal::new(Code::Busy, "full").retry(300)),
        _ => answer(question, shard),
    };
    let reply = finish(&mut exchange, progress, &ctx, &mut busy);
    refuses(&reply, Code::Busy);
    assert_eq!(super::body(&reply)["retry_after_ms"], 300);
}
