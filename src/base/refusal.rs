//! A refusal says code, reason, hint and when to come back. One table holds every code, its HTTP status and its hint,
//! so that the WebSocket error, the HTTP body, the metric label and `docs/PROTOCOL.md` cannot drift apart.

use std::borrow::Cow;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $hint:literal;)*) => {
        /// Why something was refused. The word is part of the public contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The snake_case word clients branch on.
            pub fn as_str(self) -> &'static str { match self { $(Code::$name => $word,)* } }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 { match self { $(Code::$name => $status,)* } }

            /// What the person who met it can do.
            pub fn hint(self) -> &'static str { match self { $(Code::$name => $hint,)* } }
        }
    };
}

codes! {
    // Admission and auth.
    /// More new connections per second than `admission.accepts_per_s`.
    AcceptRate = "accept_rate", 429, "come back after retry_after_ms; the node admits admission.accepts_per_s new viewers a second";
    /// `admission.connections_max` reached.
    ConnectionsFull = "connections_full", 503, "come back after retry_after_ms or try another node; `danmaku doctor` on the node says what bounds it";
    /// `admission.handshakes_max` reached.
    HandshakesFull = "handshakes_full", 503, "come back after retry_after_ms; too many are entering at once";
    /// `admission.per_address_max` reached.
    AddressFull = "address_full", 429, "close a connection from this address first, or raise admission.per_address_max";
    /// The browser's Origin is not on the list.
    OriginDenied = "origin_denied", 403, "add this page's origin to auth.origins (or DANMAKU_AUTH__ORIGINS), as the reason has it";
    /// No token where one is required.
    TokenMissing = "token_missing", 401, "send a token as Authorization: Bearer, ?token= or the subprotocol entry bearer.TOKEN; `danmaku token --user me` mints one";
    /// A token that does not verify.
    TokenInvalid = "token_invalid", 401, "the token must be signed with a key of auth.keys; `danmaku token --user me`, run with this node's --config or DANMAKU_AUTH__SECRET, mints one";
    /// A token past `exp`, or before `nbf`.
    TokenExpired = "token_expired", 401, "get a new token; `danmaku token --user me --ttl 24h` mints one";
    /// Neither of the API keys, or none sent.
    ApiKeyRequired = "api_key_required", 401, "send one of the api_keys as Authorization: Bearer KEY or X-Api-Key";
    /// A room that needs a token, asked for without one.
    LoginRequired = "login_required", 403, "connect with a token; `danmaku token --user me` mints one";
    /// A room the token does not name.
    RoomForbidden = "room_forbidden", 403, "the token's rooms claim must name this room; `danmaku token --user me --room ROOM` mints one that does";
    /// Not allowed to do this.
    Forbidden = "forbidden", 403, "this needs another role or an API key";
    /// Anonymous viewers may only watch.
    SpeakForbidden = "speak_forbidden", 403, "anonymous viewers may only watch here: connect with a token";
    /// The node is draining.
    Draining = "draining", 503, "come back after retry_after_ms; another node will take you";
    /// The node is cut off from its cluster.
    CutOff = "cut_off", 503, "viewers here go on; new ones do better on a node that reaches Redis. `danmaku doctor` says what is wrong with it";
    /// The node is overloaded.
    Overloaded = "overloaded", 503, "come back after retry_after_ms";

    // WebSocket handshake.
    /// A plain request to the WebSocket address.
    UpgradeRequired = "upgrade_required", 426, "this address speaks WebSocket: connect with a WebSocket client, version 13, like `npx wscat -c ws://HOST:PORT/ws?room=1001`";
    /// An upgrade that RFC 6455 section 4.2.1 does not allow.
    BadHandshake = "bad_handshake", 400, "see RFC 6455 section 4.2.1";

    // HTTP.
    /// A request HTTP/1.1 does not allow.
    BadRequest = "bad_request", 400, "see the reason";
    /// No such path.
    NotFound = "not_found", 404, "viewers connect to /ws; the server API and /metrics are on the internal listener (listen.internal) only; docs/PROTOCOL.md lists the paths";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "the Allow header lists the methods";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, "send the whole request without a pause";
    /// A body without length.
    LengthRequired = "length_required", 411, "send Content-Length or Transfer-Encoding: chunked (curl: -d '' for none)";
    /// Body over `limits.body_bytes_max`.
    BodyTooLarge = "body_too_large", 413, "send less, or raise limits.body_bytes_max";
    /// Request target over the head limit.
    UriTooLong = "uri_too_long", 414, "send a shorter address; a token fits better into the Authorization header";
    /// Not JSON.
    UnsupportedMedia = "unsupported_media_type", 415, "send Content-Type: application/json";
    /// An Expect other than 100-continue.
    ExpectationFailed = "expectation_failed", 417, "the only expectation understood is 100-continue";
    /// Head over `limits.head_bytes_max` or 64 fields.
    HeadTooLarge = "head_too_large", 431, "send fewer or shorter headers";
    /// A bug of ours.
    Internal = "internal", 500, "this is a fault of the gateway; its log says more";
    /// A method or transfer coding unknown here.
    NotImplemented = "not_implemented", 501, "see docs/PROTOCOL.md";
    /// HTTP/2 or /0.9.
    VersionNotSupported = "version_not_supported", 505, "speak HTTP/1.1 (curl: --http1.1)";
    /// A home shard did not answer in time.
    Timeout = "timeout", 504, "try again after retry_after_ms";

    // Messages, pushes, rooms.
    /// Not JSON, or not an object of the protocol.
    BadMessage = "bad_message", 400, "see docs/PROTOCOL.md for the messages";
    /// `type` unknown.
    UnknownType = "unknown_type", 400, "the types are ping, join, leave, danmaku, auth, stats";
    /// Not a room id.
    BadRoom = "bad_room", 400, "a room is 1..128 bytes of [A-Za-z0-9_.:-]";
    /// Empty, too long or not text.
    BadText = "bad_text", 400, "text is 1..limits.text_bytes_max bytes of UTF-8 after trimming";
    /// A colour, mode or size that does not exist.
    BadStyle = "bad_style", 400, "style is {\"color\":\"#rrggbb\",\"mode\":\"scroll|top|bottom\",\"size\":12..64}";
    /// Not a user.
    BadUser = "bad_user", 400, "a user is {\"id\":1..128 bytes,\"name\":up to 256 bytes}";
    /// Not an event.
    BadEvent = "bad_event", 400, "an event's name is 1..64 bytes of [A-Za-z0-9_.:-]";
    /// Nobody knows this room.
    RoomNotFound = "room_not_found", 404, "a room exists while someone is in it or it has recent lines; PUT /api/v1/rooms/{room} on the internal listener creates one";
    /// The room was closed.
    RoomClosed = "room_closed", 404, "the room was closed by its owner";
    /// Removed from the room.
    Kicked = "kicked", 403, "a moderator removed you from this room";
    /// Spoke, or left, where one has not joined.
    NotJoined = "not_joined", 403, "join the room first";
    /// Joined twice on one connection.
    AlreadyJoined = "already_joined", 400, "this connection is in the room already";
    /// Over `limits.rooms_per_connection_max`.
    TooManyRooms = "too_many_rooms", 400, "leave a room first, or open another connection";
    /// Flood control.
    RateLimited = "rate_limited", 429, "slow down; come back after retry_after_ms";
    /// A mailbox or a bound is full.
    Busy = "busy", 503, "come back after retry_after_ms";
    /// The same Idempotency-Key with another body.
    IdempotencyMismatch = "idempotency_mismatch", 422, "use a new Idempotency-Key for a new request";
}

/// A refusal on its way to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What clients branch on.
    pub code: Code,
    /// A sentence with the facts: what was found, what is allowed.
    pub reason: Cow<'static, str>,
    /// When to come back, where that helps.
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// A refusal that coming back later does not mend.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            code,
            reason: reason.into(),
            retry_after_ms: None,
        }
    }

    /// The same, with a time to come back.
    pub fn retry(self, after_ms: u32) -> Refusal {
        Refusal {
            retry_after_ms: Some(after_ms),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_unique_snake_case_and_hinted() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            let word = code.as_str();
            assert!(seen.insert(word), "{word} twice");
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(!code.hint().is_empty());
            assert!((400..=599).contains(&code.status()));
        }
    }
}
