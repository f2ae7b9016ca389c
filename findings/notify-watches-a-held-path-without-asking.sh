#!/usr/bin/env bash
# notify 9.0.0-rc.7 (seen 2026-11-30 on Linux 6.18): a path that is watched already is watched "again"
# with success and without the kernel, whatever lies there by now.
#
# Expected: `watch` of a path where another directory has come to lie either watches that one or says
# that it does not. Here a/b was renamed away with its parent and made anew. Seen:
#
#   watched again: Ok
#   heard of the new directory: nothing
#   heard of the old one, under the path of the new: something
#   after unwatch and watch, heard of the new directory: something
#
# Matters for: src/source/directory/hint.rs, which takes a watch away before it watches anew, at each
# scan.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "watching"
version = "0.0.0"
edition = "2024"

[dependencies]
notify = "=9.0.0-rc.7"
TOML
cat >src/main.rs <<'RUST'
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{fs, thread};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

/// Makes a file, and says whether an event names it under `told`.
fn heard(events: &Receiver<notify::Result<Event>>, made: &Path, told: &Path) -> &'static str {
    while events.try_recv().is_ok() {}
    fs::write(made, "").unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    while let Ok(event) = events.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if event.unwrap().paths.iter().any(|path| path == told) {
            return "something";
        }
    }
    "nothing"
}

fn main() {
    let root = std::env::current_dir().unwrap().join("root");
    let path = root.join("a/b");
    fs::create_dir_all(&path).unwrap();
    let (send, events) = channel();
    let mut watcher = RecommendedWatcher::new(send, Default::default()).unwrap();
    watcher.watch(&path, RecursiveMode::NonRecursive).unwrap();
    fs::rename(root.join("a"), root.join("old")).unwrap();
    fs::create_dir_all(&path).unwrap();
    thread::sleep(Duration::from_millis(500));
    let again = watcher.watch(&path, RecursiveMode::NonRecursive);
    println!("watched again: {}", if again.is_ok() { "Ok" } else { "an error" });
    println!("heard of the new directory: {}", heard(&events, &path.join("1"), &path.join("1")));
    let old = heard(&events, &root.join("old/b/2"), &path.join("2"));
    println!("heard of the old one, under the path of the new: {old}");
    watcher.unwatch(&path).unwrap();
    watcher.watch(&path, RecursiveMode::NonRecursive).unwrap();
    let anew = heard(&events, &path.join("3"), &path.join("3"));
    println!("after unwatch and watch, heard of the new directory: {anew}");
}
RUST
cargo build --quiet 2>error || { cat error; exit 2; }
seen=$(target/debug/watching)
expected='watched again: Ok
heard of the new directory: nothing
heard of the old one, under the path of the new: something
after unwatch and watch, heard of the new directory: something'
if [ "$seen" != "$expected" ]; then
    printf 'it has changed:\n%s\n' "$seen"
    exit 1
fi
printf '%s\nas described\n' "$seen"
