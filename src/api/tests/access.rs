//! Routes, methods, listeners and callers: what is where, and for whom.

use super::*;

use crate::api::Special;

/// Every route with a body it takes: method, path, body, whether it is on the public listener too.
const ROUTES: &[(&str, &str, &str, bool)] = &[
    ("GET", "/healthz", "", true),
    (
        "POST",
        "/api/v1/danmaku/push",
        r#"{"room":"a","text":"x"}"#,
        true,
    ),
    ("GET", "/api/v1/rooms", "", true),
    ("GET", "/api/v1/rooms/a", "", true),
    ("GET", "/api/v1/rooms/a/history", "", true),
    ("PUT", "/api/v1/rooms/a", "{}", false),
    ("DELETE", "/api/v1/rooms/a", "", false),
    ("GET", "/api/v1/rooms/a/members", "", false),
    ("POST", "/api/v1/rooms/a/kick", r#"{"user":"u"}"#, false),
    ("POST", "/api/v1/broadcast", r#"{"event":"e"}"#, false),
    ("POST", "/api/v1/users/u/push", r#"{"event":"e"}"#, false),
    ("POST", "/api/v1/users/u/disconnect", "", false),
    (
        "POST",
        "/api/v1/batch",
        r#"{"requests":[{"method":"GET","path":"/healthz"}]}"#,
        false,
    ),
    ("GET", "/api/v1/info", "", false),
];

#[test]
fn every_route_stands_where_it_belongs() {
    let api = Api::new();
    let key = format!("X-Api-Key: {KEY}");
    for (method, path, body, public) in ROUTES {
        let line = format!("{method} {path}");
        let reply = api.internal(&line, body);
        assert_eq!(reply.status, 200, "{line}: {:?}", reply.body);
        let reply = api.public(&line, &[&key], body);
        match public {
            true => assert_eq!(reply.status, 200, "{line}"),
            false => refuses(&reply, Code::NotFound),
        }
    }
}

#[test]
fn the_internal_listener_wants_an_api_key_for_all_but_health_and_metrics() {
    let api = Api::anonymous(Anonymous::Speak);
    let token = api.token("u", Role::Admin);
    for (method, path, body, _) in ROUTES.iter().filter(|(_, path, ..)| *path != "/healthz") {
        let line = format!("{method} {path}");
        for headers in [
            &[][..],
            &[token.as_str()],
            &["X-Api-Key: wrong"],
            &["X-Api-Key:"],
            &["Authorization: Bearer wrong"],
            &["Authorization: Basic d3Jvbmc="],
            &["Authorization: Bearer"],
        ] {
            let reply = api.call(Listener::Internal, &line, headers, body);
            refuses(&reply, Code::ApiKeyRequired);
            assert_eq!(header(&reply, "WWW-Authenticate"), Some("Bearer"));
        }
        let in_query = format!("{line}?token={KEY}");
        let reply = api.call(Listener::Internal, &in_query, &[], body);
        refuses(&reply, Code::ApiKeyRequired);
        let bearer = format!("Authorization: bearer {KEY}");
        let reply = api.call(Listener::Internal, &line, &[&bearer], body);
        assert_eq!(reply.status, 200, "{line}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (_, progress) = api.begin(Listener::Internal, &format!("GET {path}"), &[], "");
        let open = match progress {
            Progress::Done(reply) => reply.status == 200,
            Progress::Special(_) => true,
            Progress::Ask(_) => false,
        };
        assert!(open, "{path}");
    }
}

#[test]
fn what_the_reactor_answers_is_handed_to_it() {
    let api = Api::new();
    let special = |listener, line: &str| match api.begin(listener, line, &[], "").1 {
        Progress::Special(special) => Some(special),
        _ => None,
    };
    for listener in [Listener::Public, Listener::Internal] {
        assert_eq!(special(listener, "GET /readyz"), Some(Special::Ready));
        assert_eq!(special(listener, "HEAD /readyz"), Some(Special::Ready));
    }
    assert_eq!(
        special(Listener::Internal, "GET /metrics?x=1"),
        Some(Special::Metrics)
    );
    refuses(&api.public("GET /metrics", &[], ""), Code::NotFound);
}

#[test]
fn a_bad_credential_is_never_taken_for_none() {
    let api = Api::anonymous(Anonymous::Speak);
    let line = r#"{"room":"a","text":"x"}"#;
    let token = api.bare_token("u", Role::Viewer);
    let foreign = Api::with(|config| {
        config.auth.keys[0].material = KeyMaterial::Secret(vec![7; 40]);
    });
    for bearer in [
        "nonsense",
        "a.b.c",
        &foreign.bare_token("u", Role::Admin),
        &token[1..],
    ] {
        let bearer = format!("Authorization: Bearer {bearer}");
        let reply = api.public("POST /api/v1/danmaku/push", &[&bearer], line);
        refuses(&reply, Code::TokenInvalid);
        assert_eq!(header(&reply, "WWW-Authenticate"), Some("Bearer"));
        refuses(
            &api.public("GET /api/v1/rooms", &[&bearer], ""),
            Code::TokenInvalid,
        );
    }
    let wrong_key = api.public("GET /api/v1/rooms", &["X-Api-Key: wrong"], "");
    refuses(&wrong_key, Code::ApiKeyRequired);
    let basic = api.public("GET /api/v1/rooms", &["Authorization: Basic eA=="], "");
    refuses(&basic, Code::TokenInvalid);
    refuses(
        &api.public("GET /api/v1/rooms?token=x", &[], ""),
        Code::TokenInvalid,
    );
    refuses(
        &api.public("GET /api/v1/rooms?token=%", &[], ""),
        Code::BadRequest,
    );
    // Health is for whoever asks, with whatever header a prober sends.
    assert_eq!(
        api.public("GET /healthz", &["Authorization: Bearer x"], "")
            .status,
        200
    );
}

#[test]
fn an_expired_token_says_so() {
    let api = Api::new();
    let claims = MintClaims {
        user: "u",
        name: None,
        rooms: &[],
        role: Role::Viewer,
        ttl_s: 1,
        now_unix_s: NOW_MS / 1000 - 60,
    };
    let token = mint(&api.policy.config.auth, &claims).unwrap();
    let bearer = format!("Authorization: Bearer {token}");
    let reply = api.public("GET /api/v1/rooms", &[&bearer], "");
    refuses(&reply, Code::TokenExpired);
}

#[test]
fn whoever_sends_two_credentials_does_not_know_who_they_are() {
    let api = Api::new();
    let (a, b) = (api.token("a", Role::Viewer), api.token("b", Role::Viewer));
    let key = format!("X-Api-Key: {KEY}");
    for headers in [[&*a, &*b], [&*a, &*key]] {
        let reply = api.public("GET /api/v1/rooms", &headers, "");
        refuses(&reply, Code::BadRequest);
    }
    let other = api.bare_token("b", Role::Viewer);
    let reply = api.public(&format!("GET /api/v1/rooms?token={other}"), &[&a], "");
    refuses(&reply, Code::BadRequest);
    let same = format!("Authorization: Bearer {KEY}");
    let reply = api.public("GET /api/v1/rooms", &[&key, &same], "");
    assert_eq!(reply.status, 200);
}

#[test]
fn a_token_in_the_address_reads_and_never_acts() {
    let api = Api::new();
    let token = api.bare_token("u", Role::Viewer);
    let get = api.public(&format!("GET /api/v1/rooms/login?token={token}"), &[], "");
    assert_eq!(get.status, 200);
    let line = r#"{"room":"a","text":"x"}"#;
    let push = api.public(
        &format!("POST /api/v1/danmaku/push?token={token}"),
        &[],
        line,
    );
    refuses(&push, Code::TokenMissing);
    // An API key there would end up in logs.
    let keyed = api.public(&format!("GET /api/v1/rooms?token={KEY}"), &[], "");
    refuses(&keyed, Code::TokenInvalid);
}

#[test]
fn unknown_paths_and_methods_are_told() {
    let api = Api::new();
    for line in [
        "GET /nowhere",
        "GET /api/v1",
        "GET /api/v1/rooms/",
        "GET /api/v1/rooms/a/",
        "GET /api/v1/rooms/a/b/c",
        "GET //healthz",
        "GET /api/v1/danmaku/stream",
        "GET /api/v1/danmaku/stream?room=a",
        "POST /api/v1/rooms/a/mute",
        "PUT /api/v1/rooms/a",
        "DELETE /api/v1/rooms/a",
        "OPTIONS /nowhere",
        "OPTIONS /api/v1/broadcast",
    ] {
        refuses(&api.public(line, &[], ""), Code::NotFound);
    }
    refuses(
        &api.internal("GET /api/v1/danmaku/stream", ""),
        Code::NotFound,
    );
    for (line, allow) in [
        ("GET /api/v1/danmaku/push", "POST, OPTIONS"),
        ("POST /api/v1/rooms", "GET, HEAD, OPTIONS"),
        ("PATCH /api/v1/rooms/a", "GET, HEAD, OPTIONS"),
        ("DELETE /", "GET, HEAD, OPTIONS"),
    ] {
        let reply = api.public(line, &[], "");
        refuses(&reply, Code::MethodNotAllowed);
        assert_eq!(header(&reply, "Allow"), Some(allow), "{line}");
    }
    let reply = api.internal("PATCH /api/v1/rooms/a", "");
    refuses(&reply, Code::MethodNotAllowed);
    assert_eq!(
        header(&reply, "Allow"),
        Some("GET, HEAD, PUT, DELETE, OPTIONS")
    );
}

#[test]
fn head_is_routed_like_get() {
    let api = Api::new();
    for path in ["/healthz", "/api/v1/rooms/a", "/api/v1/rooms"] {
        let head = api.public(&format!("HEAD {path}"), &[], "");
        let get = api.public(&format!("GET {path}"), &[], "");
        assert_eq!(head, get, "{path}");
    }
}

#[test]
fn health_and_the_front_door() {
    let api = Api::new();
    succeeds(&api.public("GET /healthz", &[], ""), json!({"status":"ok"}));
    let page = api.public("GET /", &[], "");
    assert_eq!(page.status, 200);
    assert_eq!(page.content_type, Some("text/html; charset=utf-8"));
    assert_eq!(api.public("GET /stage.css", &[], "").status, 200);
    refuses(&api.public("POST /stage.css", &[], ""), Code::NotFound);
    let without = Api::with(|config| config.server.demo_page = false);
    refuses(&without.public("GET /stage.css", &[], ""), Code::NotFound);
    let reply = without.public("GET /", &[], "");
    refuses(&reply, Code::NotFound);
    let reason = super::body(&reply)["reason"].to_string();
    assert!(
        reason.contains("/ws") && reason.contains("docs/PROTOCOL.md"),
        "{reason}"
    );
    refuses(&api.internal("GET /", ""), Code::NotFound);
}

#[test]
fn the_access_log_knows_who_and_never_the_token() {
    let api = Api::new();
    let facts = |listener, line: &str, headers: &[&str]| {
        let (exchange, _) = api.begin(listener, line, headers, "");
        assert_eq!(exchange.listener(), listener);
        let facts = exchange.facts();
        format!("{} {} {}", facts.method, facts.path, facts.caller)
    };
    let token = api.bare_token("u1", Role::Viewer);
    let line = format!("GET /api/v1/rooms/a?token={token}");
    assert_eq!(
        facts(Listener::Public, &line, &[]),
        "GET /api/v1/rooms/a user:u1"
    );
    let key = format!("X-Api-Key: {KEY}");
    assert_eq!(
        facts(Listener::Internal, "HEAD /api/v1/info", &[&key]),
        "HEAD /api/v1/info key:shop"
    );
    assert_eq!(
        facts(Listener::Public, "GET /nowhere", &[]),
        "GET /nowhere anonymous"
    );
    let (exchange, _) = api.begin(Listener::Public, &line, &[], "");
    assert!(!format!("{exchange:?}").contains(&token));
}
