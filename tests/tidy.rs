//! Holds the shape of the house: imports go down only, siblings never import each other, the sans-IO floors name no
//! socket, thread, clock or random source, `unsafe` stands in two files at most, every file says what it owns.

use std::fs;
use std::path::{Path, PathBuf};

/// One package: its sources, its floors and its exceptions.
struct House {
    /// Folder of its sources, below the repository's top.
    sources: &'static str,
    /// Modules by floor, lowest first; `docs/ARCHITECTURE.md` has the same tables.
    floors: &'static [&'static [&'static str]],
    /// Siblings that may be imported all the same, each for a reason written in `docs/ARCHITECTURE.md`.
    siblings: &'static [(&'static str, &'static str)],
    /// Modules that name no socket, thread, clock, file or random source.
    sans_io: &'static [&'static str],
    /// The files with `unsafe`.
    unsafe_files: &'static [&'static str],
    /// The one file that asks the operating system the time.
    clock: &'static str,
    /// Modules that may look at the time because they wait for something outside.
    waits: &'static [&'static str],
}

const HOUSES: &[House] = &[
    House {
        sources: "src",
        floors: &[
            &["base"],
            &["sync", "telemetry", "config", "proto"],
            &["auth", "room", "net"],
            &["bus"],
            &["session", "api", "web"],
            &["shard", "bridge"],
            &["gateway", "doctor"],
            &["demo"],
            &["lib", "main"],
        ],
        siblings: &[("api", "web")],
        sans_io: &["base", "proto", "room", "session"],
        unsafe_files: &["net/fd.rs", "net/heap.rs"],
        clock: "base/clock.rs",
        waits: &["gateway"],
    },
    House {
        sources: "loadtest/src",
        floors: &[
            &["clock", "fd", "meter", "stamp", "report"],
            &["dialect", "client", "books", "machine", "probe"],
            &["voice"],
            &["plan"],
            &["thread", "scenario", "spawn"],
            &["record"],
            &["tell"],
            &["run", "ui"],
            &["cli"],
            &["lib", "main"],
        ],
        siblings: &[],
        sans_io: &[
            "stamp", "dialect", "client", "books", "voice", "plan", "scenario", "tell",
        ],
        unsafe_files: &["fd.rs"],
        clock: "clock.rs",
        waits: &["spawn"],
    },
];

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
/// The most lines a file may have before one mind no longer holds it.
const LINES_MAX: usize = 650;

impl House {
    /// Every source file: path below its folder, and text.
    fn sources(&self) -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.sources);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test(&path) {
                    let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                    files.push((name.to_string(), fs::read_to_string(&path).unwrap()));
                }
            }
        }
        assert!(files.len() > 20, "the sources were not found");
        files
    }

    fn floor_of(&self, module: &str) -> usize {
        let at = |floor: &&[&str]| floor.contains(&module);
        self.floors.iter().position(at).unwrap_or_else(|| {
            panic!(
                "`{module}` stands on no floor: add it to tests/tidy.rs and docs/ARCHITECTURE.md"
            )
        })
    }
}

/// Holds every shipped line of every house to a rule; `None` = kept.
fn every_line_keeps(rule: impl Fn(&House, &str, &str) -> Option<String>) {
    let mut broken = Vec::new();
    for house in HOUSES {
        for (file, text) in house.sources() {
            for (number, line) in code_lines(shipped(&text)) {
                if let Some(why) = rule(house, &file, line) {
                    broken.push(format!("{}/{file}:{number}: {why}", house.sources));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
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
    every_line_keeps(|house, file, line| {
        let importer = module_of(file);
        let named = line.split("crate::").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        let mut others = named.filter(|name| !name.is_empty() && *name != importer);
        let upward = others.find(|imported| {
            house.floor_of(imported) >= house.floor_of(importer)
                && !house.siblings.contains(&(importer, imported))
        });
        upward.map(|imported| format!("{importer} imports {imported}"))
    });
}

#[test]
fn sans_io_floors_name_no_machine() {
    every_line_keeps(|house, file, line| {
        if !house.sans_io.contains(&module_of(file)) || file == house.clock {
            return None;
        }
        let word = FORBIDDEN_THERE.iter().find(|word| line.contains(**word));
        word.map(|word| (*word).to_string())
    });
}

#[test]
fn few_files_are_unsafe_and_only_one_asks_the_time() {
    every_line_keeps(|house, file, line| {
        let is_unsafe = line.contains("unsafe ") || line.contains("allow(unsafe_code)");
        let asks = line.contains("Instant::now") || line.contains("SystemTime::now");
        if is_unsafe && !house.unsafe_files.contains(&file) {
            return Some("unsafe".to_string());
        }
        let may_ask = file == house.clock || house.waits.contains(&module_of(file));
        (asks && !may_ask).then(|| "asks the time".to_string())
    });
}

/// Files of the gateway that know a lock. The addresses' table is asked once for each connection that enters and once when
/// it goes; the newest values are asked by who wants to know which nodes there are; the others stand in tests. A turn that reads and fans
/// out passes none of them.
const LOCKS: [&str; 4] = [
    "sync/addresses.rs",
    "sync/latest.rs",
    "sync/mailbox.rs",
    "telemetry/log.rs",
];

#[test]
fn no_lock_stands_on_the_way_of_a_line() {
    let words = ["Mutex", "RwLock", "Condvar", "parking_lot"];
    every_line_keeps(|house, file, line| {
        let names = words.iter().find(|word| line.contains(*word))?;
        let known = house.sources != "src" || LOCKS.contains(&file);
        (!known).then(|| format!("names {names}"))
    });
}

/// Every source file of every house, its path below the repository's top.
fn all_sources() -> impl Iterator<Item = (String, String)> {
    let of = |house: &'static House| {
        let named = move |(file, text)| (format!("{}/{file}", house.sources), text);
        house.sources().into_iter().map(named)
    };
    HOUSES.iter().flat_map(of)
}

#[test]
fn every_file_opens_by_saying_what_it_owns() {
    let silent: Vec<String> = all_sources()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(file, _)| file)
        .collect();
    assert!(silent.is_empty(), "no opening comment: {silent:?}");
}

#[test]
fn files_stay_small_enough_for_one_mind() {
    let large: Vec<String> = all_sources()
        .map(|(file, text)| (file, shipped(&text).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    assert!(large.is_empty(), "{large:?}");
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "TODO"];
    let mut broken = Vec::new();
    for (file, text) in all_sources() {
        for (index, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{file}:{}: {word}", index + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
