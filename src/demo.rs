//! `danmaku demo`: the gateway with a crowd of bots in the same process, for showing. The bots are the swarm's clients on
//! threads of their own, each with its own descriptor table; they connect over loopback like anyone else, and nothing in
//! the gateway knows of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use danmaku_swarm::client::upgrade::Upgrade;
use danmaku_swarm::dialect::{Dialect, Room};
use danmaku_swarm::plan::{Api, Minter, Plan, Target};
use danmaku_swarm::report::Ended;
use danmaku_swarm::run::{self, Stop};
use danmaku_swarm::scenario::{Options, Scenario};
use danmaku_swarm::voice::{NAMES, Voice};

use crate::auth::mint::{MintClaims, mint};
use crate::base::clock::Clock;
use crate::base::identity::Role;
use crate::config::checked::Auth;
use crate::config::cli::Demo;
use crate::gateway::{Gateway, Order, StartError};

/// Rooms the bots are in: most in the first.
const ROOMS: [&str; 4] = ["1001", "1002", "1003", "1004"];
/// Share of the bots in the first room.
const HOT: f64 = 0.8;
/// Mean stay of a bot before it goes elsewhere.
const STAY: Duration = Duration::from_secs(180);
/// Bots that arrive per second: a hall that fills.
const ARRIVALS_PER_S: f64 = 1000.0;
/// Bots one thread holds at most: below the 20,000 descriptors some machines allow a table.
const BOTS_PER_THREAD: usize = 15_000;
/// How long a bot's token is good for, seconds.
const TOKEN_S: u64 = 30 * 24 * 3600;

/// Starts the gateway, fills it with bots, serves until a signal.
///
/// # Errors
/// What kept the gateway from starting, or a shard that ended by itself.
pub fn serve(asked: &Demo, order: Order) -> Result<(), StartError> {
    let gateway = Gateway::start(&order)?;
    gateway.announce(&order)?;
    let bots = Bots::start(asked, &gateway, &order);
    println!(
        "  demo       {} bots in rooms {} to {}: {} lines a second, {} gifts a minute; open the page and join in\n             (Ctrl-C ends)\n",
        asked.bots,
        ROOMS[0],
        ROOMS[ROOMS.len() - 1],
        asked.rate,
        asked.gifts
    );
    let served = gateway.control(order);
    bots.stop();
    served
}

/// The crowd.
struct Bots {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Bots {
    fn start(asked: &Demo, gateway: &Gateway, order: &Order) -> Bots {
        let plan = Arc::new(plan(asked, gateway, order));
        let stop = Arc::new(Stop::default());
        let stopped = Arc::clone(&stop);
        let crowd = move || {
            let order = run::Order {
                plan,
                server_pid: None,
                metrics: None,
                stop: stopped,
                server_alive: &mut || true,
                face: &mut |_| {},
            };
            let report = run::run(order);
            if let Ended::Failed(why) = report.ended {
                tracing::error!(%why, "the bots are gone");
            }
        };
        let thread = std::thread::Builder::new().name("bots".into()).spawn(crowd);
        if let Err(error) = &thread {
            tracing::error!(%error, "no thread for the bots");
        }
        Bots {
            stop,
            thread: thread.ok(),
        }
    }

    fn stop(self) {
        // Nobody waits for what is still under way.
        self.stop.ask();
        self.stop.ask();
        if let Some(thread) = self.thread {
            // What a bot thread has to say about its end helps no one any more.
            let _ = thread.join();
        }
    }
}

fn plan(asked: &Demo, gateway: &Gateway, order: &Order) -> Plan {
    let bots = asked.bots as usize;
    let options = Options {
        viewers: bots,
        rooms: ROOMS.len(),
        hot: HOT,
        lines_per_s: f64::from(asked.rate),
        gifts_per_s: f64::from(asked.gifts) / 60.0,
        pushers: 2,
        ramp_per_s: ARRIVALS_PER_S,
        threads: bots.div_ceil(BOTS_PER_THREAD),
        stay: STAY,
        ..Options::of(Scenario::Mixed)
    };
    let config = &order.loaded.config;
    let public = reachable(gateway.public());
    let target = Target {
        address: public,
        upgrade: Upgrade {
            host: public.to_string(),
            path: "/ws".into(),
            subprotocol: None,
            origin: None,
        },
        api: config.api_keys.first().map(|key| Api {
            address: reachable(gateway.internal()),
            key: Some(key.key.clone()),
        }),
        minter: minter(&config.auth),
    };
    let mut plan = options.plan(target, Dialect::Danmaku, "~demo:", Voice::Chat);
    plan.rooms = ROOMS.map(|room| Room::new(room.into())).into();
    plan.run_us = None;
    plan.keeps_books = false;
    plan
}

/// Bots with names, where there is a key to sign their tokens with; otherwise they are anonymous.
fn minter(auth: &Auth) -> Option<Arc<Minter>> {
    let auth = auth.clone();
    let now_unix_s = Clock::start().now().unix_s();
    let token = move |bot: u32| {
        let claims = MintClaims {
            user: &format!("bot-{bot}"),
            name: Some(NAMES[bot as usize % NAMES.len()]),
            rooms: &[],
            role: Role::Viewer,
            ttl_s: TOKEN_S,
            now_unix_s,
        };
        mint(&auth, &claims).map_err(|error| error.to_string())
    };
    match token(0) {
        Ok(_) => Some(Arc::new(Minter::new(token))),
        Err(why) => {
            tracing::warn!(%why, "the bots come without names");
            None
        }
    }
}

/// An address to connect to: a listener on every address is reached on loopback.
fn reachable(listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port()))
    } else {
        listener
    }
}
