//! How many connections one login may have: on this node counted by the user's home shard, on all of them by Redis. The newest stay: who
//! comes back on another network must not wait for the old connection to be missed. Part of the shard's turn.

use std::collections::{HashMap, VecDeque};

use super::Shard;
use crate::base::ids::{ConnId, ShardId, UserId};
use crate::bus::{Login, Msg, Outward};
use crate::proto::ws::close::Close;
use crate::session::End;

/// Logins told to the cluster in one turn.
const TOLD_PER_TURN: usize = 64;

/// The logins whose user is at home here.
#[derive(Default)]
pub struct Logins {
    /// Each the oldest connection first.
    by_user: HashMap<UserId, VecDeque<Login>>,
    /// Users of whom the cluster is to be told anew.
    untold: Vec<UserId>,
}

impl Logins {
    /// Whether the cluster is to be told more.
    pub fn are_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}

impl Shard {
    /// A connection of a user has entered this shard.
    pub(super) fn logged_in(&mut self, user: UserId, conn: ConnId) {
        if self.policy.config.limits.connections_per_user_max == 0 {
            return;
        }
        let login = Login {
            shard: self.id,
            conn,
            at_ms: self.now.mono_ms(),
        };
        let home = user.home(self.shards());
        self.mail.post(home, Msg::LoggedIn { user, login });
    }

    /// It has gone.
    pub(super) fn logged_out(&mut self, user: UserId, conn: ConnId) {
        if self.policy.config.limits.connections_per_user_max == 0 {
            return;
        }
        let (home, shard) = (user.home(self.shards()), self.id);
        self.mail.post(home, Msg::LoggedOut { user, shard, conn });
    }

    /// At the user's home: one more.
    pub(super) fn take_login(&mut self, user: UserId, login: Login) {
        let max = self.policy.config.limits.connections_per_user_max;
        let of = self.logins.by_user.entry(user.clone()).or_default();
        of.push_back(login);
        let mut over = Vec::new();
        while of.len() > max.max(1) {
            over.extend(of.pop_front());
        }
        if self.is_shared() {
            for gone in &over {
                self.ask_cluster(Outward::LoggedOut {
                    user: user.clone(),
                    login: *gone,
                    last: false,
                });
            }
            self.ask_cluster(Outward::LoggedIn { user, login, max });
        }
        for gone in over {
            self.mail
                .post(gone.shard, Msg::Replaced { conn: gone.conn });
        }
    }

    /// At the user's home: one less.
    pub(super) fn take_logout(&mut self, user: UserId, shard: ShardId, conn: ConnId) {
        let Some(of) = self.logins.by_user.get_mut(&user) else {
            return;
        };
        let at = of
            .iter()
            .position(|it| (it.shard, it.conn) == (shard, conn));
        let Some(login) = at.and_then(|at| of.remove(at)) else {
            // It was replaced.
            return;
        };
        let last = of.is_empty();
        if last {
            self.logins.by_user.remove(&user);
        }
        if self.is_shared() {
            self.ask_cluster(Outward::LoggedOut { user, login, last });
        }
    }

    /// The cluster knows nothing of this node's logins: it is told.
    pub(super) fn tell_logins(&mut self) {
        let max = self.policy.config.limits.connections_per_user_max;
        if max == 0 {
            return;
        }
        self.logins.untold = self.logins.by_user.keys().cloned().collect();
    }

    /// Part of the turn: some of them at a time, so that no line waits behind all.
    pub(super) fn tell_more_logins(&mut self) {
        let max = self.policy.config.limits.connections_per_user_max;
        for _ in 0..TOLD_PER_TURN {
            let Some(user) = self.logins.untold.pop() else {
                return;
            };
            let of = self.logins.by_user.get(&user).cloned();
            for login in of.into_iter().flatten() {
                let user = user.clone();
                self.ask_cluster(Outward::LoggedIn { user, login, max });
            }
        }
    }

    /// The limit is off by now: nothing is kept of it.
    pub(super) fn forget_logins(&mut self) {
        self.logins.untold.clear();
        let all = std::mem::take(&mut self.logins.by_user);
        for (user, of) in all {
            for login in of {
                let (user, last) = (user.clone(), true);
                self.ask_cluster(Outward::LoggedOut { user, login, last });
            }
        }
    }

    /// A newer connection of the same login has taken this one's place.
    pub(super) fn replaced(&mut self, conn: ConnId) {
        let max = self.policy.config.limits.connections_per_user_max;
        let reason = format!("this login is in use on {max} newer connections");
        self.close_viewer(conn, &End::new(Close::Kicked.code(), reason));
    }
}
