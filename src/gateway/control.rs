//! What the main thread does while shards serve: announce, wait for signals, reload, drain, stop.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::memory::Memory;
use super::{Gateway, Order, StartError, policy};
use crate::auth::mint::{MintClaims, mint};
use crate::base::identity::Role;
use crate::base::limits;
use crate::bus::{Control, Msg};
use crate::config::reload_diff;

/// How often.
const MEMORY_LOOKED_AT: Duration = Duration::from_secs(5);

impl Gateway {
    /// Says where it serves: the ready file for programs, a few lines for people.
    ///
    /// # Errors
    /// The ready file could not be written.
    pub fn announce(&self, order: &Order) -> Result<(), StartError> {
        tracing::info!(
            public = %self.public,
            internal = %self.internal,
            shards = self.addresses.len(),
            connections_max = self.node.connections.max(),
            node = %self.node.name,
            "serving"
        );
        let held = self.node.sockets_max.saturating_mul(self.addresses.len());
        if held < limits::FEW_VIEWERS {
            // Met later, it looks like a gateway that has stopped accepting.
            tracing::warn!(
                viewers_max = held,
                "the descriptor limit lets in few viewers: raise it (ulimit -n, LimitNOFILE=); `danmaku doctor` names the commands"
            );
        }
        let banner = self.banner(order);
        // A closed standard output is no reason not to serve.
        let _ = std::io::stdout().write_all(banner.as_bytes());
        let _ = std::io::stdout().flush();
        let Some(path) = &order.ready_file else {
            return Ok(());
        };
        let line = serde_json::json!({
            "public": self.public.to_string(),
            "internal": self.internal.to_string(),
            "pid": std::process::id(),
        });
        // Written aside and renamed, so that who waits for it never reads half a line.
        let aside = path.with_extension("tmp");
        std::fs::write(&aside, format!("{line}\n"))
            .and_then(|()| std::fs::rename(&aside, path))
            .map_err(|error| StartError::ReadyFile {
                path: path.clone(),
                error,
            })
    }

    /// Where viewers connect, the port as bound.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where back ends and scrapers connect.
    pub fn internal(&self) -> SocketAddr {
        self.internal
    }

    fn banner(&self, order: &Order) -> String {
        let (public, internal) = (self.public, self.internal);
        let mut text = format!(
            "danmaku-gateway {} is ready\n\n  viewers    ws://{public}/ws?room=1001\n",
            env!("CARGO_PKG_VERSION"),
        );
        if self.policy.config.server.demo_page {
            text.push_str(&format!("  stage      http://{public}/?room=1001\n"));
        }
        text.push_str(&format!("  internal   http://{internal}/metrics\n"));
        let token = MintClaims {
            user: "me",
            name: None,
            rooms: &[],
            role: Role::Viewer,
            ttl_s: 86_400,
            now_unix_s: self.node.clock.now().unix_s(),
        };
        if order.loaded.generated_secret
            && let Ok(token) = mint(&self.policy.config.auth, &token)
        {
            text.push_str(&format!(
                "  a token    {token}\n             (user me, 24 h, signed with a key made for this run)\n"
            ));
        }
        if let Some(key) = &order.loaded.generated_api_key {
            text.push_str(&format!(
                "  API key    {key}\n             (made for this run)\n"
            ));
            text.push_str(&format!(
                "\ntry:  npx wscat -c 'ws://{public}/ws?room=1001'\n      curl -H 'Authorization: Bearer {key}' --json '{{\"room\":\"1001\",\"text\":\"hello\"}}' http://{internal}/api/v1/danmaku/push\n"
            ));
        }
        for note in &order.loaded.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text.push('\n');
        text
    }

    /// Waits for signals until the process is to end.
    ///
    /// # Errors
    /// A shard ended by itself.
    pub fn control(mut self, mut order: Order) -> Result<(), StartError> {
        let (signals_tx, signals) = unbounded();
        watch_signals(signals_tx)?;
        let mut memory = Memory::default();
        loop {
            let signal = select! {
                recv(signals) -> signal => signal,
                recv(self.ended) -> ended => {
                    if let Ok(ended) = ended {
                        let why = ended.result.err().unwrap_or_else(|| "it stopped".into());
                        return Err(StartError::ShardEnded { shard: ended.shard.0, why });
                    }
                    continue;
                }
                default(MEMORY_LOOKED_AT) => {
                    memory.look(&self.node);
                    continue;
                }
            };
            match signal {
                Ok(SIGHUP) => self.reload(&mut order),
                Ok(_) | Err(_) => break,
            }
        }
        self.drain(&signals);
        self.stop();
        Ok(())
    }

    fn reload(&mut self, order: &mut Order) {
        let loaded = match (order.reload)() {
            Ok(loaded) => loaded,
            Err(mistakes) => {
                tracing::error!(%mistakes, "reload refused: the settings stay as they were");
                return;
            }
        };
        let new = match policy(&loaded) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "reload refused: the settings stay as they were");
                return;
            }
        };
        let (applied, needs_restart) = reload_diff(&self.policy.config, &new.config);
        order.log.set_level(new.config.log.level);
        let connections_max = match new.config.admission.connections_max {
            0 => self.node.sockets_max.saturating_mul(self.addresses.len()),
            max => max,
        };
        self.node.connections.set_max(connections_max);
        self.node
            .handshakes
            .set_max(new.config.admission.handshakes_max);
        self.policy = Arc::clone(&new);
        self.tell_all(|| Control::Reload(Arc::clone(&new)));
        tracing::info!(
            applied = applied.join(" "),
            needs_restart = needs_restart.join(" "),
            "reloaded"
        );
    }

    /// Readiness off, viewers told, closed in paced batches; a second signal or the deadline ends it early.
    fn drain(&self, signals: &Receiver<i32>) {
        let drain = &self.policy.config.drain;
        self.node.draining.store(true, Ordering::Relaxed);
        let viewers = self.node.connections.in_use();
        tracing::info!(viewers, "draining");
        let shards = self.addresses.len();
        let batch = drain.batch.div_ceil(shards);
        let interval_ms = drain.interval_ms;
        self.tell_all(|| Control::Drain { batch, interval_ms });
        let deadline = Instant::now() + Duration::from_millis(drain.deadline_ms);
        while self.node.connections.in_use() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.shards.iter().any(|shard| shard.is_finished()) {
                tracing::error!("a shard has ended while draining");
                return;
            }
            if left.is_zero() {
                let viewers = self.node.connections.in_use();
                tracing::warn!(viewers, "the drain's deadline has passed");
                return;
            }
            match signals.recv_timeout(left.min(Duration::from_millis(50))) {
                Err(RecvTimeoutError::Timeout) | Ok(SIGHUP) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                    tracing::warn!("a second signal: stopping at once");
                    return;
                }
            }
        }
    }

    fn stop(self) {
        self.tell_all(|| Control::Stop);
        for shard in self.shards {
            // A shard that panicked has said so on its channel.
            let _ = shard.join();
        }
        // All at once: what this node counted must not wait for brokers that are away.
        #[cfg(feature = "kafka")]
        if let Some(kafka) = &self.kafka {
            kafka.end();
        }
        if let Some(stream) = &self.stream {
            stream.end();
        }
        if let Some(bridge) = self.bridge {
            bridge.stop();
        }
        if let Some(stream) = self.stream {
            stream.join();
        }
        #[cfg(feature = "kafka")]
        if let Some(kafka) = self.kafka {
            kafka.join();
        }
        tracing::info!("stopped");
    }

    fn tell_all(&self, control: impl Fn() -> Control) {
        for (address, shard) in self.addresses.iter().zip(&self.shards) {
            let mut msg = Msg::Control(control());
            // A full mailbox empties within turns; the main thread may wait, a shard never does.
            while let Err(back) = address.mailbox.post(msg).map(|_| ()) {
                if shard.is_finished() {
                    break;
                }
                msg = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Err(error) = address.bell.ring() {
                tracing::error!(%error, "a shard could not be woken");
            }
        }
    }
}

fn watch_signals(to: Sender<i32>) -> Result<(), StartError> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(StartError::system("watch for signals"))?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in &mut signals {
                if to.send(signal).is_err() {
                    return;
                }
            }
        })
        .map(|_| ())
        .map_err(StartError::system("start the signal thread"))
}
