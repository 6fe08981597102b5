//! Asks a Redis: connect, twenty PINGs, version and memory policy. Main thread, with a deadline on everything but the look-up of
//! the name. It writes nothing there, and must never let a password into what it says.

use std::time::Duration;

use ::redis::{Client, Connection, ErrorKind, IntoConnectionInfo, RedisError, cmd};

use super::facts::{Redis, RedisAnswers, RedisFault};
use crate::base::clock::Clock;
use crate::config::redis_url;

/// To connect, and for each answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Round trips whose median is told.
const PINGS: usize = 20;

/// Asks the Redis at `url`: of several servers the first that answers.
pub fn ask(url: &str) -> Redis {
    let each = redis_url::each(url);
    let mut asked = each.iter().map(|url| ask_one(url));
    let first = asked.find(|redis| redis.result.is_ok());
    first.unwrap_or_else(|| ask_one(each.first().map_or(url, |url| url)))
}

fn ask_one(url: &str) -> Redis {
    let info = match url.into_connection_info() {
        Ok(info) => info,
        Err(error) => {
            return Redis {
                address: "redis".into(),
                result: Err(RedisFault::Url(url_fault(url, &error))),
            };
        }
    };
    let address = info.addr().to_string();
    let result = Client::open(info)
        .and_then(|client| client.get_connection_with_timeout(TIMEOUT))
        .and_then(|mut connection| answers(&mut connection))
        .map_err(|error| fault_of(&error));
    Redis { address, result }
}

fn answers(connection: &mut Connection) -> Result<RedisAnswers, RedisError> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    let clock = Clock::start();
    let mut trips_us = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = clock.mono_ns();
        cmd("PING").exec(connection)?;
        trips_us.push((clock.mono_ns() - begun) / 1000);
    }
    trips_us.sort_unstable();
    // A user without the right to INFO may still be good for the gateway.
    let info: String = cmd("INFO").query(connection).unwrap_or_default();
    Ok(RedisAnswers {
        median_us: trips_us[PINGS / 2],
        max_us: trips_us[PINGS - 1],
        version: field(&info, "redis_version"),
        memory_max: field(&info, "maxmemory").and_then(|max| max.parse().ok()),
        policy: field(&info, "maxmemory_policy"),
    })
}

/// A line `name:value` of INFO.
fn field(info: &str, name: &str) -> Option<String> {
    let mut lines = info.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_string())
}

/// What is wrong with a URL, without any of it but its scheme.
fn url_fault(url: &str, error: &RedisError) -> String {
    match url.split_once("://") {
        None => "it does not begin with redis://".into(),
        Some((scheme, _))
            if !matches!(
                scheme,
                "redis" | "rediss" | "unix" | "redis+unix" | "valkey"
            ) =>
        {
            let scheme: String = scheme.chars().take(16).collect();
            format!("{scheme:?} is not redis")
        }
        Some(_) => error
            .to_string()
            .split(':')
            .next()
            .unwrap_or_default()
            .trim_end_matches("- InvalidClientConfig")
            .trim()
            .to_lowercase(),
    }
}

fn fault_of(error: &RedisError) -> RedisFault {
    let code = error.code().unwrap_or_default();
    let said = error.detail().unwrap_or_default();
    if matches!(code, "NOAUTH" | "WRONGPASS") || error.kind() == ErrorKind::AuthenticationFailed {
        let said = match said.is_empty() {
            true => "wrong user or password",
            false => said.trim_end_matches('.'),
        };
        return RedisFault::Auth(said.into());
    }
    if error.is_connection_refusal() {
        return RedisFault::Refused;
    }
    if error.is_timeout() {
        return RedisFault::Timeout;
    }
    if error.to_string().contains("certificate") {
        return RedisFault::Tls(error.to_string());
    }
    match error.is_io_error() {
        true => RedisFault::Unreachable(error.to_string()),
        false => RedisFault::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_info_are_found() {
        let info = "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(field(info, "redis_version").as_deref(), Some("7.0.15"));
        assert_eq!(field(info, "maxmemory").as_deref(), Some("0"));
        assert_eq!(
            field(info, "maxmemory_policy").as_deref(),
            Some("noeviction")
        );
        assert_eq!(field(info, "nothing"), None);
    }

    #[test]
    fn a_wrong_url_is_told_without_its_password() {
        for url in [
            "host:6379",
            "http://:hunter2@host",
            "redis://:hunter2@",
            "redis://:hunter2@host:port",
            "redis://:hunter2@host/x",
            "",
        ] {
            let redis = ask(url);
            let said = format!("{redis:?}");
            assert!(!said.contains("hunter2"), "{url}: {said}");
            let is_wrong = matches!(redis.result, Err(RedisFault::Url(_)));
            assert!(is_wrong, "{url}: {said}");
        }
        let redis = ask("rediss://:hunter2@127.0.0.1:1");
        assert_eq!(redis.result, Err(RedisFault::Refused));
        assert!(!format!("{redis:?}").contains("hunter2"));
    }

    #[test]
    fn nobody_there_is_told() {
        // A port that was free a moment ago; nobody else takes it in that time.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let redis = ask(&format!("redis://:hunter2@{address}"));
        assert_eq!(redis.result, Err(RedisFault::Refused));
        assert_eq!(redis.address, address.to_string());
    }
}
