//! The thread that hears Redis: the channels of rooms with viewers here, and the node's own, by which it is made to look up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use redis::{ConnectionInfo, PubSub, RedisError};

use super::post::Post;
use super::{Shared, Start, connect, info, keys, post};
use crate::base::ids::{Epoch, RoomId};
use crate::bus::{Inward, Outward};
use crate::proto::node;

/// It looks up at least this often.
const LOOKS_UP: Duration = Duration::from_millis(250);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// What the asking thread hands over.
#[derive(Debug)]
pub enum Wish {
    /// Hear a room, and have it read once it is heard.
    Subscribe {
        room: RoomId,
        begin: Epoch,
        generation: u64,
    },
    /// Hear it no more.
    Unsubscribe { room: RoomId },
    /// Hear no room any more.
    Forget,
}

/// The thread's state.
pub struct Listener {
    info: Result<ConnectionInfo, RedisError>,
    me: Arc<str>,
    shared: Arc<Shared>,
    wished: Receiver<Wish>,
    asks: Sender<(u64, Outward)>,
    post: Post,
    own: String,
}

impl Listener {
    pub fn new(
        start: &Start,
        shared: Arc<Shared>,
        wished: Receiver<Wish>,
        asks: Sender<(u64, Outward)>,
    ) -> Listener {
        Listener {
            info: info(&start.url),
            own: keys::own(&start.me),
            me: Arc::clone(&start.me),
            post: post(start, &shared),
            shared,
            wished,
            asks,
        }
    }

    /// Until the process ends.
    pub fn run(self) {
        while !self.shared.stops() {
            if let Err(error) = self.listen() {
                tracing::debug!(node = %self.me, why = error.category(), "the connection that hears is lost");
            }
            self.shared.listening.store(false, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    fn listen(&self) -> Result<(), RedisError> {
        let mut connection = connect(&self.info.clone()?, LOOKS_UP)?;
        // Wishes from before are those of rooms that will be asked for once more.
        while self.wished.try_recv().is_ok() {}
        let mut heard = connection.as_pubsub();
        heard.subscribe(&self.own)?;
        self.shared.listening.store(true, Ordering::Relaxed);
        let mut rooms = 0_usize;
        while !self.shared.stops() {
            for wish in self.wished.try_iter() {
                match wish {
                    Wish::Subscribe {
                        room,
                        begin,
                        generation,
                    } => {
                        heard.subscribe(keys::channel(&room))?;
                        rooms += 1;
                        let read = Outward::Read {
                            room,
                            begin: Some(begin),
                            subscribed: true,
                        };
                        // Its thread lives as long as this one, or the process ends.
                        let _ = self.asks.send((generation, read));
                    }
                    Wish::Unsubscribe { room } => {
                        heard.unsubscribe(keys::channel(&room))?;
                        rooms = rooms.saturating_sub(1);
                    }
                    // A new connection hears nothing.
                    Wish::Forget if rooms > 0 => return Ok(()),
                    Wish::Forget => {}
                }
            }
            self.hear(&mut heard)?;
        }
        Ok(())
    }

    fn hear(&self, heard: &mut PubSub<'_>) -> Result<(), RedisError> {
        let message = match heard.get_message() {
            Ok(message) => message,
            Err(error) if error.is_timeout() => return Ok(()),
            Err(error) => return Err(error),
        };
        let channel = message.get_channel_name();
        if channel == self.own {
            let said: String = message.get_payload()?;
            if let Some(sent_ns) = said.strip_prefix("c ").and_then(|sent| sent.parse().ok()) {
                self.shared.canary_ns.store(sent_ns, Ordering::Release);
            }
            return Ok(());
        }
        let Some(room) = keys::room_of(channel) else {
            return Ok(());
        };
        let payload: Vec<u8> = message.get_payload()?;
        match node::parse(payload.into()) {
            Some(message) => self.post.to_home(
                &room,
                Inward::Came {
                    room: room.clone(),
                    message,
                },
            ),
            None => {
                tracing::warn!(%room, "something that is no message came by the room's channel")
            }
        }
        Ok(())
    }
}
