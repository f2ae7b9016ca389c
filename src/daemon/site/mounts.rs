//! Hints about `ReadWritePaths=`. systemd makes each entry a mount of its own, and the kernel
//! renames nothing across mounts, even on one disk. Files are then copied to quarantine instead of
//! moved.
//!
//! Nothing is lost by that, so it is only logged. Two different disks are intended and not
//! mentioned.
//!
//! A path that is missing from `ReadWritePaths=` is a read-only file system to the daemon.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::chain;
use crate::escape::quoted;
use crate::fs::{Dir, FsError};
use crate::message::log;
use crate::policy::Rule;

/// Logs a hint if a rule's directory and quarantine are on one disk and two mounts.
pub(crate) fn tell(rule: &Rule, root: &Dir, store: &Dir) {
    if !rule.mode.quarantines() {
        return;
    }
    // An error here shows again when the directory is used.
    if let Ok(Reach::Split(hint)) = reach(root, store) {
        log!(
            QuarantineOnOtherMount,
            rule = rule.name,
            path = %quoted(root.path()),
            quarantine = %quoted(store.path()),
            hint
        );
    }
}

/// How files get from one directory to another.
pub(crate) enum Reach {
    /// They are renamed.
    Moved,
    /// They are copied, to another disk.
    Copied,
    /// They are copied although it is one disk; with a hint.
    Split(String),
}

/// How files get from a rule's directory to quarantine.
pub(crate) fn reach(root: &Dir, store: &Dir) -> Result<Reach, FsError> {
    let (a, b) = (root.stat()?, store.stat()?);
    Ok(match a.identity.dev == b.identity.dev {
        false => Reach::Copied,
        // A kernel without mount ids reports 0 for each.
        true if a.mount == b.mount => Reach::Moved,
        true => Reach::Split(advice(root.path(), store.path())),
    })
}

fn advice(root: &Path, store: &Path) -> String {
    match shared_parent(root, store) {
        Some(parent) => format!(
            "under systemd, name {} alone in ReadWritePaths=, instead of several paths in it",
            quoted(&parent)
        ),
        None => format!(
            "put [quarantine] dir beside {}, and name the folder that holds both in ReadWritePaths=",
            quoted(root)
        ),
    }
}

/// The line for the unit file if a rule's directory is read-only.
pub(crate) fn hint_if_read_only(error: &(dyn std::error::Error + 'static), rule: &Rule) -> Option<String> {
    let delivery = rule.delivery().map(|delivery| delivery.dir.as_path());
    chain::has(error, Errno::ROFS).then(|| writable_advice(&rule.path, delivery))
}

fn writable_advice(root: &Path, destination: Option<&Path>) -> String {
    let above = destination.and_then(|to| shared_parent(root, to)).unwrap_or_else(|| root.to_owned());
    format!(
        "under systemd, name {}, or better one path above all that the policy names, in ReadWritePaths=",
        quoted(&above)
    )
}

/// The deepest common ancestor of both. Not `/` or a directory directly in it, such as `/var`: a
/// service should not get write access to that.
fn shared_parent(a: &Path, b: &Path) -> Option<PathBuf> {
    let shared: PathBuf =
        a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    (shared.components().count() > 2).then_some(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o7_the_one_parent_to_write_is_the_deepest_that_is_no_system_folder() {
        for (root, store, parent) in [
            ("/srv/kms-sig/incoming", "/srv/kms-sig/quarantine", Some("/srv/kms-sig")),
            ("/srv/kms-sig/a/in", "/srv/kms-sig/b/bad", Some("/srv/kms-sig")),
            ("/srv/in", "/srv/quarantine", None),
            ("/srv/kms-sig/incoming", "/var/lib/kms-sig/quarantine", None),
        ] {
            assert_eq!(
                shared_parent(root.as_ref(), store.as_ref()).as_deref(),
                parent.map(Path::new),
                "{root}"
            );
        }
        assert_eq!(
            advice("/srv/in".as_ref(), "/var/bad".as_ref()),
            "put [quarantine] dir beside \"/srv/in\", and name the folder that holds both in ReadWritePaths="
        );
    }

    #[test]
    fn o7_what_is_read_only_is_told_by_the_path_to_write() {
        for (destination, path) in
            [(None, "/data/x/in"), (Some("/data/x/out"), "/data/x"), (Some("/srv/o"), "/data/x/in")]
        {
            let advice = writable_advice("/data/x/in".as_ref(), destination.map(Path::new));
            assert!(advice.contains(&format!("name \"{path}\", or")), "{advice}");
        }
    }
}
