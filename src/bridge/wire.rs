//! Connections to Redis, for whoever asks: one server, or every master of a Redis Cluster. Commands go where their keys are, all at once,
//! and the answers come back in their order.

use std::time::Duration;

use redis::{Cmd, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, Value, cmd};
use redis::{ServerErrorKind, from_redis_value};

use super::slots::{SLOTS, slot, slot_of};
use super::{connect, info, keys};
use crate::base::clock::Clock;
use crate::config::redis_url;

/// Masters of a cluster that are spoken to; a larger one is refused.
pub const MASTERS_MAX: usize = 128;

/// Where Redis is, as the settings say.
pub struct Seeds {
    infos: Result<Vec<ConnectionInfo>, RedisError>,
    is_cluster: bool,
    /// The one that is tried first.
    first: usize,
}

/// Where each part of it is. Two are equal if the same servers hold the same parts.
#[derive(Clone)]
pub struct Layout {
    /// Whether it is a Redis Cluster: what is published goes to a slot's owner alone.
    pub is_cluster: bool,
    /// Its masters; one where it is no cluster.
    pub masters: Vec<Place>,
    /// Which of them owns a slot.
    owners: Box<[u8]>,
}

/// One master.
#[derive(Clone)]
pub struct Place {
    /// Where.
    pub info: ConnectionInfo,
    /// A channel of this node's own there.
    pub wake: String,
}

impl PartialEq for Layout {
    fn eq(&self, other: &Layout) -> bool {
        let places = |layout: &Layout| -> Vec<String> {
            let masters = layout.masters.iter();
            masters.map(|it| it.info.addr().to_string()).collect()
        };
        self.owners == other.owners && places(self) == places(other)
    }
}

impl Layout {
    /// Which master owns a key or channel.
    pub fn owner(&self, key: &str) -> usize {
        self.owner_of(slot(key.as_bytes()))
    }

    fn owner_of(&self, slot: u16) -> usize {
        self.owners
            .get(usize::from(slot))
            .map_or(0, |at| usize::from(*at))
    }
}

/// The connections.
pub struct Wire {
    /// Where they lead.
    pub layout: Layout,
    lines: Vec<Line>,
}

struct Line {
    connection: Connection,
    /// Its clock less ours, in microseconds.
    ahead_us: i128,
}

impl Seeds {
    /// Reads the settings.
    pub fn new(url: &str, is_cluster: bool) -> Seeds {
        let infos = redis_url::each(url).iter().map(|url| info(url)).collect();
        Seeds {
            infos,
            is_cluster,
            first: 0,
        }
    }

    /// The server that was tried last is not to be tried first.
    pub fn turn(&mut self) {
        self.first += 1;
    }

    /// Connects: to the first server that can be reached, and from there to all of its cluster.
    ///
    /// # Errors
    /// None can be reached, or one of the cluster cannot.
    pub fn dial(&mut self, me: &str, clock: Clock, answer: Duration) -> Result<Wire, RedisError> {
        let infos = self.infos.clone()?;
        let mut fault = None;
        for at in 0..infos.len() {
            let info = &infos[(self.first + at) % infos.len()];
            match connect(info, answer) {
                Ok(connection) => {
                    self.first = (self.first + at) % infos.len();
                    return self.reached(info, connection, me, clock, answer);
                }
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.unwrap_or_else(|| unusable("no server is named")))
    }

    fn reached(
        &self,
        info: &ConnectionInfo,
        mut connection: Connection,
        me: &str,
        clock: Clock,
        answer: Duration,
    ) -> Result<Wire, RedisError> {
        let (layout, mut lines) = match self.is_cluster {
            false => {
                let place = Place {
                    info: info.clone(),
                    wake: keys::own(me),
                };
                let layout = Layout {
                    is_cluster: false,
                    masters: vec![place],
                    owners: Box::default(),
                };
                (layout, vec![Line::new(connection)])
            }
            true => {
                let layout = layout(info, &mut connection, me)?;
                let lines = layout
                    .masters
                    .iter()
                    .map(|place| connect(&place.info, answer));
                let lines: Result<Vec<_>, _> = lines.map(|it| it.map(Line::new)).collect();
                (layout, lines?)
            }
        };
        for line in &mut lines {
            line.look_at_clock(clock)?;
        }
        Ok(Wire { layout, lines })
    }
}

/// Asks a server of a cluster where its slots are.
fn layout(
    info: &ConnectionInfo,
    connection: &mut Connection,
    me: &str,
) -> Result<Layout, RedisError> {
    let ranges: Vec<Vec<Value>> = cmd("CLUSTER").arg("SLOTS").query(connection)?;
    let mut places: Vec<ConnectionInfo> = Vec::new();
    let mut owners = vec![u8::MAX; SLOTS].into_boxed_slice();
    for range in ranges {
        let mut words = range.into_iter();
        let mut next = || words.next().unwrap_or_default();
        let (from, to): (usize, usize) = (from_redis_value(next())?, from_redis_value(next())?);
        let master: Vec<Value> = from_redis_value(next())?;
        let mut master = master.into_iter();
        let host: Option<String> = from_redis_value(master.next().unwrap_or_default())?;
        let port: u16 = from_redis_value(master.next().unwrap_or_default())?;
        let place = at(info, host.as_deref().unwrap_or_default(), port);
        let known = places.iter().position(|known| known.addr() == place.addr());
        let index = known.unwrap_or(places.len());
        if known.is_none() {
            places.push(place);
        }
        if index >= MASTERS_MAX {
            return Err(unusable("it has too many masters"));
        }
        if let Some(slots) = owners.get_mut(from..=to) {
            slots.fill(index as u8);
        }
    }
    if owners.contains(&u8::MAX) {
        return Err(unusable("some of its slots have no owner"));
    }
    let mut layout = Layout {
        is_cluster: true,
        masters: Vec::new(),
        owners,
    };
    for (index, info) in places.into_iter().enumerate() {
        // Channels of one's own at every master: of so many names one lies there, or it owns next to nothing.
        let mut names = (0..SLOTS).map(|n| format!("{}:{n}", keys::own(me)));
        let wake = names.find(|name| layout.owner(name) == index);
        let wake = wake.ok_or_else(|| unusable("one of its masters owns hardly a slot"))?;
        layout.masters.push(Place { info, wake });
    }
    Ok(layout)
}

/// The same as another server, elsewhere; a host that is not told is that server's.
fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls {
            host: known,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: if host.is_empty() { known } else { host.into() },
            port,
            insecure,
            tls_params,
        },
        ConnectionAddr::Tcp(known, _) if host.is_empty() => ConnectionAddr::Tcp(known, port),
        _ => ConnectionAddr::Tcp(host.into(), port),
    };
    info.clone().set_addr(addr)
}

fn unusable(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "Redis Cluster", why.into()))
}

impl Line {
    fn new(connection: Connection) -> Line {
        Line {
            connection,
            ahead_us: 0,
        }
    }

    fn look_at_clock(&mut self, clock: Clock) -> Result<(), RedisError> {
        let (s, us): (i128, i128) = cmd("TIME").query(&mut self.connection)?;
        let ours_us = i128::from(clock.mono_ns() / 1000);
        self.ahead_us = s * 1_000_000 + us - ours_us;
        Ok(())
    }
}

impl Wire {
    /// The command that publishes.
    pub fn publish(&self) -> &'static str {
        if self.layout.is_cluster {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }

    /// Makes a script known everywhere. Its digest.
    ///
    /// # Errors
    /// What a server says.
    pub fn load(&mut self, script: &str) -> Result<String, RedisError> {
        let script = match self.layout.is_cluster {
            true => script.replace("'PUBLISH'", "'SPUBLISH'"),
            false => script.to_owned(),
        };
        let mut digest = String::new();
        for line in &mut self.lines {
            let loaded = cmd("SCRIPT")
                .arg("LOAD")
                .arg(&script)
                .query(&mut line.connection);
            digest = loaded?;
        }
        Ok(digest)
    }

    /// Looks at every server's clock: they drift.
    ///
    /// # Errors
    /// What a server says.
    pub fn look_at_clocks(&mut self, clock: Clock) -> Result<(), RedisError> {
        let look = |line: &mut Line| line.look_at_clock(clock);
        self.lines.iter_mut().try_for_each(look)
    }

    /// How far the clock of the server that owns a key is ahead of ours, in microseconds.
    pub fn ahead_us(&self, key: &str) -> i128 {
        self.lines
            .get(self.layout.owner(key))
            .map_or(0, |line| line.ahead_us)
    }

    /// Sends all, and reads the answers. `is_late` is asked after each; the first that does not come in time ends it, since each further
    /// one would be waited for as long.
    ///
    /// # Errors
    /// A connection is lost, or it is too late. That a key is elsewhere by now is among the answers.
    pub fn round(
        &mut self,
        commands: &[Cmd],
        is_late: impl Fn() -> bool,
    ) -> Result<Option<Vec<Value>>, RedisError> {
        let mut packed: Vec<Vec<u8>> = self.lines.iter().map(|_| Vec::new()).collect();
        let mut owners = Vec::with_capacity(commands.len());
        for command in commands {
            let owner = slot_of(command).map_or(0, |slot| self.layout.owner_of(slot));
            command.write_packed_command(&mut packed[owner]);
            owners.push(owner);
        }
        for (line, packed) in self.lines.iter_mut().zip(&packed) {
            if !packed.is_empty() {
                line.connection.send_packed_command(packed)?;
            }
        }
        let mut answers = Vec::with_capacity(commands.len());
        for owner in owners {
            answers.push(self.lines[owner].connection.recv_response()?);
            if is_late() {
                return Ok(None);
            }
        }
        Ok(Some(answers))
    }
}

/// Whether an error says that a part of a cluster has moved, or is on its way.
pub fn has_moved(error: &RedisError) -> bool {
    let kinds = [
        ServerErrorKind::Moved,
        ServerErrorKind::Ask,
        ServerErrorKind::TryAgain,
        ServerErrorKind::ClusterDown,
    ];
    matches!(error.kind(), ErrorKind::Server(kind) if kinds.contains(&kind))
}
