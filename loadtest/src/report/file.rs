//! Reports on disk: written whole or not at all, read back with a clear word on whatever else the file may be.
//!
//! Runs on the main thread, blocking. A file that is being replaced keeps its old content until the new one is
//! complete; nothing here panics on what it reads.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{FORMAT, Report, html};

/// The most a report may have: a day, second by second, is about 30 MiB.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Why a report could not be written or read, with the path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// `write`, `read`, ...
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// A figure that JSON cannot hold (not a number, or infinite); the file was not written.
    #[error("cannot write {}: a figure of this run has no value that JSON can hold ({detail})", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Where.
        detail: String,
    },
    /// Nothing in it.
    #[error("{} is empty: not a report of danmaku-swarm", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than a report can have.
    #[error("{} has more than {} MiB: not a report of danmaku-swarm", path.display(), FILE_BYTES_MAX / 1_048_576)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Ends before its JSON does.
    #[error("{} is cut short: its JSON ends in the middle, at line {line}, column {column}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Where it ends, from 1.
        line: usize,
        /// Where it ends, from 0.
        column: usize,
    },
    /// Something else.
    #[error("{} is not a report of danmaku-swarm: {detail}; a report is what --json FILE writes", path.display())]
    NotAReport {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// A report whose fields mean something else.
    #[error(
        "{} is a report of format {found}, and this swarm reads format {FORMAT}: run the older build again, or compare with the build that wrote it",
        path.display()
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The number in it.
        found: u64,
    },
}

/// Writes `report` as JSON to `path`, replacing what is there in one step.
pub fn write_json(path: &Path, report: &Report) -> Result<(), FileError> {
    let not_finite = |cause: serde_json::Error| FileError::NotFinite {
        path: path.to_path_buf(),
        detail: cause.to_string(),
    };
    let mut json = serde_json::to_vec_pretty(report).map_err(not_finite)?;
    json.push(b'\n');
    // JSON has no word for NaN: it would be written as null, and nobody could read the file again.
    serde_json::from_slice::<Report>(&json).map_err(not_finite)?;
    write(path, &json)
}

/// Writes `report` as a page to `path`, replacing what is there in one step; `other` is an older run drawn beside it.
pub fn write_html(path: &Path, report: &Report, other: Option<&Report>) -> Result<(), FileError> {
    write(path, html::html(report, other).as_bytes())
}

/// Reads a report that [`write_json`] wrote.
pub fn read_json(path: &Path) -> Result<Report, FileError> {
    let mut json = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut json));
    read.map_err(|cause| FileError::Io {
        doing: "read",
        path: path.to_path_buf(),
        cause,
    })?;
    parse(path, &json)
}

/// What is looked at first: a file of another format need not parse further.
#[derive(Deserialize)]
struct Head {
    format: Option<u64>,
    scenario: Option<serde_json::Value>,
}

fn parse(path: &Path, json: &[u8]) -> Result<Report, FileError> {
    let path = path.to_path_buf();
    if json.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path });
    }
    if json.trim_ascii().is_empty() {
        return Err(FileError::Empty { path });
    }
    let head: Head = match serde_json::from_slice(json) {
        Ok(head) => head,
        Err(cause) if cause.is_eof() => {
            let (line, column) = (cause.line(), cause.column());
            return Err(FileError::CutShort { path, line, column });
        }
        Err(cause) => {
            return Err(FileError::NotAReport {
                path,
                detail: cause.to_string(),
            });
        }
    };
    let missing = match (&head.format, &head.scenario) {
        (None, _) => Some("format"),
        (_, None) => Some("scenario"),
        _ => None,
    };
    if let Some(missing) = missing {
        let detail = format!("it has no `{missing}`");
        return Err(FileError::NotAReport { path, detail });
    }
    match head.format {
        Some(found) if found != u64::from(FORMAT) => Err(FileError::OtherFormat { path, found }),
        _ => serde_json::from_slice(json).map_err(|cause| FileError::NotAReport {
            path,
            detail: cause.to_string(),
        }),
    }
}

/// Puts `content` at `path`: into a new file beside it, which then takes its name. What is not a file (a pipe, a
/// terminal) is written into as it is, and a link keeps pointing where it points.
fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let failed = |cause| FileError::Io {
        doing: "write",
        path: path.to_path_buf(),
        cause,
    };
    let target = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
        Ok(found) if !found.is_file() => {
            let opened = OpenOptions::new().write(true).open(path);
            return opened
                .and_then(|mut file| file.write_all(content))
                .map_err(failed);
        }
        Ok(_) => fs::canonicalize(path).map_err(failed)?,
        Err(_) => path.to_path_buf(),
    };
    let beside = temporary(&target).ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let written = fill(&beside, content).and_then(|()| fs::rename(&beside, &target));
    written.map_err(|cause| {
        // The first error is the one to tell; the file may never have come to be.
        let _ = fs::remove_file(&beside);
        failed(cause)
    })
}

fn fill(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A name in the same folder, so that a rename is one step; `None` if `target` names no file.
fn temporary(target: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(target.file_name()?);
    name.push(format!(".{}.part", std::process::id()));
    Some(target.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("swarm-file-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn report() -> Report {
        Report {
            format: FORMAT,
            scenario: "room".to_string(),
            elapsed_s: 1.5,
            ..Report::default()
        }
    }

    #[test]
    fn what_is_written_reads_back_and_leaves_nothing_beside_it() {
        let folder = Folder::new("whole");
        let path = folder.0.join("run.json");
        write_json(&path, &report()).unwrap();
        let longer = Report {
            url: "ws://h/".repeat(100),
            ..report()
        };
        write_json(&path, &longer).unwrap();
        assert_eq!(read_json(&path).unwrap(), longer);
        write_json(&path, &report()).unwrap();
        assert_eq!(
            read_json(&path).unwrap(),
            report(),
            "replaced, not overwritten in part"
        );
        write_html(&folder.0.join("run.html"), &report(), None).unwrap();
        let mut names = folder.names();
        names.sort();
        assert_eq!(names, ["run.html", "run.json"]);
    }

    #[test]
    fn a_report_of_an_earlier_build_with_fewer_fields_is_read() {
        let old = br#"{"format":1,"scenario":"idle","connections":{"wanted":5}}"#;
        let read = parse(Path::new("old.json"), old).unwrap();
        assert_eq!(read.connections.wanted, 5);
        assert_eq!(read.deliveries.lost, 0);
    }

    #[test]
    fn every_wrong_file_gets_its_sentence() {
        let said = |json: &[u8]| parse(Path::new("old.json"), json).unwrap_err().to_string();
        assert_eq!(
            said(b" \n"),
            "old.json is empty: not a report of danmaku-swarm"
        );
        let whole = serde_json::to_vec(&report()).unwrap();
        let cut = said(&whole[..whole.len() / 2]);
        assert!(
            cut.starts_with("old.json is cut short: its JSON ends in the middle, at line 1"),
            "{cut}"
        );
        let html = said(b"<!doctype html>");
        assert!(
            html.starts_with("old.json is not a report of danmaku-swarm: expected value"),
            "{html}"
        );
        let package = said(br#"{"name":"x","version":"1"}"#);
        assert!(package.contains("it has no `format`"), "{package}");
        assert!(said(br#"{"format":1}"#).contains("it has no `scenario`"));
        assert!(said(b"[1,2]").contains("not a report"));
        let newer = said(br#"{"format":7,"scenario":{"renamed":true}}"#);
        assert!(
            newer.contains("report of format 7, and this swarm reads format 1"),
            "{newer}"
        );
        let mistyped = said(br#"{"format":1,"scenario":"room","elapsed_s":"long"}"#);
        assert!(mistyped.contains("invalid type"), "{mistyped}");
    }

    #[test]
    fn errors_say_the_path_and_the_cause() {
        let folder = Folder::new("errors");
        let missing = folder.0.join("no").join("run.json");
        let said = write_json(&missing, &report()).unwrap_err().to_string();
        assert!(
            said.starts_with("cannot write ") && said.contains("/no/run.json: No such file"),
            "{said}"
        );
        let said = read_json(&missing).unwrap_err().to_string();
        assert!(
            said.starts_with("cannot read ") && said.contains("No such file"),
            "{said}"
        );
        let said = write_json(&folder.0, &report()).unwrap_err().to_string();
        assert!(said.contains("is a directory"), "{said}");
        assert!(write_json(Path::new(""), &report()).is_err());
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_figure_that_json_cannot_hold_is_refused_and_the_old_file_stays() {
        let folder = Folder::new("finite");
        let path = folder.0.join("run.json");
        write_json(&path, &report()).unwrap();
        let said = write_json(
            &path,
            &Report {
                elapsed_s: f64::NAN,
                ..report()
            },
        )
        .unwrap_err();
        assert!(matches!(said, FileError::NotFinite { .. }), "{said}");
        assert_eq!(read_json(&path).unwrap(), report());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let folder = Folder::new("links");
        let (file, link) = (folder.0.join("file.json"), folder.0.join("link.json"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_json(&link, &report()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read_json(&file).unwrap(), report());
        write_json(Path::new("/dev/null"), &report()).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
