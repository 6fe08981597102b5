//! A page of a room's members, put together from those of several nodes. Pure.

use std::collections::BTreeMap;

use super::ask::{MemberEntry, MembersPage};
use crate::base::identity::User;
use crate::base::ids::UserId;
use crate::proto::node::page::{Entry, Page};

/// Up to `limit` members of all nodes, given the pages of so many that begin behind the same user at each of them.
pub fn merged(pages: Vec<MembersPage>, limit: usize) -> MembersPage {
    // Behind the end of a page that goes on there are members of its node that are not known here.
    let ends = pages.iter().filter_map(|page| page.next.as_deref());
    let known_to: Option<String> = ends.min().map(str::to_owned);
    let mut users: BTreeMap<UserId, MemberEntry> = BTreeMap::new();
    let mut anonymous: Option<MemberEntry> = None;
    for entry in pages.into_iter().flat_map(|page| page.members) {
        match &entry.user {
            Some(user) => match users.get_mut(&user.id) {
                Some(known) => add(known, &entry),
                None => drop(users.insert(user.id.clone(), entry)),
            },
            None => match &mut anonymous {
                Some(known) => add(known, &entry),
                None => anonymous = Some(entry),
            },
        }
    }
    let is_known = |id: &UserId| known_to.as_deref().is_none_or(|end| id.as_str() <= end);
    let known = users.into_iter().filter(|(id, _)| is_known(id));
    let mut members: Vec<MemberEntry> = known.map(|(_, entry)| entry).collect();
    let no_place = anonymous.is_some() && members.len() == limit;
    let more = known_to.is_some() || members.len() > limit || no_place;
    members.truncate(limit);
    if !more {
        members.extend(anonymous);
    }
    let stale = false;
    MembersPage {
        next: last_user(&members).filter(|_| more),
        members,
        stale,
    }
}

fn add(known: &mut MemberEntry, more: &MemberEntry) {
    known.connections = known.connections.saturating_add(more.connections);
    known.joined_ms = known.joined_ms.min(more.joined_ms);
}

/// Where the next page begins, if there is one.
pub fn last_user(members: &[MemberEntry]) -> Option<String> {
    let user = members.last()?.user.as_ref()?;
    Some(user.id.as_str().to_owned())
}

/// As it is told to another node.
pub fn told(page: &MembersPage) -> Page {
    let entry = |entry: &MemberEntry| Entry {
        user: entry
            .user
            .as_ref()
            .map(|user| (user.id.as_str().to_owned(), user.name.to_string())),
        connections: entry.connections,
        joined: entry.joined_ms,
    };
    Page {
        members: page.members.iter().map(entry).collect(),
        more: page.next.is_some(),
    }
}

/// As another node told it; whoever is no user is passed over.
pub fn heard(page: Page) -> MembersPage {
    let entry = |entry: Entry| {
        let user = match entry.user {
            Some((id, name)) => Some(User {
                id: UserId::parse(&id)?,
                name: name.into(),
            }),
            None => None,
        };
        Some(MemberEntry {
            user,
            connections: entry.connections,
            joined_ms: entry.joined,
        })
    };
    let members: Vec<MemberEntry> = page.members.into_iter().filter_map(entry).collect();
    MembersPage {
        next: last_user(&members).filter(|_| page.more),
        members,
        stale: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ask::{Encoding, Seat};
    use super::super::presence::Presence;
    use super::*;
    use crate::base::ids::ShardId;

    const SEAT: Seat = Seat {
        shard: ShardId(0),
        encoding: Encoding::Plain,
    };

    /// Who is on each node: users by number, and somebody without a name for each `None`.
    fn nodes(crowds: &[Vec<Option<u8>>]) -> Vec<Presence> {
        let mut at_ms = 0;
        let node = |crowd: &Vec<Option<u8>>| {
            let mut presence = Presence::new(1);
            for who in crowd {
                at_ms += 1;
                let user = who.map(|number| User {
                    id: UserId::parse(&format!("u{number}")).unwrap(),
                    name: "n".into(),
                });
                presence.enter(user.as_ref(), SEAT, at_ms);
            }
            presence
        };
        crowds.iter().map(node).collect()
    }

    proptest! {
        /// Page by page over all nodes is what one node would tell that had everybody.
        #[test]
        fn pages_of_several_nodes_are_those_of_one(
            crowds in prop::collection::vec(prop::collection::vec(prop::option::weighted(0.8, 0u8..30), 0..40), 1..4),
            limit in 1usize..8,
        ) {
            let several = nodes(&crowds);
            let one = nodes(&[crowds.concat()]);
            let mut after: Option<String> = None;
            loop {
                let pages = several.iter().map(|node| {
                    let page = node.page(limit, after.as_deref());
                    // By way of Redis.
                    let json = String::from_utf8(told(&page).write()).unwrap();
                    heard(Page::read(&json).unwrap())
                });
                let page = merged(pages.collect(), limit);
                let expected = one[0].page(limit, after.as_deref());
                prop_assert_eq!(&page.members, &expected.members);
                // Whether there is more may be known only by asking on.
                prop_assert!(page.next == expected.next || expected.next.is_none());
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
    }
}
