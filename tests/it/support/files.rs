//! Files as a test drops them and as it finds them again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::place::Place;

/// Signs content as `file` in the directory `made`, ready to be dropped somewhere.
pub(crate) fn sign(place: &Place, file: &str, content: &str) -> (PathBuf, PathBuf) {
    fs::create_dir_all(place.path("made")).unwrap();
    let made = format!("made/{file}");
    place.write(&made, content);
    let context = format!("file={}", Path::new(file).file_name().unwrap().to_str().unwrap());
    place.run(["sign", "local:demo", &made, "--context", &context]).exits(0);
    (place.path(&made), place.path(format!("{made}.sig")))
}

/// Drops a signed pair into `in`, renamed into place.
pub(crate) fn drop_pair(place: &Place, file: &str, content: &str) {
    let (payload, signature) = sign(place, file, content);
    fs::rename(payload, place.path("in").join(file)).unwrap();
    fs::rename(signature, place.path("in").join(format!("{file}.sig"))).unwrap();
}

/// What lies in a directory, but for the daemon's own folder, which comes and goes.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names = all_names(path);
    names.retain(|name| name != ".kms-sig");
    names
}

/// What lies in a directory.
pub(crate) fn all_names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn verifies(place: &Place, file: &str, context: &str) {
    place.run(["verify", file, "--key", "local:demo", "--context", context]).exits(0);
}

/// The one record in quarantine.
pub(crate) fn record(place: &Place) -> Value {
    let items = names(&place.path("q"));
    assert_eq!(items.len(), 1, "{items:?}");
    serde_json::from_slice(&place.read(format!("q/{}/record.json", items[0]))).unwrap()
}
