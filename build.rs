//! Tells the program what `kms-sig version` prints: the commit and the target it is built from and
//! for.
//!
//! Never fails a build: where nobody knows the commit, it is `unknown`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Digits of a commit that are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KMS_SIG_COMMIT");
    let commit = named().or_else(packaged).or_else(checked_out).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=KMS_SIG_COMMIT={commit}");
    println!(
        "cargo::rustc-env=KMS_SIG_TARGET={}",
        env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned())
    );
}

/// Given by whoever builds from a tree without history.
fn named() -> Option<String> {
    env::var("KMS_SIG_COMMIT").ok().filter(|commit| is_word(commit))
}

/// Left in the archive by `cargo package`.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    shortened(rest.split('"').nth(1)?)
}

/// The commit of the working tree, if it is ours: an unpacked archive may lie inside another
/// repository.
fn checked_out() -> Option<String> {
    let root = git(&["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(root).ok()? != fs::canonicalize(".").ok()? {
        return None;
    }
    // The log of HEAD grows with every commit and checkout; HEAD itself stays the same from commit
    // to commit.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    shortened(&git(&["rev-parse", "--verify", "--quiet", "HEAD"])?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn shortened(commit: &str) -> Option<String> {
    commit.get(..SHOWN).filter(|commit| is_word(commit)).map(str::to_owned)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}
