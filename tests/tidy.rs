//! Holds the shape of the house: imports go down only, siblings never import each other, the sans-IO floors name no
//! socket, thread, clock or random source, `unsafe` stands in one file, every file says what it owns.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, lowest first; `docs/ARCHITECTURE.md` has the same table.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["sync", "telemetry", "config", "proto"],
    &["auth", "room", "net"],
    &["bus"],
    &["session", "api", "web"],
    &["shard"],
    &["gateway", "doctor"],
    &["demo"],
    &["lib", "main"],
];

/// Siblings that may be imported all the same, each for a reason written in `docs/ARCHITECTURE.md`.
const ALLOWED_SIBLINGS: &[(&str, &str)] = &[("api", "web")];

const SANS_IO: &[&str] = &["base", "proto", "room", "session"];
const FORBIDDEN_THERE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "mio::",
    "std::thread",
    "std::net::Tcp",
    "std::fs",
    "getrandom",
    "thread_local!",
    "rand::",
];
/// The one file that asks the operating system the time.
const CLOCK: &str = "base/clock.rs";
/// The one file with `unsafe`.
const UNSAFE: &str = "net/fd.rs";
/// The most lines a file may have before one mind no longer holds it.
const LINES_MAX: usize = 650;

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file: path below `src`, and text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![source_root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test(&path) {
                let name = path.strip_prefix(source_root()).unwrap();
                files.push((
                    name.to_str().unwrap().to_string(),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(files.len() > 20, "the sources were not found");
    files
}

/// Test code in a file of its own, included by `#[cfg(test)]`.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.parent().unwrap().ends_with("tests")
}

fn module_of(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

fn floor_of(module: &str) -> usize {
    let at = |floor: &&[&str]| floor.contains(&module);
    FLOORS.iter().position(at).unwrap_or_else(|| {
        panic!("`{module}` stands on no floor: add it to tests/tidy.rs and docs/ARCHITECTURE.md")
    })
}

/// The part of a file that ships: everything before its tests.
fn shipped(text: &str) -> &str {
    let tests = ["#[cfg(test)]", "#[cfg(all(test"];
    let ends = tests.iter().filter_map(|mark| text.find(mark));
    &text[..ends.min().unwrap_or(text.len())]
}

/// Lines of code: comments left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

#[test]
fn imports_go_down_only() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let importer = module_of(&file);
        for (number, line) in code_lines(shipped(&text)) {
            let named = line.split("crate::").skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                &rest[..end.unwrap_or(rest.len())]
            });
            for imported in named.filter(|name| !name.is_empty() && *name != importer) {
                let allowed = floor_of(imported) < floor_of(importer)
                    || ALLOWED_SIBLINGS.contains(&(importer, imported));
                if !allowed {
                    broken.push(format!(
                        "src/{file}:{number}: {importer} imports {imported}"
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn sans_io_floors_name_no_machine() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        if !SANS_IO.contains(&module_of(&file)) || file == CLOCK {
            continue;
        }
        for (number, line) in code_lines(shipped(&text)) {
            for word in FORBIDDEN_THERE.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("src/{file}:{number}: {word}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_one_file_is_unsafe_and_only_one_asks_the_time() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        for (number, line) in code_lines(shipped(&text)) {
            let is_unsafe = line.contains("unsafe ") || line.contains("allow(unsafe_code)");
            if is_unsafe && file != UNSAFE {
                broken.push(format!("src/{file}:{number}: unsafe"));
            }
            let waits = file.starts_with("gateway/");
            if (line.contains("Instant::now") || line.contains("SystemTime::now"))
                && file != CLOCK
                && !waits
            {
                broken.push(format!("src/{file}:{number}: asks the time"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(file, _)| file)
        .collect();
    assert!(silent.is_empty(), "no opening comment: {silent:?}");
}

#[test]
fn files_stay_small_enough_for_one_mind() {
    let large: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| shipped(text).lines().count() > LINES_MAX)
        .map(|(file, text)| format!("{file}: {} lines", shipped(&text).lines().count()))
        .collect();
    assert!(large.is_empty(), "{large:?}");
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "TODO"];
    let mut broken = Vec::new();
    for (file, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("src/{file}:{}: {word}", index + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
