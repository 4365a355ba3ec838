//! Where the program under test is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The `comity` binary: the one that `COMITY_BIN` names, or the one of the same build as the running test, built
/// anew if it is out of date (cargo builds a package's binary for that package's own tests only).
pub fn comity() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var_os("COMITY_BIN") {
        Some(path) => PathBuf::from(path),
        None => built(),
    });
    &BINARY
}

fn built() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    // target/PROFILE/deps/TEST
    let profile = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let binary = profile.join("comity");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "agent", "--bin", "comity"]);
        build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        if let Some(target) = profile.parent() {
            build.arg("--target-dir").arg(target);
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary could not be built");
    }
    assert!(binary.exists(), "{} is not there: `cargo build --package agent`", binary.display());
    binary
}
