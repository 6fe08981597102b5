//! `danmaku doctor`: what this machine can hold, what limits it first, and the command that mends each finding.
//!
//! Runs on the main thread of a process that serves nobody. `read` and `redis` ask the machine, `rules` judge what they
//! found, `report` says it. It changes nothing: no limit is raised, no address bound.

mod facts;
mod read;
mod redis;
mod report;
mod rules;

use crate::config::cli;
use crate::config::load::{Machine, load_apart_from_redis};

/// Looks at everything: what to print, and the exit code: 0 if nothing is bad, else 1.
pub fn examine(
    asked: &cli::Doctor,
    environment: &mut dyn Iterator<Item = (String, String)>,
    machine: &Machine,
) -> (String, u8) {
    let serve = cli::Serve {
        config: asked.config.clone(),
        shards: asked.shards.clone(),
        redis: asked.redis.clone(),
        ..cli::Serve::default()
    };
    let (loaded, redis_url) = load_apart_from_redis(&serve, environment, machine);
    let plan = read::plan(loaded, machine);
    let mut facts = read::machine(plan);
    facts.redis = redis_url.map(|url| redis::ask(&url));
    let report = rules::judge(&facts);
    let text = match asked.json {
        true => report.json(),
        false => report.text(),
    };
    (text, report.exit_code())
}
