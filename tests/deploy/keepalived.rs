//! Two boxes with a floating address: keepalived reads its file for either box, its scripts do what they say, and addresses, ports and
//! kernel settings are those of the nginx beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files;
use crate::front::{BOXES, Front, nobody};
use crate::support::scratch;

fn conf() -> String {
    files::text("nginx-keepalived/keepalived.conf")
}

/// What stands in the file after a word, for one of the boxes.
fn said(name: &str, word: &str) -> Vec<String> {
    let text = conf();
    let mine = text
        .lines()
        .map(str::trim)
        .filter_map(|line| match line.strip_prefix('@') {
            None => Some(line),
            Some(rest) => {
                let (of, rest) = rest.split_once(' ').unwrap();
                let holds = match of.strip_prefix('^') {
                    Some(other) => other != name,
                    None => of == name,
                };
                holds.then_some(rest)
            }
        });
    mine.filter_map(|line| line.strip_prefix(word))
        .map(|rest| rest.trim().to_owned())
        .collect()
}

/// The file and its scripts in a folder, to be run by whoever runs the tests.
fn here(edit: &[(&str, &str)]) -> PathBuf {
    let folder = scratch("keepalived");
    fs::create_dir_all(&folder).unwrap();
    for script in ["nginx-alive.sh", "moved.sh"] {
        fs::copy(
            files::path("nginx-keepalived").join(script),
            folder.join(script),
        )
        .unwrap();
        fs::set_permissions(folder.join(script), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let interfaces = fs::read_dir("/sys/class/net").unwrap();
    let mut names = interfaces.map(|one| one.unwrap().file_name().into_string().unwrap());
    let interface = names
        .find(|name| Path::new("/sys/class/net").join(name).is_dir() && name != "lo")
        .expect("keepalived takes no loopback, and this machine has no other interface");
    let user = files::run("coreutils", Command::new("id").arg("-un"));
    let mut text = conf();
    let mut changes = vec![
        ("/etc/keepalived/", format!("{}/", folder.display())),
        ("eth0", interface),
        ("script_user root", format!("script_user {}", user.trim())),
    ];
    changes.extend(edit.iter().map(|(from, to)| (*from, (*to).to_owned())));
    for (from, to) in changes {
        assert!(text.contains(from), "no {from}");
        text = text.replace(from, &to);
    }
    fs::write(folder.join("keepalived.conf"), text).unwrap();
    folder
}

fn tested(folder: &Path, name: &str) -> (bool, String) {
    let mut command = Command::new("keepalived");
    command
        .arg("--config-test")
        .args(["--config-id", name, "--use-file"]);
    files::try_run("keepalived", command.arg(folder.join("keepalived.conf")))
}

#[test]
fn keepalived_reads_it_on_both_boxes_and_would_find_a_mistake() {
    let folder = here(&[]);
    for name in ["lb1", "lb2"] {
        let (ok, said) = tested(&folder, name);
        assert!(ok, "{name}: {said}");
    }
    for mistake in [
        ("nopreempt", "nopreemt"),
        ("nginx-alive.sh", "nginx-dead.sh"),
    ] {
        let (ok, said) = tested(&here(&[mistake]), "lb1");
        assert!(!ok && !said.is_empty(), "{mistake:?} is not found");
    }
}

#[test]
fn the_boxes_know_each_other_and_neither_takes_the_address_back() {
    let one = |name: &str, word: &str| {
        let said = said(name, word);
        assert_eq!(said.len(), 1, "{name}: {word}");
        said.concat()
    };
    let (mine, other) = (one("lb1", "unicast_src_ip"), one("lb2", "unicast_src_ip"));
    assert_ne!(mine, other);
    // The peer of each is the other's address, on a line of its own.
    assert_eq!(said("lb1", &other), [""]);
    assert_eq!(said("lb2", &mine), [""]);
    let priority = |name| one(name, "priority").parse::<u8>().unwrap();
    assert!(priority("lb1") > priority("lb2"));
    // keepalived takes nopreempt for a box that begins as BACKUP only.
    for name in ["lb1", "lb2"] {
        assert_eq!(one(name, "state"), "BACKUP");
        assert_eq!(one(name, "nopreempt"), "");
        let number = |word| one(name, word).parse::<u64>().unwrap();
        assert!(number("interval") >= number("timeout"));
        assert!(
            number("interval") * number("fall") >= 5,
            "a restart of nginx moves the address"
        );
    }
    let settings = files::settings(
        &files::path("nginx-keepalived/danmaku.toml"),
        &files::secrets(),
    );
    let mut speaks = vec![mine, other];
    let nginx = files::text(BOXES.file);
    let binds = nginx.lines().filter_map(|line| line.strip_prefix("  #  "));
    speaks.extend(binds.map(|line| {
        line.rsplit(' ')
            .next()
            .unwrap()
            .trim_end_matches(';')
            .to_owned()
    }));
    assert_eq!(
        files::list(&settings, "admission", "trusted_proxies"),
        speaks
    );
    assert_eq!(files::port(&settings, "public"), 8080);
    assert!(BOXES.nodes.iter().all(|node| node.ends_with(":8080")));
    // Every port of either box can be a viewer of a node.
    let ports = 65_535 - 1024 + 1;
    assert_eq!(
        files::number(&settings, "admission", "connections_max"),
        2 * ports
    );
    assert!(nginx.contains("64,512") && ports == 64_512);
}

#[test]
fn the_address_is_the_one_that_nginx_listens_at() {
    let address = said("lb1", "10.0.0.10/");
    assert_eq!(address, ["24 dev eth0"]);
    let nginx = files::text(BOXES.file);
    for port in [80, 443] {
        assert!(nginx.contains(&format!("listen 10.0.0.10:{port} ")));
    }
    let alive = files::text("nginx-keepalived/nginx-alive.sh");
    assert!(
        alive.contains("http://127.0.0.1:8089/alive") && nginx.contains("listen 127.0.0.1:8089;")
    );
}

#[test]
fn the_kernel_is_told_what_nginx_needs() {
    let text = files::text("nginx-keepalived/90-danmaku-front.conf");
    let settings: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(" = ").unwrap())
        .collect();
    for (key, _) in &settings {
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        // Connection tracking is a module, and some things belong to the machine and not to a container.
        let optional = key.starts_with("net.netfilter.");
        assert!(file.exists() || optional, "there is no {key}");
    }
    let of = |wanted: &str| {
        let found = settings.iter().find(|(key, _)| *key == wanted);
        found.unwrap_or_else(|| panic!("no {wanted}")).1
    };
    assert_eq!(of("net.ipv4.ip_nonlocal_bind"), "1");
    assert_eq!(of("net.ipv4.ip_local_port_range"), "1024 65535");
    let backlog: u64 = of("net.core.somaxconn").parse().unwrap();
    let nginx = files::text(BOXES.file);
    for asked in nginx.split("backlog=").skip(1) {
        let asked = asked.split([' ', ';']).next().unwrap();
        assert!(asked.parse::<u64>().unwrap() <= backlog, "{asked}");
    }
}

#[test]
fn the_check_sees_nginx_and_its_absence_and_does_not_ask_the_nodes() {
    let front = Front::start(BOXES, [nobody(), nobody(), nobody()], &[]);
    let check = |alive: &str| {
        let mut command = Command::new(files::path("nginx-keepalived/nginx-alive.sh"));
        files::try_run("curl", command.env("NGINX_ALIVE", alive)).0
    };
    let alive = format!("http://{}/alive", front.alive);
    assert!(check(&alive));
    drop(front);
    assert!(!check(&alive));
}

#[test]
fn a_box_that_lost_the_address_ends_its_connections_once() {
    let folder = scratch("moved");
    fs::create_dir_all(&folder).unwrap();
    for program in ["systemctl", "logger"] {
        let stub = folder.join(program);
        fs::write(
            &stub,
            "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/asked-${0##*/}\"\n",
        )
        .unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let restarts = || {
        let asked = fs::read_to_string(folder.join("asked-systemctl")).unwrap_or_default();
        assert!(asked.lines().all(|line| line == "restart nginx"), "{asked}");
        asked.lines().count()
    };
    let tell = |state: &str| {
        let out = Command::new(files::path("nginx-keepalived/moved.sh"))
            .args(["INSTANCE", "viewers", state, "100"])
            .env("PATH", &path)
            .env("KEPT", folder.join("state"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        restarts()
    };
    for (state, so_far) in [
        ("BACKUP", 0),
        ("MASTER", 0),
        ("MASTER", 0),
        ("FAULT", 1),
        ("BACKUP", 1),
        ("MASTER", 1),
        ("BACKUP", 2),
        ("STOP", 2),
    ] {
        assert_eq!(tell(state), so_far, "{state}");
    }
}
