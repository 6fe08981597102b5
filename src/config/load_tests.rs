//! Every kind of mistake, sources and their order, the open defaults.

use super::*;
use crate::config::show;

const SECRET: &str = "q8Zr1vT4mX7nB2kL9sD3fG6hJ0pW5yUc";

fn machine() -> Machine {
    Machine {
        cores: 3,
        random: std::array::from_fn(|i| i as u8),
    }
}

fn from(toml: &str, environment: &[(&str, &str)], cli: &Serve) -> Result<Loaded, Mistakes> {
    let mut gathered = Gathered::default();
    gathered.file("t.toml", toml);
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    gathered.environment(&mut environment.iter().map(owned));
    cli.flags(&mut gathered);
    assemble(gathered, &machine())
}

fn file(toml: &str) -> Result<Loaded, Mistakes> {
    from(toml, &[], &Serve::default())
}

fn only(toml: &str) -> Mistake {
    let mistakes = file(toml).expect_err("a mistake").0;
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes[0].clone()
}

#[test]
fn the_default_file_is_the_embedded_defaults() {
    let embedded = file("").unwrap();
    let written = file(&show::default_config()).unwrap();
    assert_eq!(written.config, embedded.config);
    let config = embedded.config;
    assert_eq!(config.server.shards, 3);
    assert_eq!(config.listen.public.to_string(), "127.0.0.1:8080");
    assert_eq!(config.auth.anonymous, Anonymous::Speak);
    assert_eq!(config.limits.head_bytes_max, 8192);
    assert_eq!(config.limits.text_bytes_max, 1024);
    assert_eq!(config.heartbeat.interval_ms, 30_000);
    assert_eq!(config.rooms.default.idle_after_ms, 300_000);
    assert!(embedded.generated_secret && embedded.generated_api_key.is_some());
}

#[test]
fn the_effective_settings_are_settings_again() {
    let toml = "[limits]\nlines_per_s = 7\n[auth]\nanonymous = \"watch\"\norigins = [\"https://a.b\"]\n[admission]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[[rooms.class]]\nmatch = \"vip-*\"\naccess = \"private\"\ntick = \"50ms\"\n";
    let loaded = file(toml).unwrap();
    let shown = show::effective(&loaded.config);
    let cut = shown.find("\n[[auth.keys]]").unwrap();
    let classes = shown.find("\n[[rooms.class]]").unwrap();
    let again = file(&format!("{}{}", &shown[..cut], &shown[classes..])).unwrap();
    assert_eq!(again.config, loaded.config);
    assert!(shown.contains("secret = \"(32 bytes)\""), "{shown}");
}

#[test]
fn every_mistake_at_once_with_its_place() {
    let mistakes = file("[limits]\nline_per_s = 3\ntext_bytes_max = \"huge\"\n\n[heartbeat]\ninterval = 30\n[romos]\nx = 1\n[rooms]\naccess = \"publik\"\n")
        .unwrap_err()
        .0;
    let said: Vec<(&str, &str, Option<&str>)> = mistakes
        .iter()
        .map(|m| (m.place.as_str(), m.key.as_str(), m.hint.as_deref()))
        .collect();
    for wanted in [
        (
            "t.toml:2:1",
            "limits.line_per_s",
            Some("did you mean lines_per_s?"),
        ),
        ("t.toml:3:1", "limits.text_bytes_max", None),
        (
            "t.toml:6:1",
            "heartbeat.interval",
            Some("give the unit: \"30s\" or \"30ms\""),
        ),
        ("t.toml:7:2", "romos", Some("did you mean rooms?")),
        (
            "t.toml:10:1",
            "rooms.access",
            Some("did you mean \"public\"?"),
        ),
    ] {
        assert!(said.contains(&wanted), "{wanted:?} not in {said:?}");
    }
    assert_eq!(said.len(), 5);
}

#[test]
fn kinds_are_checked() {
    assert_eq!(only("[limits]\nlines_per_s = -1\n").found, "-1");
    assert_eq!(
        only("[limits]\nlines_per_s = \"5\"\n").hint.as_deref(),
        Some("without quotes")
    );
    assert_eq!(
        only("[limits]\nhead_bytes_max = \"8KB\"\n").hint.as_deref(),
        Some("units are KiB, MiB, GiB")
    );
    assert!(only("[server]\nshards = 257\n").allowed.contains("256"));
    assert_eq!(
        only("[log]\naccess_sample = 1.5\n").key,
        "log.access_sample"
    );
    assert_eq!(
        only("[listen]\npublic = \"localhost\"\n").key,
        "listen.public"
    );
    assert_eq!(
        only("[auth]\norigins = [\"live.example\"]\n").key,
        "auth.origins"
    );
    assert_eq!(
        only("[auth]\norigins = \"*\"\n").hint.as_deref(),
        Some("in brackets: [\"*\"]")
    );
    assert_eq!(
        only("[admission]\ntrusted_proxies = [\"10.0.0.0/33\"]\n").key,
        "admission.trusted_proxies"
    );
    assert_eq!(
        only("[heartbeat]\ninterval = \"500ms\"\n").key,
        "heartbeat.interval"
    );
    assert_eq!(only("[redis]\nurl = \"http://x\"\n").key, "redis.url");
    assert_eq!(
        only("[rooms]\ndeliver_per_s_max = 1000001\n").key,
        "rooms.deliver_per_s_max"
    );
    assert_eq!(only("not toml").key, "the file as a whole");
    assert_eq!(
        only("[limits]\ntext_bytes_max = 20000\n").key,
        "limits.text_bytes_max"
    );
    assert_eq!(
        only("[listen]\ninternal = \"127.0.0.1:8080\"\n").key,
        "listen.internal"
    );
}

#[test]
fn flags_win_over_environment_over_file() {
    let toml = "[server]\nshards = 2\n[limits]\nlines_per_s = 2\nline_burst = 2\n";
    let environment = [
        ("DANMAKU_SERVER__SHARDS", "4"),
        ("DANMAKU_LIMITS__LINES_PER_S", "4"),
        ("HOME", "/"),
    ];
    let cli = Serve {
        shards: Some("8".into()),
        ..Serve::default()
    };
    let config = from(toml, &environment, &cli).unwrap().config;
    assert_eq!(
        (
            config.server.shards,
            config.limits.lines_per_s,
            config.limits.line_burst
        ),
        (8, 4, 2)
    );
}

#[test]
fn the_environment_is_checked_too() {
    let lists = from(
        "",
        &[("DANMAKU_AUTH__ORIGINS", "https://a.b, https://c.d")],
        &Serve::default(),
    )
    .unwrap();
    assert_eq!(
        lists.config.auth.origins,
        Origins::Listed(vec!["https://a.b".into(), "https://c.d".into()])
    );
    let typo = from(
        "",
        &[("DANMAKU_LIMIT__LINES_PER_S", "4")],
        &Serve::default(),
    )
    .unwrap_err();
    assert_eq!(
        typo.0[0].hint.as_deref(),
        Some("did you mean DANMAKU_LIMITS__LINES_PER_S?")
    );
    let wrong = from(
        "",
        &[("DANMAKU_SERVER__DEMO_PAGE", "maybe")],
        &Serve::default(),
    )
    .unwrap_err();
    assert_eq!(
        (wrong.0[0].place.as_str(), wrong.0[0].key.as_str()),
        ("DANMAKU_SERVER__DEMO_PAGE", "server.demo_page")
    );
}

#[test]
fn what_an_orchestrator_sets_is_not_ours() {
    let set = [
        ("DANMAKU_SERVICE_HOST", "10.0.0.1"),
        ("DANMAKU_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("DANMAKU_REDIS_SERVICE_PORT", "6379"),
        ("DANMAKU_PORT", "tcp://10.0.0.1:8080"),
    ];
    assert!(from("", &set, &Serve::default()).is_ok());
}

#[test]
fn short_names_for_one_key_each() {
    let environment = [
        ("DANMAKU_AUTH__SECRET", SECRET),
        ("DANMAKU_API_KEY", "0123456789abcdef"),
    ];
    let loaded = from("", &environment, &Serve::default()).unwrap();
    assert_eq!(loaded.config.auth.keys[0].kid, "default");
    assert_eq!(loaded.config.api_keys[0].name, "default");
    assert!(!loaded.generated_secret && loaded.generated_api_key.is_none());
    let weak = from(
        "",
        &[("DANMAKU_AUTH__SECRET", "changeme")],
        &Serve::default(),
    )
    .unwrap_err();
    assert!(!weak.to_string().contains("changeme"), "{weak}");
}

#[test]
fn open_defaults_stay_on_loopback() {
    let mistake = only("[listen]\npublic = \"0.0.0.0:80\"\n");
    assert_eq!(mistake.key, "listen.public");
    assert!(mistake.hint.unwrap().contains("DANMAKU_AUTH__SECRET"));
    let said = file("[listen]\npublic = \"0.0.0.0:80\"\n[auth]\nanonymous = \"watch\"\n").unwrap();
    assert_eq!(said.config.auth.anonymous, Anonymous::Watch);
    let keyed = format!(
        "[listen]\npublic = \"0.0.0.0:80\"\n[[auth.keys]]\nkid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    );
    assert_eq!(file(&keyed).unwrap().config.auth.anonymous, Anonymous::Deny);
    let mistake = only("[listen]\ninternal = \"0.0.0.0:81\"\n");
    assert!(mistake.hint.unwrap().contains("DANMAKU_API_KEY"));
}

#[test]
fn keys_are_whole_or_named() {
    let key = |lines: &str| only(&format!("[[auth.keys]]\n{lines}\n"));
    assert_eq!(
        key(&format!("algorithm = \"HS256\"\nsecret = \"{SECRET}\"")).key,
        "auth.keys.kid"
    );
    assert_eq!(
        key(&format!("kid = \"a\"\nsecret = \"{SECRET}\"")).key,
        "auth.keys.algorithm"
    );
    assert_eq!(
        key("kid = \"a\"\nalgorithm = \"HS256\"").key,
        "auth.keys.secret"
    );
    assert_eq!(
        key("kid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"short\"").found,
        "5 bytes"
    );
    assert_eq!(
        key(&format!(
            "kid = \"a\"\nalgorithm = \"RS256\"\nsecret = \"{SECRET}\""
        ))
        .key,
        "auth.keys.secret"
    );
    assert_eq!(
        key("kid = \"a\"\nalgorithm = \"RS256\"\npublic_key_file = \"/nowhere/at/all\"").key,
        "auth.keys.public_key_file"
    );
    assert_eq!(
        key("kid = \"a\"\nalgorithm = \"HS265\"\nsecret = \"x\"")
            .hint
            .as_deref(),
        Some("did you mean \"HS256\"?")
    );
    let twice =
        format!("[[auth.keys]]\nkid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n")
            .repeat(2);
    assert_eq!(only(&twice).found, "\"a\" a second time");
    assert_eq!(
        only("[[api_keys]]\nname = \"b\"\nkey = \"short\"\n").key,
        "api_keys.key"
    );
    assert_eq!(
        only("[[api_keys]]\nname = \"b\"\n").allowed,
        "exactly one of key and key_file"
    );
}

#[test]
fn classes_take_what_they_do_not_say_from_rooms() {
    let config = file("[rooms]\nhistory_lines = 7\n[[rooms.class]]\nmatch = \"vip-*\"\naccess = \"private\"\n[[rooms.class]]\nmatch = \"vip-1\"\n")
        .unwrap()
        .config;
    let vip = config.rooms.class_of("vip-1");
    assert_eq!((vip.access, vip.history_lines), (Access::Private, 7));
    assert_eq!(config.rooms.class_of("x").access, Access::Public);
    assert_eq!(
        only("[[rooms.class]]\nmatch = \"a b\"\n").key,
        "rooms.class.match"
    );
}

#[test]
fn a_reload_says_what_it_can_and_what_it_cannot_change() {
    let old = file("").unwrap().config;
    let new = file("[server]\nshards = 9\n[limits]\nlines_per_s = 9\n")
        .unwrap()
        .config;
    let (applied, needs_restart) = show::reload_diff(&old, &new);
    assert_eq!(
        (applied, needs_restart),
        (
            vec!["limits.lines_per_s".to_string()],
            vec!["server.shards".to_string()]
        )
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_how() {
    use std::io::ErrorKind;
    for (kind, hint) in [
        (ErrorKind::NotFound, "danmaku default-config >"),
        (ErrorKind::PermissionDenied, "chmod g+r"),
        (ErrorKind::IsADirectory, "name the file in it"),
        (ErrorKind::InvalidData, "UTF-8"),
    ] {
        assert!(unreadable_hint(kind).contains(hint), "{kind}");
    }
}

#[test]
fn the_doctor_gets_the_redis_that_the_gateway_refuses() {
    let serve = Serve {
        redis: Some("redis://:secret@h:port".into()),
        ..Serve::default()
    };
    let machine = || Machine {
        cores: 1,
        random: [7; 64],
    };
    let mistakes = load(&serve, &mut std::iter::empty(), &machine()).unwrap_err();
    let said = mistakes.to_string();
    assert!(
        said.contains("redis.url") && !said.contains("secret"),
        "{said}"
    );
    let (loaded, url) = load_apart_from_redis(&serve, &mut std::iter::empty(), &machine());
    assert!(loaded.is_ok());
    assert_eq!(url.as_deref(), Some("redis://:secret@h:port"));
    let none = Serve::default();
    let (_, url) = load_apart_from_redis(&none, &mut std::iter::empty(), &machine());
    assert_eq!(url, None);
}
