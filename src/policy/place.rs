//! Where the policy reads and writes, and which of these places must not meet.
//!
//! Output that lands in a watched directory would become input (P6), and two rules over one
//! directory would handle a file twice. Places are compared by their text and, where they exist, by
//! where their symbolic links lead. Changes nothing on disk.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fault::Report;
use crate::escape::quoted;

/// A path of the policy.
pub(super) struct Place {
    role: Role,
    line: usize,
    path: PathBuf,
    real: PathBuf,
}

/// What a place is for.
pub(super) enum Role {
    /// Watched by this rule.
    Watched(Whose),
    /// Delivered to by this rule.
    Delivery(Whose),
    Quarantine,
    State,
    Keyring,
    /// The control socket.
    Socket,
}

/// How a rule is called in messages: by its name, or by its line as long as it has none.
#[derive(Clone)]
pub(super) struct Whose {
    pub(super) name: Option<String>,
    pub(super) line: usize,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            // A checked name: letters, digits, '.', '_', '-'.
            Some(name) => write!(f, "rule \"{name}\""),
            None => write!(f, "the rule on line {}", self.line),
        }
    }
}

/// How one place lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    Same,
    Inside,
    Around,
}

impl Lies {
    fn between(a: &Path, b: &Path) -> Option<Self> {
        if a == b {
            Some(Self::Same)
        } else if a.starts_with(b) {
            Some(Self::Inside)
        } else if b.starts_with(a) {
            Some(Self::Around)
        } else {
            None
        }
    }

    const fn turned(self) -> Self {
        match self {
            Self::Same => Self::Same,
            Self::Inside => Self::Around,
            Self::Around => Self::Inside,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "is the same as",
            Self::Inside => "is inside",
            Self::Around => "contains",
        }
    }
}

impl Place {
    /// `path` is absolute and without `.` and `..`.
    pub(super) fn new(role: Role, line: usize, path: &Path) -> Self {
        Self { role, line, path: path.to_owned(), real: resolved(path) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = quoted(&self.path);
        match &self.role {
            Role::Watched(whose) => write!(f, "{path}, which {whose} watches,"),
            Role::Delivery(whose) => write!(f, "{path}, to which {whose} delivers,"),
            Role::Quarantine => write!(f, "the quarantine {path}"),
            Role::State => write!(f, "the state directory {path}"),
            Role::Keyring => write!(f, "the keyring {path}"),
            Role::Socket => write!(f, "the control socket {path}"),
        }
    }
}

/// The most places that are reported as meeting: a thousand rules over one directory meet half a
/// million times.
const MAX_MEETINGS: usize = 100;

/// Reports every two places that must not meet, at the one that stands later in the file.
pub(super) fn check(places: &[Place], report: &Report) {
    let mut meetings = 0;
    for (i, second) in places.iter().enumerate() {
        for first in places.iter().take(i) {
            let by_text = Lies::between(&second.path, &first.path);
            let Some(lies) = by_text.or_else(|| Lies::between(&second.real, &first.real)) else {
                continue;
            };
            let Some(advice) = clash(&second.role, lies, &first.role) else {
                continue;
            };
            meetings += 1;
            if meetings > MAX_MEETINGS {
                return;
            }
            let (lies, earlier, later) = if first.line <= second.line {
                (lies, first, second)
            } else {
                (lies.turned(), second, first)
            };
            let link = if by_text.is_none() { " through a symbolic link" } else { "" };
            let earlier_text = earlier.to_string();
            let earlier_text = earlier_text.trim_end_matches(',');
            let (verb, line) = (lies.as_str(), earlier.line);
            report.fault_of_whole(
                later.line,
                format!("{later} {verb} {earlier_text} (line {line}){link}; {advice}"),
            );
        }
    }
}

/// What to do about `a` lying so to `b`, if it may not.
fn clash(a: &Role, lies: Lies, b: &Role) -> Option<&'static str> {
    use Role::{Delivery, Keyring, Quarantine, Socket, State, Watched};
    match (a, b) {
        (Watched(_), Watched(_)) => Some("a file must fall to one rule; watch directories that lie apart"),
        (Watched(_), Delivery(_)) | (Delivery(_), Watched(_)) => {
            Some("what is delivered must not be taken in again; deliver outside every watched directory")
        }
        (Quarantine, Watched(_) | Delivery(_)) | (Watched(_) | Delivery(_), Quarantine) => {
            Some("failed files must not be taken in or picked up; quarantine apart from them")
        }
        (State | Keyring | Socket, Watched(_) | Delivery(_)) if lies != Lies::Around => Some(OPEN_TO_SENDERS),
        (Watched(_) | Delivery(_), State | Keyring | Socket) if lies != Lies::Inside => Some(OPEN_TO_SENDERS),
        (State | Keyring | Socket, Quarantine) if lies != Lies::Around => Some(IN_THE_STORE),
        (Quarantine, State | Keyring | Socket) if lies != Lies::Inside => Some(IN_THE_STORE),
        (State | Keyring | Socket | Quarantine | Delivery(_) | Watched(_), _) => None,
    }
}

const OPEN_TO_SENDERS: &str = "others have access there; keep it apart from what is watched or delivered to";
const IN_THE_STORE: &str =
    "the quarantine holds failed files only; keep it outside, or the quarantine inside [state] dir";

/// Where `path` leads: its longest beginning that exists, with symbolic links resolved, and the
/// rest as it is.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|ancestor| {
            let real = ancestor.canonicalize().ok()?;
            let rest = path.strip_prefix(ancestor).ok()?;
            // Joining an empty rest would add a slash.
            Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
        })
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Whose {
        Whose { name: Some(name.to_owned()), line: 1 }
    }

    /// All places as they meet, and whether `a` may lie so to `b`.
    #[test]
    fn p6_output_stays_apart_from_input() {
        use Lies::{Around, Inside, Same};
        let watched = || Role::Watched(rule("w"));
        let delivery = || Role::Delivery(rule("d"));
        let table = [
            (watched(), watched(), [false, false, false]),
            (watched(), delivery(), [false, false, false]),
            (watched(), Role::Quarantine, [false, false, false]),
            (watched(), Role::State, [false, true, false]),
            (watched(), Role::Keyring, [false, true, false]),
            (delivery(), delivery(), [true, true, true]),
            (delivery(), Role::Quarantine, [false, false, false]),
            (delivery(), Role::State, [false, true, false]),
            (delivery(), Role::Keyring, [false, true, false]),
            (Role::Quarantine, Role::State, [false, true, false]),
            (Role::Quarantine, Role::Keyring, [false, true, false]),
            (Role::State, Role::Keyring, [true, true, true]),
            (watched(), Role::Socket, [false, true, false]),
            (delivery(), Role::Socket, [false, true, false]),
            (Role::Quarantine, Role::Socket, [false, true, false]),
        ];
        for (row, (a, b, allowed)) in table.iter().enumerate() {
            for (lies, allowed) in [Same, Inside, Around].into_iter().zip(allowed) {
                assert_eq!(clash(a, lies, b).is_none(), *allowed, "row {row}, {lies:?}");
                assert_eq!(clash(b, lies.turned(), a).is_none(), *allowed, "row {row}, {lies:?} turned");
            }
        }
    }

    #[test]
    fn o2_a_symbolic_link_does_not_hide_an_overlap() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("alias")).unwrap();
        let report = Report::new("");
        let place =
            |name: &str, line, path: &str| Place::new(Role::Watched(rule(name)), line, &root.join(path));
        check(&[place("a", 1, "real"), place("b", 2, "alias/not/there"), place("c", 3, "other")], &report);
        let faults = report.conclude::<()>(Path::new("p"), None).unwrap_err();
        let root = root.display();
        let expected = format!(
            "p:2: \"{root}/alias/not/there\", which rule \"b\" watches, is inside \"{root}/real\", which rule \"a\" \
             watches (line 1) through a symbolic link; a file must fall to one rule; watch directories that lie apart"
        );
        assert_eq!(faults.to_string(), expected);
    }
}
