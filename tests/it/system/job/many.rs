//! Jobs of many files at once, which share flushes, claims and calls of KMS.

use std::fs;

use super::{Check, DELIVER, Job, VERIFY, all_below, below, ensure, history, sha512, sources};
use crate::support::place::Place;

/// As many as certainly meet at the disk.
const FILES: usize = 12;

/// Many valid pairs are delivered.
pub(in super::super) const DELIVER_MANY: Job =
    Job { rule: VERIFY, lay: lay_pairs, during: delivering, after: delivered, ..DELIVER };

/// Many files are signed in batches.
pub(in super::super) const SIGN_BATCH: Job = Job {
    rule: "mode = \"sign\"\nkey = \"local:demo\"\nbatch = { window = \"50ms\", max_files = 8 }\n",
    lay: lay_payloads,
    during: signing,
    after: signed,
    exit: 0,
    apart: false,
};

/// Many files are signed in batches and delivered.
pub(in super::super) const SIGN_BATCH_AND_DELIVER: Job = Job {
    rule: "mode = \"sign\"\nkey = \"local:demo\"\ndeliver_to = \"out\"\n\
           batch = { window = \"50ms\", max_files = 8 }\n",
    lay: lay_payloads,
    during: delivering,
    after: delivered,
    exit: 0,
    apart: false,
};

fn names() -> impl Iterator<Item = String> {
    (0..FILES).map(|n| format!("f{n}"))
}

fn content(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(1000)
}

fn lay_payloads(place: &Place) {
    names().for_each(|name| place.write(format!("w/in/{name}"), content(&name)));
}

/// Signed by a daemon of another policy, which has a state of its own.
fn lay_pairs(place: &Place) {
    lay_payloads(place);
    place.write(
        "w/signer.toml",
        "allow_root = true\nlocal.keyring = \"../keyring\"\nstate.dir = \"../signer\"\n\
         limits.min_free_space = \"0B\"\n[[watch]]\nname = \"signer\"\npath = \"in\"\nsettle = \"1ms\"\n\
         context = { file = \"{name}\" }\nmode = \"sign\"\nkey = \"local:demo\"\n",
    );
    place.run(["watch", "--policy", "w/signer.toml", "--once"]).exits(0);
}

fn delivering(place: &Place) -> Check {
    let out = below(place, "w/out");
    let is_known =
        |there: &String| there == "theirs" || names().any(|n| *there == n || *there == format!("{n}.sig"));
    ensure!(out.keys().all(is_known), "in out: {:?}", out.keys());
    for name in names() {
        let sources = sources(place, &name);
        ensure!(sources.iter().all(|there| *there == content(&name)), "the source {name} was changed");
        match out.get(&name) {
            None => ensure!(!sources.is_empty(), "{name} is nowhere"),
            Some(there) => {
                ensure!(*there == content(&name), "out/{name} is not what was hashed");
                ensure!(out.contains_key(&format!("{name}.sig")), "out/{name} has no signature");
            }
        }
        ensure!(out.get(&format!("{name}.sig")).is_none_or(|s| s.len() > 60), "out/{name}.sig is not whole");
    }
    Ok(())
}

fn delivered(place: &Place) -> Check {
    let left = below(place, "w/in");
    ensure!(left.keys().eq([".theirs"]), "left in place: {:?}", left.keys());
    ensure!(all_below(&place.path("w/q")).is_empty(), "something is in quarantine");
    let recorded = history(place, "delivered");
    for name in names() {
        ensure!(place.path("w/out").join(&name).exists(), "{name} is not delivered");
        ensure!(verifies(place, "w/out", &name), "out/{name}.sig does not verify");
        let there = sha512(place, &format!("w/out/{name}.sig"));
        ensure!(
            recorded.contains(&Some(there)),
            "no record is of the signature of {name} that was delivered"
        );
    }
    Ok(())
}

fn signing(place: &Place) -> Check {
    let there = below(place, "w/in");
    for name in names() {
        ensure!(there.get(&name) == Some(&content(&name)), "{name} was touched");
        let Some(signature) = there.get(&format!("{name}.sig")) else { continue };
        let whole = kms_sig::signature::Signature::parse(signature);
        ensure!(whole.is_ok_and(|s| s.batch().is_some()), "{name}.sig is no whole signature of a batch");
    }
    Ok(())
}

fn signed(place: &Place) -> Check {
    let recorded = history(place, "signed");
    for name in names() {
        ensure!(verifies(place, "w/in", &name), "{name} is not signed");
        let there = sha512(place, &format!("w/in/{name}.sig"));
        ensure!(recorded.contains(&Some(there)), "no record is of the signature of {name}");
    }
    let spare = fs::read_dir(place.path("w/in")).unwrap().count() - 2 * FILES;
    ensure!(spare <= 2, "{spare} more names than files and signatures lie there"); // theirs, and our folder
    Ok(())
}

fn verifies(place: &Place, dir: &str, name: &str) -> bool {
    let (file, context) = (format!("{dir}/{name}"), format!("file={name}"));
    place.run(["verify", &file, "--key", "local:demo", "--context", &context]).succeeds()
}
