//! The policy of a test: a place for it, and the two rules that most tests begin with.

use std::fs;

use super::place::Place;

/// A place with a keyring and a policy of these rules; the directories `in`, `out` and `q` are
/// there.
pub(crate) fn place(rules: &str) -> Place {
    let place = Place::with_keyring();
    for dir in ["in", "out"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    set_policy(&place, rules);
    place
}

pub(crate) fn set_policy(place: &Place, rules: &str) {
    let head =
        "allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"state\"\nquarantine.dir = \"q\"\n";
    place.write("policy.toml", format!("{head}{rules}"));
}

pub(crate) const SIGN: &str = "
[[watch]]
name = \"sign\"
mode = \"sign\"
path = \"in\"
key = \"local:demo\"
context = { file = \"{name}\" }
settle = \"50ms\"
";

pub(crate) const VERIFY: &str = "
[[watch]]
name = \"verify\"
mode = \"verify\"
path = \"in\"
trusted_keys = [\"local:demo\"]
context = { file = \"{name}\" }
settle = \"50ms\"
deliver_to = \"out\"
on_invalid = \"quarantine\"
on_missing = \"quarantine\"
grace = \"100ms\"
signature_timeout = \"10m\"
";

/// The rule with little patience for a signature that is missing: for tests of just that. Elsewhere
/// a test that is kept waiting between a payload and its signature would have the pair called
/// `missing`.
pub(crate) fn impatient(rule: &str) -> String {
    with(rule, "signature_timeout = \"100ms\"")
}

/// The rule with one line changed or added.
pub(crate) fn with(rule: &str, line: &str) -> String {
    let key = line.split('=').next().unwrap().trim();
    let kept: String = rule
        .lines()
        .filter(|l| l.split('=').next().unwrap().trim() != key)
        .map(|l| format!("{l}\n"))
        .collect();
    format!("{kept}{line}\n")
}

pub(crate) fn without(rule: &str, key: &str) -> String {
    rule.lines().filter(|l| l.split('=').next().unwrap().trim() != key).map(|l| format!("{l}\n")).collect()
}
