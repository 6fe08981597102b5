//! What the tests of the deployment files share: reading them, running the programs they are for, and the gateway's own judgement.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::{API_KEY, SECRET, binary};

/// A path below `docs/deploy`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/deploy")
        .join(name)
}

/// The text of a file there.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a YAML file there, merge keys (`<<`) worked in.
pub fn yaml(name: &str) -> Vec<Yaml> {
    let documents =
        YamlLoader::load_from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    documents.into_iter().map(merged).collect()
}

fn merged(yaml: Yaml) -> Yaml {
    match yaml {
        Yaml::Hash(given) => {
            let mut whole = Hash::new();
            let merge = Yaml::String("<<".into());
            if let Some(Yaml::Hash(base)) = given.get(&merge).cloned().map(merged) {
                whole.extend(base);
            }
            for (key, value) in given.into_iter().filter(|(key, _)| *key != merge) {
                whole.insert(key, merged(value));
            }
            Yaml::Hash(whole)
        }
        Yaml::Array(all) => Yaml::Array(all.into_iter().map(merged).collect()),
        other => other,
    }
}

/// A scalar as it is written.
pub fn word(yaml: &Yaml) -> String {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(is) => is.to_string(),
        other => panic!("no word: {other:?}"),
    }
}

/// Names and values of a mapping.
pub fn pairs(yaml: &Yaml) -> Vec<(String, &Yaml)> {
    let hash = yaml
        .as_hash()
        .unwrap_or_else(|| panic!("no mapping: {yaml:?}"));
    hash.iter().map(|(key, value)| (word(key), value)).collect()
}

/// The words of a list.
pub fn words(yaml: &Yaml) -> Vec<String> {
    let list = yaml.as_vec().unwrap_or_else(|| panic!("no list: {yaml:?}"));
    list.iter().map(word).collect()
}

/// "90s", "1h", or seconds as a number.
pub fn duration(yaml: &Yaml) -> Duration {
    match yaml {
        Yaml::Integer(seconds) => Duration::from_secs(u64::try_from(*seconds).unwrap()),
        other => humantime::parse_duration(&word(other)).unwrap(),
    }
}

/// Runs a program of a package and gives what it says; it must be there and succeed.
pub fn run(package: &str, command: &mut Command) -> String {
    let (ok, said) = try_run(package, command);
    assert!(ok, "{command:?}: {said}");
    said
}

/// The same, where it may fail.
pub fn try_run(package: &str, command: &mut Command) -> (bool, String) {
    // Debian keeps nginx and keepalived where only root's path leads.
    let path = std::env::var("PATH").unwrap() + ":/usr/sbin";
    let out = command.env("PATH", path).output();
    let out = out.unwrap_or_else(|error| panic!("{command:?} (package {package}): {error}"));
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), said.into_owned())
}

/// A program that pip brought.
pub fn from_pip(program: &str) -> Command {
    let tool = crate::support::clients::clients()
        .join("venv/bin")
        .join(program);
    assert!(
        tool.exists(),
        "{program} (pip) is not in {}: run scripts/test.sh",
        tool.display()
    );
    Command::new(tool)
}

/// The settings a node has with this file and environment, all of them, as `check-config` shows them; a mistake fails the test.
pub fn settings(config: &Path, environment: &[(String, String)]) -> toml::Table {
    let mut command = Command::new(binary());
    command.arg("check-config").arg("--config").arg(config);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let shown = run("danmaku", &mut command);
    shown
        .parse()
        .unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// The two secrets without which a node serves nobody but its own machine.
pub fn secrets() -> Vec<(String, String)> {
    let pairs = [
        ("DANMAKU_AUTH__SECRET", SECRET),
        ("DANMAKU_API_KEY", API_KEY),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// A setting's duration.
pub fn time(settings: &toml::Table, table: &str, key: &str) -> Duration {
    humantime::parse_duration(settings[table][key].as_str().unwrap()).unwrap()
}

/// A setting's number.
pub fn number(settings: &toml::Table, table: &str, key: &str) -> u64 {
    u64::try_from(settings[table][key].as_integer().unwrap()).unwrap()
}

/// A setting's list, `/32` left out.
pub fn list(settings: &toml::Table, table: &str, key: &str) -> Vec<String> {
    let words = settings[table][key].as_array().unwrap().iter();
    words
        .map(|one| one.as_str().unwrap().trim_end_matches("/32").to_owned())
        .collect()
}

/// The port of a listener.
pub fn port(settings: &toml::Table, listener: &str) -> u64 {
    let address = settings["listen"][listener].as_str().unwrap();
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Bytes of "64k", "1Gi", "2g".
pub fn bytes(size: &str) -> u64 {
    let size = size.trim_end_matches(['B', 'i']);
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &size[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        other => panic!("{other}?"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// What `danmaku doctor` counts for an idle viewer, with a fifth of the memory left for all else.
pub fn memory_for(viewers: u64) -> u64 {
    viewers * 5_000 * 5 / 4
}

#[test]
fn every_file_is_told_of_and_every_link_leads_somewhere() {
    let readme = text("README.md");
    let mut folders = vec![path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            // It has a page of its own.
            if entry.is_dir() && entry != path("monitoring") {
                folders.push(entry);
            } else if entry.is_file() && !["README.md", ".env"].contains(&name.as_str()) {
                assert!(readme.contains(&name), "{name} stands in no section");
            }
        }
    }
    let links = readme.split("](").skip(1);
    for link in links.map(|rest| rest.split([')', '#']).next().unwrap()) {
        assert!(link.is_empty() || path(link).exists(), "{link}");
    }
}

#[test]
fn the_shell_scripts_are_clean() {
    let script = "shellcheck scripts/*.sh docs/deploy/*/*.sh";
    let root = env!("CARGO_MANIFEST_DIR");
    run(
        "shellcheck",
        Command::new("sh").args(["-c", script]).current_dir(root),
    );
}
