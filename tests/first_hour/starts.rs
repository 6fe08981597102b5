//! Starts that are refused: words, addresses, files, settings, and a machine that gives too little.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Node, PATIENCE, SECRET, binary, scratch, wait_for};

/// One way to start it wrongly.
#[derive(Default)]
struct Start<'a> {
    arguments: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    /// Written to a file that `--config` names.
    toml: Option<&'a str>,
    /// Descriptors it may have.
    descriptors: Option<u32>,
    /// KiB of address space it may have.
    memory_kib: Option<u32>,
    exit: i32,
    /// What must be said, all of it.
    says: &'a [&'a str],
    /// What must not.
    never: &'a str,
}

impl Start<'_> {
    /// Runs it to its end; one that serves instead is ended and fails the test.
    fn run(&self) -> (Output, String) {
        let limit = |letter: char, to: u32| format!("ulimit -{letter} {to}; ");
        let descriptors = self.descriptors.map(|to| limit('n', to));
        let memory = self.memory_kib.map(|to| limit('v', to));
        let limits: String = descriptors.into_iter().chain(memory).collect();
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{limits}exec \"$0\" \"$@\"")])
            .arg(binary());
        command.args(self.arguments);
        if let Some(toml) = self.toml {
            let file = scratch("start.toml");
            std::fs::write(&file, toml).unwrap();
            command.arg("--config").arg(file);
        }
        let mut child = command
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{:?} did not end", self.arguments);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        let said = said.into_owned();
        (out, said)
    }

    fn check(&self) {
        let (out, said) = self.run();
        let what = format!(
            "{:?} {:?} {:?}",
            self.arguments, self.environment, self.toml
        );
        assert_eq!(out.status.code(), Some(self.exit), "{what}\n{said}");
        for needle in self.says {
            assert!(said.contains(needle), "{what}: no {needle:?} in\n{said}");
        }
        let leaks = !self.never.is_empty() && said.contains(self.never);
        assert!(!leaks, "{what}: {:?} in\n{said}", self.never);
    }
}

/// Flags that keep a run away from fixed ports.
const FREE: [&str; 4] = [
    "--listen",
    "127.0.0.1:0",
    "--internal-listen",
    "127.0.0.1:0",
];

#[test]
fn words_and_values_that_are_wrong() {
    let rows = [
        Start {
            arguments: &["--nonsense"],
            exit: 2,
            says: &[
                "unexpected argument '--nonsense'",
                "danmaku [OPTIONS]",
                "--help",
            ],
            ..Start::default()
        },
        Start {
            arguments: &["servee"],
            exit: 2,
            says: &["unrecognized subcommand 'servee'", "'serve'"],
            ..Start::default()
        },
        Start {
            arguments: &["token"],
            exit: 2,
            says: &["--user <U>"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u"],
            exit: 2,
            says: &["DANMAKU_AUTH__SECRET", "[[auth.keys]]", "openssl rand"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u", "--role", "king"],
            exit: 2,
            says: &["'king'", "viewer, host, moderator, admin"],
            ..Start::default()
        },
        Start {
            arguments: &["token", "--user", "u", "--ttl", "5"],
            exit: 2,
            says: &["'5'", "30m or 24h"],
            ..Start::default()
        },
        Start {
            arguments: &["completions", "tcsh"],
            exit: 2,
            says: &["'tcsh'", "bash", "zsh", "fish", "elvish", "powershell"],
            ..Start::default()
        },
        Start {
            arguments: &["--shards", "-1"],
            exit: 2,
            says: &["--shards: server.shards", "\"-1\"", "from 0 to 256"],
            ..Start::default()
        },
        Start {
            arguments: &["--shards", "9999"],
            exit: 2,
            says: &["--shards: server.shards", "9999", "from 0 to 256"],
            never: "without quotes",
            ..Start::default()
        },
        Start {
            arguments: &["--redis", "http://u:hunter2@h"],
            exit: 2,
            says: &[
                "--redis: redis.url",
                "redis://[user:password@]host",
                "danmaku doctor --redis",
            ],
            never: "hunter2",
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn addresses_that_are_none_or_that_open_too_much() {
    let address = |listen: &'static str, hint: &'static str| {
        let arguments: &'static [&'static str] = vec!["--listen", listen].leak();
        let says: &'static [&'static str] = vec!["--listen: listen.public", hint].leak();
        Start {
            arguments,
            exit: 2,
            says,
            ..Start::default()
        }
    };
    let rows = [
        address("8080", "\"127.0.0.1:8080\" for this machine alone"),
        address(":8080", "\"0.0.0.0:8080\" for all"),
        address(
            "localhost:8080",
            "\"127.0.0.1:8080\": names are not looked up",
        ),
        address("live.example:80", "give the address itself"),
        address("127.0.0.1", "give the port too"),
        address("0.0.0.0:0", "DANMAKU_AUTH__SECRET"),
        Start {
            arguments: &["--listen", "127.0.0.1:0", "--internal-listen", "0.0.0.0:0"],
            exit: 2,
            says: &["--internal-listen: listen.internal", "DANMAKU_API_KEY"],
            ..Start::default()
        },
        Start {
            arguments: &[
                "--listen",
                "127.0.0.1:9",
                "--internal-listen",
                "127.0.0.1:9",
            ],
            exit: 2,
            says: &["which is listen.public too", "another address"],
            ..Start::default()
        },
        // An address of the documentation's own range: no machine has it.
        Start {
            arguments: &[
                "--listen",
                "192.0.2.1:8080",
                "--internal-listen",
                "127.0.0.1:0",
            ],
            environment: &[("DANMAKU_AUTH__SECRET", SECRET)],
            exit: 1,
            says: &[
                "192.0.2.1:8080",
                "listen.public",
                "no such address",
                "--listen",
            ],
            never: SECRET,
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (text, port) = (address.to_string(), address.port());
    let who = format!("ss -ltnp 'sport = :{port}'");
    for (flag, setting, other) in [
        ("--listen", "listen.public", "--internal-listen"),
        ("--internal-listen", "listen.internal", "--listen"),
    ] {
        Start {
            arguments: &[flag, &text, other, "127.0.0.1:0"],
            exit: 1,
            says: &[
                &text,
                setting,
                "already in use",
                &who,
                &format!("use {flag}"),
            ],
            ..Start::default()
        }
        .check();
    }
}

#[test]
fn config_files_that_cannot_be_used() {
    let folder = std::env::temp_dir();
    let folder = folder.to_str().unwrap();
    let binary_file = scratch("binary.toml");
    std::fs::write(&binary_file, [0xff, 0xfe, 0x00]).unwrap();
    let nothing = scratch("nothing.toml");
    let rows = [
        (
            nothing.to_str().unwrap(),
            "danmaku default-config > danmaku.toml",
        ),
        (folder, "name the file in it"),
        (binary_file.to_str().unwrap(), "UTF-8"),
    ];
    for (file, hint) in rows {
        Start {
            arguments: &["--config", file],
            exit: 2,
            says: &[file, "--config", hint],
            ..Start::default()
        }
        .check();
        Start {
            environment: &[("DANMAKU_CONFIG", file)],
            exit: 2,
            says: &[file, "DANMAKU_CONFIG", hint],
            ..Start::default()
        }
        .check();
    }
}

#[test]
fn settings_that_are_wrong() {
    let file = |toml: &'static str, says: &'static [&'static str]| Start {
        toml: Some(toml),
        exit: 2,
        says,
        ..Start::default()
    };
    let rows = [
        file("listen {\n", &["start.toml:1:8", "TOML", "default-config"]),
        file(
            "[limits]\nline_per_s = 3\n",
            &[
                "start.toml:2:1: limits.line_per_s",
                "did you mean lines_per_s?",
            ],
        ),
        file("[limts]\nx = 1\n", &["limts", "did you mean limits?"]),
        file("[heartbeat]\ninterval = 30\n", &["give the unit: \"30s\""]),
        file("[limits]\nlines_per_s = \"5\"\n", &["without quotes"]),
        file("[limits]\nbody_bytes_max = \"64KB\"\n", &["units are KiB"]),
        file(
            "[listen]\npublic = 8080\n",
            &["\"127.0.0.1:8080\" for this machine"],
        ),
        file(
            "[auth]\norigins = \"https://a.example\"\n",
            &["in brackets"],
        ),
        file(
            "[rooms]\naccess = \"secret\"\n",
            &["\"public\", \"login\", \"private\""],
        ),
        Start {
            environment: &[("DANMAKU_LISTN__PUBLIC", "x")],
            exit: 2,
            says: &[
                "environment: DANMAKU_LISTN__PUBLIC",
                "did you mean DANMAKU_LISTEN__PUBLIC?",
            ],
            ..Start::default()
        },
        Start {
            environment: &[("DANMAKU_AUTH__SECRET", "hunter2")],
            exit: 2,
            says: &["7 bytes", "at least 32 random bytes", "openssl rand"],
            never: "hunter2",
            ..Start::default()
        },
        Start {
            environment: &[("DANMAKU_API_KEY", "hunter2")],
            exit: 2,
            says: &[
                "DANMAKU_API_KEY",
                "at least 16 random bytes",
                "openssl rand",
            ],
            never: "hunter2",
            ..Start::default()
        },
    ];
    rows.iter().for_each(Start::check);
}

#[test]
fn a_machine_that_gives_too_little() {
    for descriptors in [20, 64] {
        Start {
            arguments: &[&FREE[..], &["--shards", "2"]].concat(),
            descriptors: Some(descriptors),
            exit: 1,
            says: &[
                &format!("descriptor limit of {descriptors}"),
                "2 shards need 69",
                "ulimit -n 65536",
                "LimitNOFILE=65536",
                "danmaku doctor",
            ],
            ..Start::default()
        }
        .check();
    }
    for memory_kib in [20_000, 50_000] {
        Start {
            arguments: &[&FREE[..], &["--shards", "2"]].concat(),
            memory_kib: Some(memory_kib),
            exit: 1,
            says: &["ulimit -v", "2 shards need 96 MiB", "--shards 1"],
            never: "panicked",
            ..Start::default()
        }
        .check();
    }
    let nowhere = scratch("no-folder").join("ready.json");
    let nowhere = nowhere.to_str().unwrap();
    Start {
        arguments: &[&FREE[..], &["--ready-file", nowhere]].concat(),
        exit: 1,
        says: &["--ready-file", nowhere, "a folder that exists"],
        ..Start::default()
    }
    .check();
}

#[test]
fn few_descriptors_are_said_at_start() {
    let config = scratch("few.toml");
    let toml =
        "[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n[server]\nshards = 2\n";
    std::fs::write(&config, toml).unwrap();
    let node = Node::run_with_descriptors(config, 100);
    // The log is written from a thread of its own, so it may come after the ready file.
    for needle in [
        "viewers_max=64",
        "ulimit -n",
        "LimitNOFILE=",
        "danmaku doctor",
    ] {
        wait_for(needle, || node.logged().contains(needle));
    }
}
