//! Batches: order, authority, what has no place in one, timeouts.

use super::*;

use crate::api::batch::ANSWER_BYTES_MAX;

const BATCH: &str = "POST /api/v1/batch";

fn responses(reply: &Reply) -> Vec<(u64, Value)> {
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let body = super::body(reply);
    let responses = body["responses"].as_array().unwrap().iter();
    responses
        .map(|r| (r["status"].as_u64().unwrap(), r["body"].clone()))
        .collect()
}

#[test]
fn entries_run_one_after_the_other() {
    let api = Api::new();
    let body = json!({"requests":[
        {"method":"PUT","path":"/api/v1/rooms/a","body":{"title":"A"}},
        {"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"a","text":"one","user":{"id":"bot"}}},
        {"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"a","text":""}},
        {"method":"GET","path":"/api/v1/rooms/private/history?since=6"},
        {"method":"GET","path":"/nowhere"},
        {"method":"POST","path":"/api/v1/danmaku/push","body":{"rooms":["a","?"],"text":"x"}},
        {"method":"DELETE","path":"/api/v1/rooms/a"},
        {"method":"GET","path":"/healthz"},
        {"method":"GET","path":"/api/v1/info"},
        {"method":"GET","path":"/api/v1/rooms/full"},
    ]})
    .to_string();
    let key = format!("X-Api-Key: {KEY}");
    let (mut exchange, progress) = api.begin(Listener::Internal, BATCH, &[&key], &body);
    let mut asked = Vec::new();
    let mut node = |question: &Question, shard: usize| {
        asked.push(match question {
            Question::Room { room, ask } => {
                let ask = format!("{ask:?}");
                let end = ask
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(ask.len());
                format!("{} {room}", &ask[..end])
            }
            Question::Publish { room, .. } => format!("Publish {room}"),
            Question::Node(_) => format!("Node {shard}"),
        });
        answer(question, shard)
    };
    let ctx = api.ctx(Listener::Internal);
    let reply = finish(&mut exchange, progress, &ctx, &mut node);
    assert_eq!(
        asked,
        [
            "Put a",
            "Publish a",
            "History private",
            "Publish a",
            "Close a",
            "Node 0",
            "Node 1",
            "Detail full",
        ]
    );
    let responses = responses(&reply);
    let statuses: Vec<u64> = responses.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 400, 200, 404, 200, 200, 200, 200, 503]);
    assert_eq!(responses[0].1, shown("a", 3, "public"));
    assert_eq!(responses[1].1, json!({"room":"a","seq":7,"epoch":9}));
    assert_eq!(responses[2].1["code"], "bad_text");
    assert_eq!(responses[3].1["messages"], json!([{"seq":7,"text":"é"}]));
    assert_eq!(responses[5].1["results"][1]["code"], "bad_room");
    assert_eq!(responses[6].1, json!({"room":"a","connections":2}));
    assert_eq!(responses[7].1, json!({"status":"ok"}));
    assert_eq!(responses[8].1["connections"], 21);
    assert_eq!(responses[9].1["retry_after_ms"], 1000);
}

#[test]
fn what_has_no_place_in_a_batch_is_refused_entry_by_entry() {
    let api = Api::new();
    let inner = json!({"requests":[{"method":"GET","path":"/healthz"}]});
    let entries = [
        (
            json!({"method":"POST","path":"/api/v1/batch","body":inner}),
            400,
        ),
        (json!({"method":"GET","path":"/metrics"}), 400),
        (json!({"method":"GET","path":"/readyz"}), 400),
        (json!({"method":"OPTIONS","path":"/healthz"}), 400),
        (json!({"method":"BREW","path":"/healthz"}), 501),
        (json!({"method":"POST","path":"/healthz"}), 405),
        (json!({"method":"GET","path":"/"}), 404),
        (json!({"method":"GET","path":"/ws"}), 404),
        (json!({"method":"GET","path":"/api/v1/rooms/%20"}), 400),
        (json!({"method":"POST","path":"/api/v1/broadcast"}), 400),
        (json!({"method":"GET","path":"/healthz","body":null}), 200),
    ];
    let requests: Vec<&Value> = entries.iter().map(|(entry, _)| entry).collect();
    let reply = api.internal(BATCH, &json!({ "requests": requests }).to_string());
    for ((entry, status), (found, body)) in entries.iter().zip(responses(&reply)) {
        assert_eq!(*status, found, "{entry}: {body}");
    }
}

#[test]
fn a_batch_is_bounded_and_checked_as_a_whole() {
    let api = Api::new();
    let batch = |count: usize| {
        let requests = vec![json!({"method":"GET","path":"/healthz"}); count];
        api.internal(BATCH, &json!({ "requests": requests }).to_string())
    };
    assert_eq!(responses(&batch(100)).len(), 100);
    refuses(&batch(101), Code::BadMessage);
    refuses(&batch(0), Code::BadMessage);
    refuses(&api.internal(BATCH, ""), Code::BadMessage);
    let bad = r#"{"requests":[{"method":"GET","path":"healthz"}]}"#;
    refuses(&api.internal(BATCH, bad), Code::BadMessage);
}

#[test]
fn answers_that_grow_too_long_are_cut_entry_by_entry() {
    let api = Api::new();
    let requests = vec![json!({"method":"GET","path":"/api/v1/rooms/a/history"}); 3];
    let body = json!({ "requests": requests }).to_string();
    let key = format!("X-Api-Key: {KEY}");
    let (mut exchange, progress) = api.begin(Listener::Internal, BATCH, &[&key], &body);
    let mut sizes = [ANSWER_BYTES_MAX / 2, ANSWER_BYTES_MAX / 2, 10].into_iter();
    let mut node = |_: &Question, _: usize| {
        let text = format!("\"{}\"", "x".repeat(sizes.next().unwrap()));
        Ok(Answer::History(Box::new(HistoryPage {
            epoch: Epoch(1),
            seq: 1,
            messages: vec![text.into()],
        })))
    };
    let ctx = api.ctx(Listener::Internal);
    let reply = finish(&mut exchange, progress, &ctx, &mut node);
    let statuses: Vec<u64> = responses(&reply).iter().map(|(s, _)| *s).collect();
    assert_eq!(statuses, [200, 413, 200]);
}

#[test]
fn a_batch_sent_again_repeats_no_line() {
    let api = Api::new();
    let push =
        json!({"method":"POST","path":"/api/v1/danmaku/push","body":{"room":"a","text":"x"}});
    let body = json!({"requests":[push, push]}).to_string();
    let keys = || {
        let headers = [&*format!("X-Api-Key: {KEY}"), "Idempotency-Key: k"];
        let (mut exchange, progress) = api.begin(Listener::Internal, BATCH, &headers, &body);
        let mut keys = Vec::new();
        let mut node = |question: &Question, shard: usize| {
            if let Question::Publish { publish, .. } = question {
                keys.push(publish.once.clone().unwrap());
            }
            answer(question, shard)
        };
        let ctx = api.ctx(Listener::Internal);
        finish(&mut exchange, progress, &ctx, &mut node);
        keys
    };
    let first = keys();
    assert_ne!(first[0].key, first[1].key, "two lines are meant");
    assert_eq!(first, keys());
}

#[test]
fn a_timeout_ends_the_batch_where_it_stands() {
    let api = Api::new();
    let get = |room: &str| json!({"method":"GET","path":format!("/api/v1/rooms/{room}")});
    let body = json!({"requests":[get("a"), get("b"), get("c")]}).to_string();
    let key = format!("X-Api-Key: {KEY}");
    let ctx = api.ctx(Listener::Internal);
    let (mut exchange, progress) = api.begin(Listener::Internal, BATCH, &[&key], &body);
    let Progress::Ask(questions) = progress else {
        panic!("{progress:?}")
    };
    let next = exchange.answered(0, answer(&questions[0], 0), &ctx);
    assert!(matches!(next, Some(Progress::Ask(_))));
    let reply = exchange.timed_out(&ctx);
    let responses = responses(&reply);
    let statuses: Vec<u64> = responses.iter().map(|(s, _)| *s).collect();
    assert_eq!(statuses, [200, 504, 504]);
    assert_ne!(responses[1].1["reason"], responses[2].1["reason"]);
    assert!(
        exchange
            .answered(0, answer(&questions[0], 0), &ctx)
            .is_none()
    );
}
