//! File systems on which what the daemon removes cannot pass through a folder of its own: what it
//! could not remove afterwards it does not deliver, and says what is to be done.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::check::Found;
use crate::support::files::{all_names, sign};
use crate::support::mount::{self, Mount};
use crate::support::place::Place;
use crate::support::policy::{VERIFY, place, set_policy, with};

const WATCH: [&str; 6] = ["watch", "--policy", "policy.toml", "--once", "--log-format", "json"];

/// A file of so many MiB, to be mounted.
fn image(place: &Place, mebibytes: u64) -> std::path::PathBuf {
    let image = place.path("image");
    File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
    image
}

/// Puts a signed pair of this name into a directory.
fn pair_in(place: &Place, dir: &Path, name: &str, content: &str) {
    let (payload, signature) = sign(place, name, content);
    fs::copy(payload, dir.join(name)).unwrap();
    fs::copy(signature, dir.join(format!("{name}.sig"))).unwrap();
}

/// How a run of the daemon ended, and what it said.
fn watch(place: &Place) -> (bool, String) {
    std::thread::sleep(Duration::from_millis(200)); // older than grace: what is younger is left
    let run = place.run(WATCH);
    // The summary last: of what a test prints the end is kept.
    let said = format!("{}{}", run.stderr(), String::from_utf8_lossy(run.stdout()));
    (run.succeeds(), said)
}

#[test]
fn c24_p4_what_lies_in_a_subvolume_is_held_before_it_is_delivered_and_says_why() {
    mount::private();
    let place = place(&with(VERIFY, "recursive = true"));
    let image = image(&place, 256);
    mount::run(Command::new("mkfs.btrfs").arg("-q").arg(&image));
    let _disk = Mount::image(&image, &place.path("in"), "rw");
    mount::run(Command::new("btrfs").args(["subvolume", "create"]).arg(place.path("in/sub")));
    fs::create_dir(place.path("in/plain")).unwrap();
    pair_in(&place, &place.path("in/sub"), "good", "content");
    pair_in(&place, &place.path("in/plain"), "better", "content");
    fs::write(place.path("in/sub/bad"), "content").unwrap();
    fs::write(place.path("in/sub/bad.sig"), "nonsense").unwrap();
    let (level, to_do) = Found::online(&place, 2).says("verify", "no file can be moved out of \"sub\"");
    assert!(level == "fix" && to_do.starts_with("give that directory a rule of its own"), "{level}: {to_do}");
    let (is_done, said) = watch(&place);
    assert!(!is_done, "{said}");
    assert_eq!(said.matches("left: held (boundary)").count(), 2, "{said}");
    assert!(said.contains("another subvolume") && said.contains("a rule of its own"), "{said}");
    assert_eq!(all_names(&place.path("out")), ["plain"]);
    assert_eq!(all_names(&place.path("in/sub")), ["bad", "bad.sig", "good", "good.sig"]);
    assert!(all_names(&place.path("in/plain")).is_empty() && all_names(&place.path("q")).is_empty());
    assert_eq!(all_names(&place.path("in")), ["plain", "sub"], "nothing of ours is left");
    // As the hint says.
    set_policy(&place, &with(VERIFY, "path = \"in/sub\""));
    let (_, said) = watch(&place);
    assert_eq!(all_names(&place.path("out")), ["good", "good.sig", "plain"], "{said}");
    assert!(all_names(&place.path("in/sub")).is_empty());
    assert_eq!(all_names(&place.path("q")).len(), 1);
}

#[test]
fn c24_p4_what_lies_on_another_branch_of_a_mergerfs_is_held_before_it_is_delivered() {
    mount::private();
    let place = place(VERIFY);
    for dir in ["a", "b"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let _disks = [
        Mount::tmpfs(&place.path("a"), "size=16m,mode=755"),
        Mount::tmpfs(&place.path("b"), "size=64m,mode=755"),
    ];
    for dir in ["a/in", "b/in"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    set_policy(&place, &with(VERIFY, "path = \"merged/in\""));
    fs::create_dir(place.path("merged")).unwrap();
    for (options, is_held) in [
        ("category.create=epmfs,minfreespace=1M", true),
        ("category.create=epmfs,minfreespace=1M,ignorepponrename=true", false),
        ("category.create=mfs,minfreespace=1M", false),
    ] {
        pair_in(&place, &place.path("a/in"), "f", options);
        let branches = format!("{}:{}", place.path("a").display(), place.path("b").display());
        mount::run(Command::new("mergerfs").args(["-o", options]).arg(branches).arg(place.path("merged")));
        let _merged = Mount::at(&place.path("merged"));
        let (is_done, said) = watch(&place);
        assert_eq!(
            (is_done, said.contains("\"cause\":\"boundary\"")),
            (!is_held, is_held),
            "{options}: {said}"
        );
        assert_eq!(place.path("out/f").exists(), !is_held, "{options}: {said}");
        assert_eq!(place.path("a/in/f").exists(), is_held, "{options}: {said}");
        for name in ["f", "f.sig"] {
            for dir in ["a/in", "b/in", "out"] {
                fs::remove_file(place.path(dir).join(name)).ok();
            }
        }
    }
}

#[test]
fn c25_where_modes_are_not_kept_the_rule_is_held_with_the_options_that_help() {
    mount::private();
    for (kind, bad, good, told) in [
        ("ntfs-3g", "umask=022", "umask=077", "umask=077"),
        ("bindfs", "perms=0755", "perms=0700", "uid= of the daemon and umask=077"),
    ] {
        let place = place(VERIFY);
        let (at, back) = (place.path("in"), place.path("back"));
        match kind {
            "bindfs" => fs::create_dir(&back).unwrap(),
            _ => {
                File::create(&back).unwrap().set_len(16 << 20).unwrap();
                mount::run(Command::new("mkntfs").args(["-q", "-F", "-f"]).arg(&back));
            }
        }
        let mounted = |options: &str| {
            mount::run(Command::new(kind).args(["-o", options]).args([&back, &at]));
            Mount::at(&at)
        };
        {
            let _disk = mounted(bad);
            pair_in(&place, &at, "f", "content");
            let (level, to_do) = Found::online(&place, 2).says("verify", told);
            assert_eq!((level.as_str(), to_do.as_str()), ("fix", ""), "{kind}");
            let (is_done, said) = watch(&place);
            assert!(!is_done && said.contains("held: the rule cannot work"), "{kind}: {said}");
            assert!(said.contains(told) && !said.contains("remove"), "{kind}: {said}");
            assert_eq!(all_names(&at), ["f", "f.sig"], "{kind}: nothing is left of the probe");
            assert!(all_names(&place.path("out")).is_empty(), "{kind}");
        }
        let _disk = mounted(good);
        Found::online(&place, 0).is("verify", "the directory can be written to", "fine");
        let (is_done, said) = watch(&place);
        assert!(is_done, "{kind}: {said}");
        assert!(all_names(&at).is_empty(), "{kind}: {said}");
        assert_eq!(all_names(&place.path("out")), ["f", "f.sig"], "{kind}: {said}");
    }
}
