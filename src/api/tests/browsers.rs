//! Cross-origin requests: preflights, answers, and what a foreign page may not do.

use super::*;

const GOOD: &str = "Origin: https://live.example";
const EVIL: &str = "Origin: https://evil.example";
const PREFLIGHT: &str = "Access-Control-Request-Method: POST";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

#[test]
fn a_listed_page_may_ask_and_read() {
    let api = Api::new();
    let reply = api.public("OPTIONS /api/v1/danmaku/push", &[GOOD, PREFLIGHT], "");
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(header(&reply, ALLOW_ORIGIN), Some("https://live.example"));
    assert_eq!(header(&reply, "Vary"), Some("Origin"));
    assert_eq!(
        header(&reply, "Access-Control-Allow-Methods"),
        Some("POST, OPTIONS")
    );
    assert_eq!(
        header(&reply, "Access-Control-Allow-Headers"),
        Some("Authorization, Content-Type, Idempotency-Key, X-Api-Key")
    );
    assert_eq!(header(&reply, "Access-Control-Max-Age"), Some("600"));
    // A preflight carries no credentials, so none are asked for.
    let deny = Api::anonymous(Anonymous::Deny);
    let reply = deny.public("OPTIONS /api/v1/rooms/a", &[GOOD, PREFLIGHT], "");
    assert_eq!(reply.status, 204);
    assert_eq!(
        header(&reply, "Access-Control-Allow-Methods"),
        Some("GET, HEAD, OPTIONS")
    );
}

#[test]
fn every_answer_to_a_listed_page_can_be_read_by_it() {
    let api = Api::new();
    let token = api.token("u", Role::Viewer);
    let line = r#"{"room":"a","text":"x"}"#;
    for (status, reply) in [
        (200, api.public("GET /api/v1/rooms/a", &[GOOD], "")),
        (200, api.public("GET /api/v1/rooms", &[GOOD], "")),
        (
            200,
            api.public("POST /api/v1/danmaku/push", &[GOOD, &token], line),
        ),
        (
            400,
            api.public("POST /api/v1/danmaku/push", &[GOOD, &token], "{"),
        ),
        (401, api.public("POST /api/v1/danmaku/push", &[GOOD], line)),
        (403, api.public("GET /api/v1/rooms/login", &[GOOD], "")),
        (404, api.public("GET /nowhere", &[GOOD], "")),
        (405, api.public("PUT /api/v1/danmaku/push", &[GOOD], "")),
    ] {
        assert_eq!(reply.status, status);
        assert_eq!(header(&reply, ALLOW_ORIGIN), Some("https://live.example"));
        assert_eq!(header(&reply, "Vary"), Some("Origin"));
    }
    let ctx = api.ctx(Listener::Public);
    let (mut exchange, _) = api.begin(Listener::Public, "GET /api/v1/rooms/a", &[GOOD], "");
    let reply = exchange.timed_out(&ctx);
    assert_eq!(header(&reply, ALLOW_ORIGIN), Some("https://live.example"));
}

#[test]
fn a_foreign_page_reads_blindly_and_acts_on_nothing() {
    let api = Api::new();
    let token = api.token("u", Role::Viewer);
    let key = format!("X-Api-Key: {KEY}");
    let line = r#"{"room":"a","text":"x"}"#;
    for credentials in [&*token, &*key] {
        let reply = api.public("POST /api/v1/danmaku/push", &[EVIL, credentials], line);
        refuses(&reply, Code::OriginDenied);
        assert_eq!(header(&reply, ALLOW_ORIGIN), None);
    }
    let reply = api.public("OPTIONS /api/v1/danmaku/push", &[EVIL, PREFLIGHT], "");
    refuses(&reply, Code::OriginDenied);
    let reply2 = api.public("GET /api/v1/rooms/a", &[EVIL], "");
    assert_eq!(reply2.status, 200);
    for reply in [reply, reply2] {
        let cors = |name: &str| name.to_ascii_lowercase().starts_with("access-control");
        assert!(!reply.headers.iter().any(|(name, _)| cors(name)));
        assert_eq!(header(&reply, "Vary"), Some("Origin"));
    }
}

#[test]
fn the_gateways_own_page_is_no_stranger() {
    let api = Api::with(|config| {
        config.auth.origins = Origins::Same;
        config.auth.anonymous = Anonymous::Speak;
    });
    let line = r#"{"room":"a","text":"x"}"#;
    let own = "Origin: http://gateway.example";
    let reply = api.public("POST /api/v1/danmaku/push", &[own], line);
    assert_eq!(reply.status, 200);
    refuses(
        &api.public("POST /api/v1/danmaku/push", &[GOOD], line),
        Code::OriginDenied,
    );
    refuses(
        &api.public("POST /api/v1/danmaku/push", &["Origin: null"], line),
        Code::OriginDenied,
    );
    let any = Api::with(|config| config.auth.origins = Origins::Any);
    let reply = any.public("GET /api/v1/rooms", &["Origin: null"], "");
    assert_eq!(header(&reply, ALLOW_ORIGIN), Some("null"));
}

#[test]
fn without_a_page_there_is_nothing_to_tell() {
    let api = Api::new();
    let reply = api.public("GET /api/v1/rooms/a", &[], "");
    assert!(reply.headers.is_empty(), "{:?}", reply.headers);
    let reply = api.public("OPTIONS /api/v1/rooms/a", &[], "");
    assert_eq!(reply.status, 204);
    assert_eq!(header(&reply, "Allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(header(&reply, "Access-Control-Allow-Methods"), None);
    let reply = api.public("OPTIONS *", &[], "");
    assert_eq!(reply.status, 204);
    let twice = api.public("GET /api/v1/rooms/a", &[GOOD, EVIL], "");
    refuses(&twice, Code::BadRequest);
}

#[test]
fn the_internal_listener_knows_no_pages() {
    let api = Api::new();
    let key = format!("X-Api-Key: {KEY}");
    for headers in [[GOOD, &key], [EVIL, &key]] {
        let reply = api.call(Listener::Internal, "GET /api/v1/rooms/a", &headers, "");
        assert_eq!((reply.status, reply.headers.len()), (200, 0));
    }
    let reply = api.call(
        Listener::Internal,
        "OPTIONS /api/v1/broadcast",
        &[GOOD, PREFLIGHT],
        "",
    );
    refuses(&reply, Code::MethodNotAllowed);
    assert_eq!(header(&reply, ALLOW_ORIGIN), None);
}
