//! `docs/deploy/compose.yaml` and what it mounts: the schema of the compose specification, a real Redis by its own command, and every
//! address, port and time against the gateway's.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use yaml_rust2::Yaml;

use crate::files::{self, pairs, word, words};
use crate::front::{COMPOSE, nobody};
use crate::monitoring::promtool;
use crate::support::{Node, scratch, wait_for};

const GATEWAYS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];

fn compose() -> Yaml {
    files::yaml("compose.yaml").remove(0)
}

fn service(name: &str) -> Yaml {
    compose()["services"][name].clone()
}

/// What the README says to put into `.env`, made as it says.
fn dot_env() -> Vec<(String, String)> {
    let readme = files::text("README.md");
    let line = readme.lines().find(|line| line.ends_with("> .env"));
    let line = line.expect("the README makes no .env");
    let folder = scratch("env");
    std::fs::create_dir_all(&folder).unwrap();
    files::run(
        "openssl",
        Command::new("sh").args(["-c", line]).current_dir(&folder),
    );
    let made = std::fs::read_to_string(folder.join(".env")).unwrap();
    let pairs = made.lines().map(|line| line.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `${NAME:?..}` and `${NAME:-..}` put in; `$$` is one dollar.
fn interpolated(text: &str, given: &[(String, String)]) -> String {
    let mut whole = text.replace("$$", "\u{0}");
    while let Some(at) = whole.find("${") {
        let end = at + whole[at..].find('}').unwrap();
        let (name, rest) = whole[at + 2..end].split_once(':').unwrap();
        let found = given.iter().find(|(known, _)| known == name);
        let value = match (found, rest.strip_prefix('-')) {
            (Some((_, value)), _) => value.clone(),
            (None, Some(default)) => default.to_owned(),
            (None, None) => panic!("{name} is not in the README's .env"),
        };
        whole.replace_range(at..=end, &value);
    }
    whole.replace('\u{0}', "$")
}

/// The environment of a service, with that of its image.
fn environment(name: &str, given: &[(String, String)]) -> Vec<(String, String)> {
    let image = files::text("Dockerfile").replace("\\\n", " ");
    let image = image
        .lines()
        .find_map(|line| line.strip_prefix("ENV "))
        .unwrap()
        .to_owned();
    let image = image
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap());
    let mut all: Vec<_> = image
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (key, value) in pairs(&service(name)["environment"]) {
        all.push((key, interpolated(&word(value), given)));
    }
    all
}

fn settings(name: &str) -> toml::Table {
    files::settings(
        &files::path("compose/danmaku.toml"),
        &environment(name, &dot_env()),
    )
}

#[test]
fn it_is_what_the_specification_says() {
    let mut check = files::from_pip("check-jsonschema");
    check.args(["--builtin-schema", "vendor.compose-spec"]);
    files::run("check-jsonschema", check.arg(files::path("compose.yaml")));
    let wrong = scratch("compose.yaml");
    let text =
        files::text("compose.yaml").replace("stop_grace_period: 90s", "stop_grace_time: 90s");
    std::fs::write(&wrong, text).unwrap();
    let mut check = files::from_pip("check-jsonschema");
    check.args(["--builtin-schema", "vendor.compose-spec"]);
    let (ok, said) = files::try_run("check-jsonschema", check.arg(&wrong));
    assert!(!ok && said.contains("stop_grace_time"), "{said}");
}

#[test]
fn what_it_mounts_is_there_and_what_it_names_is_mounted() {
    for (name, service) in pairs(&compose()["services"]) {
        for volume in words(&service["volumes"]) {
            let from = volume.split(':').next().unwrap();
            let known = match from.strip_prefix("./") {
                Some(file) => files::path(file).exists(),
                None => !compose()["volumes"][from].is_badvalue(),
            };
            assert!(known, "{name}: {volume}");
        }
    }
    for name in GATEWAYS.iter().copied().chain(["nginx"]) {
        let file = words(&service(name)["command"])
            .into_iter()
            .find(|word| word.starts_with("/etc/danmaku/"));
        let file = file.unwrap().replace("/etc/danmaku/", "compose/");
        assert!(files::path(&file).exists(), "{file}");
        assert!(words(&service(name)["volumes"]).contains(&"./compose:/etc/danmaku:ro".to_owned()));
    }
    let build = service("gateway-1")["build"].clone();
    let context = files::path(&word(&build["context"]));
    assert!(context.join(word(&build["dockerfile"])).exists());
    let ignored = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".gitignore"));
    assert!(
        ignored.unwrap().lines().any(|line| line == ".env"),
        "secrets could be committed"
    );
}

#[test]
fn the_nodes_start_and_have_time_to_drain() {
    let mut names = BTreeSet::new();
    for name in GATEWAYS {
        let (settings, service) = (settings(name), service(name));
        names.insert(settings["server"]["node"].as_str().unwrap().to_owned());
        let grace = files::duration(&service["stop_grace_period"]);
        assert!(grace > files::time(&settings, "drain", "deadline"));
        assert_eq!(settings["auth"]["anonymous"].as_str(), Some("watch"));
        // All viewers in one descriptor table, and idle they fit the memory.
        let viewers = files::number(&settings, "admission", "connections_max");
        assert!(viewers + 1000 < word(&service["ulimits"]["nofile"]).parse().unwrap());
        assert!(files::memory_for(viewers) < files::bytes(&word(&service["mem_limit"])));
        // Whether it is to be started anew is the image's question.
        assert!(service["healthcheck"].is_badvalue());
    }
    assert_eq!(names.len(), GATEWAYS.len(), "{names:?}");
    let image = files::text("Dockerfile");
    assert!(image.contains("GET /healthz HTTP"));
}

#[test]
fn addresses_and_ports_agree() {
    let address = |name: &str| word(&service(name)["networks"]["front"]["ipv4_address"]);
    let nodes = GATEWAYS.map(address);
    let settings = settings("gateway-1");
    let (public, internal) = (
        files::port(&settings, "public"),
        files::port(&settings, "internal"),
    );
    assert_eq!(
        nodes.clone().map(|node| format!("{node}:{public}")),
        COMPOSE.nodes
    );
    let scraped = &files::yaml("compose/prometheus.yml")[0]["scrape_configs"][0];
    assert_eq!(word(&scraped["job_name"]), "danmaku");
    assert_eq!(
        words(&scraped["static_configs"][0]["targets"]),
        nodes.map(|node| format!("{node}:{internal}"))
    );
    assert_eq!(
        files::list(&settings, "admission", "trusted_proxies"),
        [address("nginx")]
    );
    // Of all of them nginx alone is open to others.
    for (name, service) in pairs(&compose()["services"]) {
        let ports = service["ports"]
            .as_vec()
            .map_or(vec![], |ports| ports.iter().map(word).collect());
        let open: Vec<_> = ports
            .iter()
            .filter(|port| !port.starts_with("127.0.0.1:"))
            .collect();
        assert_eq!(open.is_empty(), name != "nginx", "{name}: {open:?}");
        let networks = match &service["networks"] {
            list @ Yaml::Array(_) => words(list),
            map => pairs(map).into_iter().map(|(name, _)| name).collect(),
        };
        let knows_redis = name == "redis" || name.starts_with("gateway-");
        assert_eq!(networks.contains(&"back".to_owned()), knows_redis, "{name}");
    }
    assert_eq!(
        compose()["networks"]["back"]["internal"],
        Yaml::Boolean(true)
    );
    let published = words(&service("nginx")["ports"]);
    assert!(published[0].ends_with(":80") && files::text(COMPOSE.file).contains(COMPOSE.listens));
    let check = words(&service("nginx")["healthcheck"]["test"])
        .pop()
        .unwrap();
    assert_eq!(check, "http://127.0.0.1:8089/alive");
}

/// The Redis of the file, on a free port; ended when dropped.
struct Started(Child);
impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn its_redis_takes_the_gateways_and_nobody_without_a_password() {
    let given = dot_env();
    let redis = service("redis");
    let home = scratch("redis");
    std::fs::create_dir_all(&home).unwrap();
    let port = nobody().port();
    let mut conf = files::text("compose/redis.conf");
    for (from, to) in [
        ("port 6379", format!("port {port}")),
        ("bind * -::*", "bind 127.0.0.1".to_owned()),
        ("dir /data", format!("dir {}", home.display())),
    ] {
        assert!(conf.contains(from), "{from}");
        conf = conf.replace(from, &to);
    }
    std::fs::write(home.join("redis.conf"), conf).unwrap();
    let command = words(&redis["command"]);
    let [shell, flag, script] = &command[..] else {
        panic!("{command:?}")
    };
    let inside = "/usr/local/etc/redis/redis.conf";
    assert!(words(&redis["volumes"]).contains(&format!("./compose/redis.conf:{inside}:ro")));
    assert!(script.contains(inside), "{script}");
    let script =
        interpolated(script, &given).replace(inside, home.join("redis.conf").to_str().unwrap());
    let environment = pairs(&redis["environment"]);
    let environment = environment
        .into_iter()
        .map(|(name, value)| (name, interpolated(&word(value), &given)));
    let environment: Vec<_> = environment.collect();
    let child = Command::new(shell)
        .args([flag, &script])
        .envs(environment.clone())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _started = Started(child);
    let asked = |with: &[(String, String)], words: &str| {
        let script = words.replace("redis-cli", &format!("redis-cli -p {port}"));
        let mut shell = Command::new("sh");
        files::try_run(
            "redis-server",
            shell.args(["-c", &script]).envs(with.to_vec()),
        )
    };
    let check = words(&redis["healthcheck"]["test"]);
    assert_eq!(check[0], "CMD-SHELL");
    wait_for("the health check does not find Redis", || {
        asked(&environment, &check[1]).0
    });
    assert!(!asked(&[], &check[1]).0, "healthy without a password");
    assert!(asked(&[], "redis-cli ping").1.contains("NOAUTH"));
    let wide = asked(
        &environment,
        "redis-cli --user danmaku config get maxmemory",
    )
    .1;
    assert!(wide.contains("NOPERM"), "{wide}");
    // The node's own URL, but for where this Redis is.
    let own = self::environment("gateway-1", &given);
    let (_, url) = own
        .iter()
        .find(|(name, _)| name == "DANMAKU_REDIS__URL")
        .unwrap();
    let url = url.replace("@redis:6379", &format!("@127.0.0.1:{port}"));
    let node = Node::start_in("", &[("DANMAKU_REDIS__URL", &url)]);
    wait_for("the node does not find Redis", || {
        node.public("GET", "/readyz", &[], "").status == 200
    });
    let mut viewer = node.join("r");
    viewer.send(&serde_json::json!({"type":"danmaku","room":"r","text":"x"}));
    assert_eq!(viewer.expect("danmaku")["seq"], 1);
    assert_eq!(node.metric("danmaku_redis_breaker"), 0.0);
    let kept = asked(
        &environment,
        "redis-cli --user danmaku exists 'live:seq:{live:room:r}'",
    )
    .1;
    assert_eq!(kept.trim(), "1");
}

#[test]
fn a_full_redis_refuses_and_forgets_nothing() {
    let conf = files::text("compose/redis.conf");
    assert!(conf.contains("\nmaxmemory-policy noeviction\n"));
    let max = conf
        .split("\nmaxmemory ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    // Room for the copy while it writes its file anew.
    let limit = files::bytes(&word(&service("redis")["mem_limit"]));
    assert!(files::bytes(&max.replace("mb", "m")) * 2 <= limit);
    let rights =
        "+@read +@write +@pubsub +@scripting +@connection +time -@dangerous ~live:* &live:*";
    let redis =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/REDIS.md"));
    assert!(redis.unwrap().contains(rights));
    assert!(words(&service("redis")["command"])[2].contains(rights));
    assert!(files::text("README.md").contains(rights));
}

#[test]
fn promtool_reads_its_prometheus() {
    let folder = scratch("compose-prometheus");
    std::fs::create_dir_all(&folder).unwrap();
    for file in [
        "compose/prometheus.yml",
        "monitoring/recording.yml",
        "monitoring/alerts.yml",
    ] {
        let name = Path::new(file).file_name().unwrap();
        std::fs::copy(files::path(file), folder.join(name)).unwrap();
    }
    let config = folder.join("prometheus.yml");
    let said = promtool(&["check", "config", config.to_str().unwrap()]);
    assert!(said.contains("2 rule files found"), "{said}");
}
