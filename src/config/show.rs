//! Settings shown to people: the annotated defaults, the effective settings, the verdict of `check-config`.

use std::fmt::Write;

use super::checked::*;
use super::cli::Serve;
use super::given::variable;
use super::keys::{ARRAYS, KEYS, show_ms};
use super::load::{Machine, load};

/// An annotated TOML file with every key and its default.
pub fn default_config() -> String {
    let mut text = String::from(
        "# danmaku-gateway: every setting and its default. Each is an environment variable too: DANMAKU_ and the path in\n# capitals, like DANMAKU_LIMITS__LINES_PER_S. Flags win over the environment, the environment over this file.\n",
    );
    let mut table = "";
    for key in KEYS {
        let Some((above, name)) = key.path.split_once('.') else {
            continue;
        };
        if above != table {
            examples_of(table, &mut text);
            let _ = write!(text, "\n[{above}]\n");
            table = above;
        }
        let _ = writeln!(text, "# {}", key.doc);
        let _ = writeln!(text, "{name} = {}", key.default);
    }
    examples_of(table, &mut text);
    text
}

fn examples_of(table: &str, text: &mut String) {
    for array in ARRAYS {
        let above = array.path.split('.').next().unwrap_or("");
        // api_keys has no table of its own; it comes after auth.
        if above == table || (above == "api_keys" && table == "auth") {
            let _ = write!(text, "\n{}", array.example);
        }
    }
}

/// `danmaku check-config`: what to print, and the exit code, 0 or 2.
pub fn check_config(
    serve: &Serve,
    environment: &mut dyn Iterator<Item = (String, String)>,
    machine: &Machine,
) -> (String, u8) {
    match load(serve, environment, machine) {
        Err(mistakes) => (format!("{mistakes}\n"), 2),
        Ok(loaded) => {
            let mut text = effective(&loaded.config);
            for note in &loaded.notes {
                let _ = writeln!(text, "# note: {note}");
            }
            (text, 0)
        }
    }
}

/// The settings as they take effect, as TOML; secrets by their length only.
pub fn effective(config: &Config) -> String {
    let mut text = String::new();
    let mut table = "";
    for key in KEYS {
        let Some((above, name)) = key.path.split_once('.') else {
            continue;
        };
        let Some(value) = value(config, key.path) else {
            continue;
        };
        if above != table {
            let _ = writeln!(
                text,
                "{}[{above}]",
                if table.is_empty() { "" } else { "\n" }
            );
            table = above;
        }
        let _ = writeln!(text, "{name} = {value}");
    }
    for key in &config.auth.keys {
        let material = match &key.material {
            KeyMaterial::Secret(secret) => format!("secret = \"({} bytes)\"", secret.len()),
            KeyMaterial::PublicPem(pem) => format!("public_key = \"({} bytes of PEM)\"", pem.len()),
        };
        let _ = write!(
            text,
            "\n[[auth.keys]]\nkid = {:?}\nalgorithm = \"{}\"\n{material}\n",
            key.kid,
            key.algorithm.as_str()
        );
    }
    for key in &config.api_keys {
        let _ = write!(
            text,
            "\n[[api_keys]]\nname = {:?}\nkey = \"({} bytes)\"\n",
            key.name,
            key.key.len()
        );
    }
    for (pattern, class) in &config.rooms.classes {
        let _ = write!(text, "\n[[rooms.class]]\nmatch = {pattern:?}\n");
        for (name, value) in class_values(class) {
            let _ = writeln!(text, "{name} = {value}");
        }
    }
    text
}

/// A setting's effective value as TOML; `None` for what has no effect in this version.
pub fn value(config: &Config, path: &str) -> Option<String> {
    let quoted = |text: &str| format!("{text:?}");
    let ms = |ms: u64| format!("\"{}\"", show_ms(ms));
    let (admission, limits, slow) = (&config.admission, &config.limits, &config.slow);
    Some(match path {
        "listen.public" => quoted(&config.listen.public.to_string()),
        "listen.internal" => quoted(&config.listen.internal.to_string()),
        "server.shards" => config.server.shards.to_string(),
        "server.fd_tables" => quoted(match config.server.fd_tables {
            FdTables::PerShard => "per-shard",
            FdTables::Shared => "shared",
        }),
        "server.node" => quoted(&config.server.node),
        "server.address" => quoted(&config.server.address),
        "server.region" => quoted(&config.server.region),
        "server.demo_page" => config.server.demo_page.to_string(),
        "server.compression" => config.server.compression.to_string(),
        "auth.anonymous" => quoted(match config.auth.anonymous {
            Anonymous::Deny => "deny",
            Anonymous::Watch => "watch",
            Anonymous::Speak => "speak",
        }),
        "auth.origins" => match &config.auth.origins {
            Origins::Same => "[]".into(),
            Origins::Any => "[\"*\"]".into(),
            Origins::Listed(listed) => format!("{listed:?}"),
        },
        "auth.issuer" => quoted(config.auth.issuer.as_deref().unwrap_or("")),
        "auth.audience" => quoted(config.auth.audience.as_deref().unwrap_or("")),
        "auth.leeway" => ms(config.auth.leeway_s * 1000),
        "admission.connections_max" => admission.connections_max.to_string(),
        "admission.handshakes_max" => admission.handshakes_max.to_string(),
        "admission.handshake_timeout" => ms(admission.handshake_timeout_ms),
        "admission.accepts_per_s" => admission.accepts_per_s.to_string(),
        "admission.accept_burst" => admission.accept_burst.to_string(),
        "admission.per_address_max" => admission.per_address_max.to_string(),
        "admission.trusted_proxies" => {
            let nets = admission.trusted_proxies.iter();
            let nets: Vec<String> = nets
                .map(|net| format!("{}/{}", net.address, net.prefix_bits))
                .collect();
            format!("{nets:?}")
        }
        "heartbeat.interval" => ms(config.heartbeat.interval_ms),
        "limits.head_bytes_max" => limits.head_bytes_max.to_string(),
        "limits.body_bytes_max" => limits.body_bytes_max.to_string(),
        "limits.message_bytes_max" => limits.message_bytes_max.to_string(),
        "limits.text_bytes_max" => limits.text_bytes_max.to_string(),
        "limits.body_timeout" => ms(limits.body_timeout_ms),
        "limits.connections_per_user_max" => limits.connections_per_user_max.to_string(),
        "limits.rooms_per_connection_max" => limits.rooms_per_connection_max.to_string(),
        "limits.lines_per_s" => limits.lines_per_s.to_string(),
        "limits.line_burst" => limits.line_burst.to_string(),
        "limits.room_lines_per_s" => limits.room_lines_per_s.to_string(),
        "slow.policy" => quoted(match slow.policy {
            SlowPolicy::Drop => "drop",
            SlowPolicy::Close => "close",
        }),
        "slow.outbox_bytes_max" => slow.outbox_bytes_max.to_string(),
        "slow.stuck_timeout" => ms(slow.stuck_timeout_ms),
        "slow.unsent_bytes_max" => slow.unsent_bytes_max.to_string(),
        "overload.lag" => ms(config.overload.lag_ms),
        "overload.memory_max" => config.overload.memory_max.to_string(),
        "drain.batch" => config.drain.batch.to_string(),
        "drain.interval" => ms(config.drain.interval_ms),
        "drain.deadline" => ms(config.drain.deadline_ms),
        "events.stream_max" => config.events.stream_max.to_string(),
        "kafka.brokers" => quoted(config.kafka.as_ref().map_or("", |kafka| &kafka.brokers)),
        "kafka.topic" => quoted(
            config
                .kafka
                .as_ref()
                .map_or("danmaku-events", |kafka| &kafka.topic),
        ),
        "kafka.options" => {
            let options = config.kafka.iter().flat_map(|kafka| &kafka.options);
            // A value may be a password.
            let names: Vec<String> = options.map(|(name, _)| format!("{name}=***")).collect();
            format!("{names:?}")
        }
        "redis.url" => quoted(&config.redis.as_ref().map_or(String::new(), Redis::shown)),
        "redis.cluster" => config
            .redis
            .as_ref()
            .is_some_and(|redis| redis.is_cluster)
            .to_string(),
        "redis.lease" => ms(config.redis.as_ref().map_or(15_000, |redis| redis.lease_ms)),
        "log.level" => quoted(&config.log.level.to_string().to_lowercase()),
        "log.format" => quoted(match config.log.format {
            LogFormat::Plain => "plain",
            LogFormat::Json => "json",
        }),
        "log.access_sample" => format!("{:?}", config.log.access_sample),
        path => {
            let name = path.strip_prefix("rooms.")?;
            let mut values = class_values(&config.rooms.default).into_iter();
            values.find(|(known, _)| *known == name)?.1
        }
    })
}

fn class_values(class: &RoomClass) -> [(&'static str, String); 6] {
    [
        ("access", format!("{:?}", class.access.as_str())),
        ("history_lines", class.history_lines.to_string()),
        ("log_bytes_max", class.log_bytes_max.to_string()),
        (
            "tick",
            match class.tick {
                Tick::Auto => "\"auto\"".into(),
                Tick::EveryMs(ms) => format!("\"{ms}ms\""),
            },
        ),
        ("deliver_per_s_max", class.deliver_per_s_max.to_string()),
        (
            "idle_after",
            format!("\"{}\"", show_ms(class.idle_after_ms)),
        ),
    ]
}

/// What a reload changes at once, and what waits for a restart, by key path.
pub fn reload_diff(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let fixed = |path: &str| {
        path.starts_with("listen.")
            || path.starts_with("server.")
            || path.starts_with("redis.")
            || ["log.format", "slow.unsent_bytes_max"].contains(&path)
    };
    let (mut applied, mut needs_restart) = (Vec::new(), Vec::new());
    for key in KEYS {
        if value(old, key.path) != value(new, key.path) {
            match fixed(key.path) {
                true => needs_restart.push(key.path.to_string()),
                false => applied.push(key.path.to_string()),
            }
        }
    }
    let arrays = [
        ("auth.keys", old.auth.keys != new.auth.keys),
        ("api_keys", old.api_keys != new.api_keys),
        ("rooms.class", old.rooms.classes != new.rooms.classes),
    ];
    applied.extend(
        arrays
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(path, _)| path.into()),
    );
    (applied, needs_restart)
}

/// A table of every setting for the documentation: key, variable, default, allowed, meaning.
pub fn reference() -> String {
    let mut text = String::from("| key | environment | default | meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let _ = writeln!(
            text,
            "| `{}` | `{}` | `{}` | {} |",
            key.path,
            variable(key),
            key.default,
            key.doc
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/OPERATIONS.md` ends with this table; `WRITE_DOCS=1 cargo test --lib config::show` rewrites it.
    #[test]
    fn the_documented_settings_are_the_settings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let heading = "## Settings\n\n";
        let at = text.find(heading).expect("a heading") + heading.len();
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{}{}", &text[..at], reference())).unwrap();
            return;
        }
        assert!(
            text[at..] == reference(),
            "docs/OPERATIONS.md is not up to date"
        );
    }
}
