//! The one route table: path, methods, on which listener, what the caller needs, who handles it. Read-only after the first
//! request; shared by all shards. A new route is a new row here and nowhere else.

use std::borrow::Cow;
use std::sync::LazyLock;

use matchit::{Params, Router};

use super::call::{Call, Step};
use super::caller::Needs;
use super::{Ctx, Listener, batch, node, push, rooms, users};
use crate::base::ids::{RoomId, UserId};
use crate::base::refusal::{Code, Refusal};
use crate::proto::http::Method;
use crate::proto::http::reply::Reply;
use crate::proto::http::uri::decode_segment;

/// What handles a route, by what its path names.
#[derive(Clone, Copy)]
enum Handler {
    Plain(fn(&Call, &Ctx) -> Result<Step, Refusal>),
    Room(fn(&Call, &RoomId, &Ctx) -> Result<Step, Refusal>),
    User(fn(&Call, &UserId, &Ctx) -> Result<Step, Refusal>),
}

/// On which listeners a route exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Both,
    Public,
    Internal,
}

/// One method of one path.
struct Route {
    method: Method,
    on: On,
    needs: Needs,
    handler: Handler,
}

const fn route(method: Method, on: On, needs: Needs, handler: Handler) -> Route {
    Route {
        method,
        on,
        needs,
        handler,
    }
}

use Handler::{Plain, Room, User};
use Method::{Delete, Get, Post, Put};
use On::{Both, Internal, Public};

static TABLE: &[(&str, &[Route])] = &[
    ("/", &[route(Get, Public, Needs::Open, Plain(node::home))]),
    (
        "/healthz",
        &[route(Get, Both, Needs::Open, Plain(node::health))],
    ),
    (
        "/readyz",
        &[route(Get, Both, Needs::Open, Plain(node::ready))],
    ),
    (
        "/metrics",
        &[route(Get, Internal, Needs::Open, Plain(node::metrics))],
    ),
    (
        "/api/v1/danmaku/push",
        &[route(Post, Both, Needs::Speak, Plain(push::push))],
    ),
    (
        "/api/v1/rooms",
        &[route(Get, Both, Needs::Watch, Plain(rooms::list))],
    ),
    (
        "/api/v1/rooms/{room}",
        &[
            route(Get, Both, Needs::Watch, Room(rooms::detail)),
            route(Put, Internal, Needs::Key, Room(rooms::put)),
            route(Delete, Internal, Needs::Key, Room(rooms::close)),
        ],
    ),
    (
        "/api/v1/rooms/{room}/history",
        &[route(Get, Both, Needs::Watch, Room(rooms::history))],
    ),
    (
        "/api/v1/rooms/{room}/members",
        &[route(Get, Internal, Needs::Key, Room(rooms::members))],
    ),
    (
        "/api/v1/rooms/{room}/kick",
        &[route(Post, Internal, Needs::Key, Room(rooms::kick))],
    ),
    (
        "/api/v1/broadcast",
        &[route(Post, Internal, Needs::Key, Plain(users::broadcast))],
    ),
    (
        "/api/v1/users/{user}/push",
        &[route(Post, Internal, Needs::Key, User(users::push))],
    ),
    (
        "/api/v1/users/{user}/disconnect",
        &[route(Post, Internal, Needs::Key, User(users::disconnect))],
    ),
    (
        "/api/v1/batch",
        &[route(Post, Internal, Needs::Key, Plain(batch::batch))],
    ),
    (
        "/api/v1/info",
        &[route(Get, Internal, Needs::Key, Plain(node::info))],
    ),
    (
        "/api/v1/nodes",
        &[route(Get, Internal, Needs::Key, Plain(node::nodes))],
    ),
];

static ROUTER: LazyLock<Router<&'static [Route]>> = LazyLock::new(|| {
    let mut router = Router::new();
    for (path, routes) in TABLE {
        router
            .insert(*path, *routes)
            .expect("the table holds no path twice");
    }
    router
});

/// A route that was found, with what its path names.
pub(super) struct Found<'a> {
    route: &'static Route,
    params: Params<'static, 'a>,
}

/// The methods of a path on a listener; empty if the path does not exist there. HEAD goes with GET, OPTIONS with everything.
pub(super) fn methods(path: &str, listener: Listener) -> Vec<Method> {
    let Ok(matched) = ROUTER.at(path) else {
        return Vec::new();
    };
    let mut methods = Vec::new();
    for route in matched.value.iter().filter(|r| r.is_on(listener)) {
        methods.push(route.method);
        if route.method == Method::Get {
            methods.push(Method::Head);
        }
    }
    if !methods.is_empty() {
        methods.push(Method::Options);
    }
    methods
}

/// Methods as an `Allow` header lists them (RFC 9110 section 10.2.1).
pub(super) fn allow(methods: &[Method]) -> String {
    let words: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    words.join(", ")
}

/// The route for a method and an encoded path. A method that exists on the other listener only is not told of here.
///
/// # Errors
/// The 404, or the 405 with its `Allow`.
pub(super) fn find<'a>(
    method: Method,
    path: &'a str,
    listener: Listener,
) -> Result<Found<'a>, Reply> {
    let wanted = match method {
        Method::Head => Method::Get,
        method => method,
    };
    let Ok(matched) = ROUTER.at(path) else {
        return Err(not_found(path));
    };
    let of_method = || matched.value.iter().filter(|r| r.method == wanted);
    if let Some(route) = of_method().find(|r| r.is_on(listener)) {
        return Ok(Found {
            route,
            params: matched.params,
        });
    }
    let methods = methods(path, listener);
    if methods.is_empty() || of_method().next().is_some() {
        return Err(not_found(path));
    }
    Err(wrong_method(method, &methods))
}

/// 405 with the methods there are.
fn wrong_method(method: Method, methods: &[Method]) -> Reply {
    let allow = allow(methods);
    let reason = format!("there is no {method} here, only {allow}");
    Reply::refusal(&Refusal::new(Code::MethodNotAllowed, reason)).header("Allow", allow)
}

/// 404, with the beginning of the path that was asked for.
pub(super) fn not_found(path: &str) -> Reply {
    let shown: String = path.chars().take(128).collect();
    Reply::refusal(&Refusal::new(
        Code::NotFound,
        format!("there is nothing at {shown}"),
    ))
}

impl Route {
    fn is_on(&self, listener: Listener) -> bool {
        match self.on {
            On::Both => true,
            On::Public => listener == Listener::Public,
            On::Internal => listener == Listener::Internal,
        }
    }
}

impl Found<'_> {
    /// What the route asks of its caller.
    pub fn needs(&self) -> Needs {
        self.route.needs
    }

    /// Runs the handler.
    ///
    /// # Errors
    /// `bad_room` or `bad_user` for what the path names, or the handler's own.
    pub fn run(&self, call: &Call, ctx: &Ctx) -> Result<Step, Refusal> {
        match self.route.handler {
            Handler::Plain(handle) => handle(call, ctx),
            Handler::Room(handle) => handle(call, &self.room()?, ctx),
            Handler::User(handle) => handle(call, &self.user()?, ctx),
        }
    }

    fn param(&self, name: &str) -> Result<Cow<'_, str>, Refusal> {
        let encoded = self.params.get(name).unwrap_or_default();
        Ok(decode_segment(encoded)?)
    }

    fn room(&self) -> Result<RoomId, Refusal> {
        let name = self.param("room")?;
        RoomId::parse(&name).ok_or_else(|| {
            Refusal::new(
                Code::BadRoom,
                format!(
                    "the path names the room {}, which no room is called",
                    shown(&name)
                ),
            )
        })
    }

    fn user(&self) -> Result<UserId, Refusal> {
        let id = self.param("user")?;
        UserId::parse(&id).ok_or_else(|| {
            Refusal::new(
                Code::BadUser,
                format!(
                    "the path names the user {}, which no user is called",
                    shown(&id)
                ),
            )
        })
    }
}

/// The beginning of what a client sent, quoted and escaped.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(32).collect();
    format!("{short:?}")
}
