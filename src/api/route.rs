//! The one route table: path and method to a handler, the listeners it is on, and who may call it.

use std::sync::LazyLock;

use matchit::Router;

use super::Listener;
use crate::base::ids::{RoomId, UserId};
use crate::base::refusal::{Code, Refusal};
use crate::proto::http::Method;
use crate::proto::http::uri::decode_segment;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET /`
    Page,
    /// `GET /healthz`
    Health,
    /// `GET /readyz`
    Ready,
    /// `GET /metrics`
    Metrics,
    /// `POST /api/v1/danmaku/push`
    Push,
    /// `GET /api/v1/rooms`
    Rooms,
    /// `GET /api/v1/rooms/{room}`
    Room,
    /// `PUT /api/v1/rooms/{room}`
    PutRoom,
    /// `DELETE /api/v1/rooms/{room}`
    CloseRoom,
    /// `GET /api/v1/rooms/{room}/history`
    History,
    /// `GET /api/v1/rooms/{room}/members`
    Members,
    /// `POST /api/v1/rooms/{room}/kick`
    Kick,
    /// `POST /api/v1/broadcast`
    Broadcast,
    /// `POST /api/v1/users/{user}/push`
    UserPush,
    /// `POST /api/v1/users/{user}/disconnect`
    UserDisconnect,
    /// `POST /api/v1/batch`
    Batch,
    /// `GET /api/v1/info`
    Info,
}

/// Where a route is, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Both listeners, nobody is asked who they are.
    Open,
    /// The internal listener, nobody is asked.
    OpenInternal,
    /// Both; on the internal one with an API key.
    Public,
    /// The internal one, with an API key.
    Server,
}

struct Route {
    path: &'static str,
    methods: &'static [(Method, Action, Reach)],
}

const ROUTES: &[Route] = &[
    Route {
        path: "/",
        methods: &[(Method::Get, Action::Page, Reach::Open)],
    },
    Route {
        path: "/healthz",
        methods: &[(Method::Get, Action::Health, Reach::Open)],
    },
    Route {
        path: "/readyz",
        methods: &[(Method::Get, Action::Ready, Reach::Open)],
    },
    Route {
        path: "/metrics",
        methods: &[(Method::Get, Action::Metrics, Reach::OpenInternal)],
    },
    Route {
        path: "/api/v1/danmaku/push",
        methods: &[(Method::Post, Action::Push, Reach::Public)],
    },
    Route {
        path: "/api/v1/rooms",
        methods: &[(Method::Get, Action::Rooms, Reach::Public)],
    },
    Route {
        path: "/api/v1/rooms/{room}",
        methods: &[
            (Method::Get, Action::Room, Reach::Public),
            (Method::Put, Action::PutRoom, Reach::Server),
            (Method::Delete, Action::CloseRoom, Reach::Server),
        ],
    },
    Route {
        path: "/api/v1/rooms/{room}/history",
        methods: &[(Method::Get, Action::History, Reach::Public)],
    },
    Route {
        path: "/api/v1/rooms/{room}/members",
        methods: &[(Method::Get, Action::Members, Reach::Server)],
    },
    Route {
        path: "/api/v1/rooms/{room}/kick",
        methods: &[(Method::Post, Action::Kick, Reach::Server)],
    },
    Route {
        path: "/api/v1/broadcast",
        methods: &[(Method::Post, Action::Broadcast, Reach::Server)],
    },
    Route {
        path: "/api/v1/users/{user}/push",
        methods: &[(Method::Post, Action::UserPush, Reach::Server)],
    },
    Route {
        path: "/api/v1/users/{user}/disconnect",
        methods: &[(Method::Post, Action::UserDisconnect, Reach::Server)],
    },
    Route {
        path: "/api/v1/batch",
        methods: &[(Method::Post, Action::Batch, Reach::Server)],
    },
    Route {
        path: "/api/v1/info",
        methods: &[(Method::Get, Action::Info, Reach::Server)],
    },
];

static ROUTER: LazyLock<Router<usize>> = LazyLock::new(|| {
    let mut router = Router::new();
    for (index, route) in ROUTES.iter().enumerate() {
        if let Err(error) = router.insert(route.path, index) {
            // A mistake in the table above; the test that walks it fails.
            tracing::error!(%error, path = route.path, "a route was not added");
        }
    }
    router
});

/// A route that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it does.
    pub action: Action,
    /// Who may.
    pub reach: Reach,
    /// `{room}` or `{user}`, decoded.
    pub parameter: Option<String>,
}

impl Found {
    /// The room in the path.
    ///
    /// # Errors
    /// `bad_room`.
    pub fn room(&self) -> Result<RoomId, Refusal> {
        let text = self.parameter.as_deref().unwrap_or("");
        RoomId::parse(text)
            .ok_or_else(|| Refusal::new(Code::BadRoom, "the path does not name a room"))
    }

    /// The user in the path.
    ///
    /// # Errors
    /// `bad_user`.
    pub fn user(&self) -> Result<UserId, Refusal> {
        let text = self.parameter.as_deref().unwrap_or("");
        UserId::parse(text)
            .ok_or_else(|| Refusal::new(Code::BadUser, "the path does not name a user"))
    }
}

/// Why no route was found.
#[derive(Debug)]
pub struct Missed {
    /// 404 or 405.
    pub refusal: Refusal,
    /// For 405: the methods there are.
    pub allow: Option<String>,
}

/// Finds the route of a request. HEAD is GET without the body.
///
/// # Errors
/// `not_found`, also for what is on the other listener only; `method_not_allowed`.
pub fn find(method: Method, path: &str, listener: Listener) -> Result<Found, Missed> {
    let not_found = || Missed {
        refusal: Refusal::new(Code::NotFound, format!("no such path: {path:.100}")),
        allow: None,
    };
    let matched = ROUTER.at(path).map_err(|_| not_found())?;
    let route = ROUTES.get(*matched.value).ok_or_else(not_found)?;
    let here = |reach: Reach| {
        listener == Listener::Internal || matches!(reach, Reach::Open | Reach::Public)
    };
    let mut there = route.methods.iter().filter(|(_, _, reach)| here(*reach));
    let wanted = match method {
        Method::Head => Method::Get,
        method => method,
    };
    if let Some((_, action, reach)) = there.clone().find(|(method, ..)| *method == wanted) {
        let parameter = matched.params.iter().next().map(|(_, value)| value);
        let parameter = match parameter.map(decode_segment) {
            None => None,
            Some(Ok(text)) => Some(text.into_owned()),
            Some(Err(_)) => return Err(not_found()),
        };
        return Ok(Found {
            action: *action,
            reach: *reach,
            parameter,
        });
    }
    if there.next().is_none() {
        return Err(not_found());
    }
    let allow = allowed(route, here);
    Err(Missed {
        refusal: Refusal::new(
            Code::MethodNotAllowed,
            format!("{method} is not a method of {path:.100}, but {allow}"),
        ),
        allow: Some(allow),
    })
}

/// The methods of a path on a listener, for `Allow` and preflights; `None` for an unknown path.
pub fn methods(path: &str, listener: Listener) -> Option<String> {
    match find(Method::Options, path, listener) {
        Err(Missed { allow, .. }) => allow,
        Ok(_) => None,
    }
}

fn allowed(route: &Route, here: impl Fn(Reach) -> bool) -> String {
    let mut words = Vec::new();
    for (method, _, _) in route.methods.iter().filter(|(_, _, reach)| here(*reach)) {
        words.push(method.as_str());
        if *method == Method::Get {
            words.push("HEAD");
        }
    }
    words.push("OPTIONS");
    words.join(", ")
}
