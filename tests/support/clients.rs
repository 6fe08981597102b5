//! Clients from other hands, as `scripts/test.sh` installs them, and programs that are run to their end.

use std::path::PathBuf;
use std::process::Command;

/// Where `scripts/test.sh` puts them.
pub fn clients() -> PathBuf {
    let folder = std::env::var_os("TEST_CLIENTS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients"),
        PathBuf::from,
    );
    assert!(
        folder.join("node_modules/ws").exists() && folder.join("venv/bin/python").exists(),
        "the test clients are not installed in {}: run scripts/test.sh",
        folder.display()
    );
    folder
}

/// What a program printed; a failure of it fails the test.
pub fn run(command: &mut Command) -> String {
    let out = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        out.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}
