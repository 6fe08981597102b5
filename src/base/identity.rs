//! Who someone is, once a token or key has been checked. Made by `auth`, read by rooms and sessions.

use std::sync::Arc;

use super::ids::{RoomId, UserId};
use super::refusal::{Code, Refusal};

/// What a token lets its bearer do. Ordered: a later role may do what an earlier one may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Watches and speaks.
    #[default]
    Viewer,
    /// Whose room it is.
    Host,
    /// Keeps order.
    Moderator,
    /// Speaks in any room, without flood limits.
    Admin,
}

impl Role {
    /// Every role, lowest first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Host, Role::Moderator, Role::Admin];

    /// The word used in tokens and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Host => "host",
            Role::Moderator => "moderator",
            Role::Admin => "admin",
        }
    }

    /// The role with that word.
    pub fn parse(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// The rooms a token speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomScope {
    /// No `rooms` claim: every room that is not private.
    EveryOpen,
    /// Room ids, or prefixes ending in `*`.
    Listed(Box<[Box<str>]>),
}

impl RoomScope {
    /// Whether the list names the room; `EveryOpen` names none.
    pub fn lists(&self, room: &RoomId) -> bool {
        match self {
            RoomScope::EveryOpen => false,
            RoomScope::Listed(patterns) => patterns.iter().any(|p| match p.strip_suffix('*') {
                Some(prefix) => room.as_str().starts_with(prefix),
                None => room.as_str() == &**p,
            }),
        }
    }
}

/// A user as others see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The platform's id.
    pub id: UserId,
    /// What is shown; the id where the token has no `name`.
    pub name: Arc<str>,
}

/// The bearer of a checked token. Shared by `Arc`: one pointer per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: User,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub rooms: RoomScope,
    /// Seconds since 1970 at which the token ends.
    pub exp_s: u64,
}

/// Who a room lets in (`rooms.access`, `PUT /rooms/{room}`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everyone the node lets in.
    #[default]
    Public,
    /// Bearers of a token.
    Login,
    /// Bearers of a token whose `rooms` claim names the room.
    Private,
}

impl Access {
    /// The word used in config and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Public => "public",
            Access::Login => "login",
            Access::Private => "private",
        }
    }

    /// The access with that word.
    pub fn parse(word: &str) -> Option<Access> {
        [Access::Public, Access::Login, Access::Private]
            .into_iter()
            .find(|access| access.as_str() == word)
    }

    /// Whether a room with this access lets `who` in; `None` is anonymous.
    ///
    /// Role admin enters every room. A `rooms` claim is the whole of what its bearer may enter, public rooms included, and
    /// a private room is entered by such a claim only. Errors: `login_required` for an anonymous caller, `room_forbidden`
    /// for the bearer of a token that does not name the room.
    pub fn admits(self, who: Option<&Identity>, room: &RoomId) -> Result<(), Refusal> {
        let Some(who) = who else {
            if self == Access::Public {
                return Ok(());
            }
            let word = self.as_str();
            let reason = format!("room {room} is {word}: it takes bearers of a token only");
            return Err(Refusal::new(Code::LoginRequired, reason));
        };
        if who.role == Role::Admin || who.rooms.lists(room) {
            return Ok(());
        }
        let reason = match (&who.rooms, self) {
            (RoomScope::EveryOpen, Access::Public | Access::Login) => return Ok(()),
            (RoomScope::EveryOpen, Access::Private) => {
                format!("room {room} is private, and the token has no rooms claim")
            }
            (RoomScope::Listed(_), _) => {
                format!("the token's rooms claim does not name room {room}")
            }
        };
        Err(Refusal::new(Code::RoomForbidden, reason))
    }
}

/// Who makes an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody named.
    Anonymous,
    /// The bearer of a token.
    User(Arc<Identity>),
    /// A back end, by the name of its API key.
    Key(Arc<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_rooms_and_prefixes() {
        let scope = RoomScope::Listed(["1001".into(), "vip-*".into()].into());
        let lists = |room: &str| scope.lists(&RoomId::parse(room).unwrap());
        assert!(lists("1001") && lists("vip-") && lists("vip-7"));
        assert!(!lists("10011") && !lists("vip") && !lists("x-vip-7"));
        assert!(!RoomScope::EveryOpen.lists(&RoomId::parse("a").unwrap()));
    }

    #[test]
    fn admission_follows_access_role_and_rooms() {
        let room = RoomId::parse("vip-7").unwrap();
        let bearer = |role, rooms| Identity {
            user: User {
                id: UserId::parse("u1").unwrap(),
                name: "u1".into(),
            },
            role,
            rooms,
            exp_s: 0,
        };
        let listed = |pattern: &str| RoomScope::Listed([pattern.into()].into());
        let open = bearer(Role::Moderator, RoomScope::EveryOpen);
        let named = bearer(Role::Viewer, listed("vip-*"));
        let elsewhere = bearer(Role::Host, listed("1001"));
        let nowhere = bearer(Role::Viewer, RoomScope::Listed(Box::default()));
        let admin = bearer(Role::Admin, listed("1001"));
        let (login, forbidden) = (Some(Code::LoginRequired), Some(Code::RoomForbidden));
        // Columns: public, login, private.
        for (who, codes) in [
            (None, [None, login, login]),
            (Some(&open), [None, None, forbidden]),
            (Some(&named), [None, None, None]),
            (Some(&elsewhere), [forbidden; 3]),
            (Some(&nowhere), [forbidden; 3]),
            (Some(&admin), [None, None, None]),
        ] {
            for (access, code) in [Access::Public, Access::Login, Access::Private]
                .into_iter()
                .zip(codes)
            {
                let answer = access.admits(who, &room);
                assert_eq!(
                    answer.as_ref().err().map(|r| r.code),
                    code,
                    "{access:?} {who:?}"
                );
                if let Err(refusal) = answer {
                    assert!(refusal.reason.contains("vip-7"), "{refusal:?}");
                }
            }
        }
    }

    #[test]
    fn words_go_both_ways() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
        assert_eq!(Access::parse("private"), Some(Access::Private));
        assert!(Role::Admin > Role::Viewer);
    }
}
