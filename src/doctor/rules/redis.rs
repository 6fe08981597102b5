//! Judges a Redis by what it answered.

use super::super::facts::{Redis, RedisAnswers, RedisFault};
use super::super::report::{Finding, Report, Verdict, bytes};

/// A median round trip above this is felt: a line to another node takes two.
const MEDIAN_US_MAX: u64 = 5_000;
/// One answer as late as this is a stall.
const STALL_US: u64 = 50_000;
/// The first version with sharded pub/sub.
const MAJOR_MIN: u32 = 7;

/// Adds the findings.
pub fn judge(redis: &Redis, report: &mut Report) {
    match &redis.result {
        Err(fault) => report.findings.push(no_answer(&redis.address, fault)),
        Ok(answers) => {
            report.findings.push(round_trip(&redis.address, answers));
            report.findings.extend(version(answers));
            report.findings.extend(eviction(answers));
        }
    }
}

fn no_answer(address: &str, fault: &RedisFault) -> Finding {
    let bad = |found: String, means: &str| Finding::new("redis", Verdict::Bad, found, means);
    let form = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]";
    match fault {
        RedisFault::Url(why) => bad(
            format!("the URL is none: {why}"),
            "nothing was tried",
        )
        .mend("now", format!("danmaku doctor --redis {form}   # % codes for special characters of a password")),
        RedisFault::Tls(why) => bad(
            format!("{address} shows a certificate that is not trusted: {why}"),
            "whoever signed it is not among this machine's authorities, or it is for another name",
        )
        .mend("now", format!("SSL_CERT_FILE=/path/to/ca.pem danmaku doctor --redis rediss://{address}   # and for the gateway likewise")),
        RedisFault::Refused => bad(
            format!("{address} refuses the connection"),
            "nothing listens there: Redis is not running, or listens on another address or port",
        )
        .mend("now", "systemctl start redis-server; ss -ltn 'sport = :6379'   # and `bind`, `port` in redis.conf"),
        RedisFault::Unreachable(why) => bad(
            format!("{address} cannot be reached: {why}"),
            "the name or the way to it is wrong",
        )
        .mend("now", format!("getent hosts {}", host(address))),
        RedisFault::Timeout => bad(
            format!("{address} did not answer within 2 s"),
            "a firewall drops the packets, or Redis hangs",
        )
        .mend("now", format!("redis-cli -h {} ping; redis-cli -h {0} slowlog get 5", host(address))),
        RedisFault::Auth(said) => bad(
            format!("{address} does not let us in: {said}"),
            "user or password is missing or wrong (requirepass, ACL)",
        )
        .mend("now", format!("danmaku doctor --redis {form}   # redis://:PASSWORD@HOST for requirepass")),
        RedisFault::Other(said) => bad(format!("{address} answered: {said}"), "it cannot be used like this")
            .mend("now", format!("redis-cli -h {} info server", host(address))),
    }
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn round_trip(address: &str, answers: &RedisAnswers) -> Finding {
    let ms = |us: u64| us as f64 / 1000.0;
    let found = format!(
        "{address} answers in {:.2} ms (median of 20), {:.2} ms at most",
        ms(answers.median_us),
        ms(answers.max_us)
    );
    if answers.median_us > MEDIAN_US_MAX {
        let means = "it is far away: a line to viewers on another node takes two such trips";
        return Finding::new("redis", Verdict::Warn, found, means)
            .mend("for good", "run Redis in the same zone as the gateways");
    }
    if answers.max_us > STALL_US {
        let means = "it stalls now and then: large values, a slow disk, or a busy machine";
        return Finding::new("redis", Verdict::Warn, found, means).mend(
            "now",
            format!(
                "redis-cli -h {} slowlog get 5; redis-cli -h {0} latency doctor",
                host(address)
            ),
        );
    }
    Finding::new("redis", Verdict::Ok, found, "near enough")
}

fn version(answers: &RedisAnswers) -> Option<Finding> {
    let version = answers.version.as_deref()?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    let found = format!("version {version}");
    Some(match major < MAJOR_MIN {
        true => Finding::new(
            "redis version",
            Verdict::Warn,
            found,
            "sharded pub/sub came with 7.0: without it every node of a cluster hears every room",
        )
        .mend("for good", "apt-get install redis-server   # 7.0 or newer"),
        false => Finding::new("redis version", Verdict::Ok, found, "new enough"),
    })
}

fn eviction(answers: &RedisAnswers) -> Option<Finding> {
    const CHECK: &str = "redis eviction";
    let (max, policy) = (answers.memory_max?, answers.policy.as_deref()?);
    if max == 0 {
        let found = format!("maxmemory is not set, maxmemory-policy is {policy}");
        return Some(Finding::new(
            CHECK,
            Verdict::Ok,
            found,
            "nothing is evicted",
        ));
    }
    let found = format!("maxmemory is {}, maxmemory-policy is {policy}", bytes(max));
    Some(match policy {
        "noeviction" => Finding::new(
            CHECK,
            Verdict::Ok,
            found,
            "nothing is evicted; full, it refuses writes and says so",
        ),
        _ => Finding::new(
            CHECK,
            Verdict::Warn,
            found,
            "when it is full it drops keys in silence, rooms' counts among them",
        )
        .mend("now", "redis-cli CONFIG SET maxmemory-policy noeviction")
        .mend("for good", "maxmemory-policy noeviction   # in redis.conf"),
    })
}
