//! Three in the morning: five things are wrong at once, and `status` and `backlog` name each with
//! its hint. And who may ask. Needs root and namespaces.

use std::fs;

use serde_json::Value;

use crate::support::control::{asked, status};
use crate::support::daemon::Daemon;
use crate::support::files::drop_pair;
use crate::support::kms::at_proxy;
use crate::support::moto::{Moto, REGION};
use crate::support::mount::start_in;
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};
use crate::support::proxy::Fault;

/// A rule with another name and folder.
fn named(rule: &str, mode: &str, name: &str) -> String {
    rule.replace(&format!("name = \"{mode}\""), &format!("name = \"{name}\""))
        .replace("path = \"in\"", &format!("path = \"{name}\""))
}

/// The concerns of this kind.
fn concerns(status: &Value, kind: &str) -> Vec<Value> {
    let all = status["concerns"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|concern| concern["kind"] == kind).collect()
}

/// KMS is away, a key is denied, a disk is full, an upload is stuck and there are no watches left.
#[test]
fn five_troubles_at_once_are_named_each_with_its_hint() {
    let (place, proxy, away) = at_proxy();
    let denied = Moto::start().create_key();
    proxy.always_of("Encrypt", &away, Fault::Reset);
    proxy.always_of("Encrypt", &denied, Fault::ACCESS_DENIED);
    let sign = |name: &str, key: &str| with(&named(SIGN, "sign", name), &format!("key = \"{key}\""));
    let rules = [
        format!("aws.region = \"{REGION}\"\naws.endpoint_url = \"{}\"\n", proxy.url()),
        sign("releases", &away),
        sign("nightlies", &denied),
        named(VERIFY, "verify", "incoming"),
        with(&named(SIGN, "sign", "sources"), "recursive = true"),
    ];
    set_policy(&place, &rules.concat());
    for folder in ["releases", "nightlies", "incoming"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    for i in 0..20 {
        fs::create_dir_all(place.path(format!("sources/{i}"))).unwrap();
    }
    // Five, so that nobody waits half a minute for the breaker to say that KMS is away.
    for i in 0..5 {
        place.write(format!("releases/app-{i}.tar.gz"), "content");
    }
    place.write("nightlies/app.tar.gz", "content");
    drop_pair(&place, "image.iso", &"x".repeat(1 << 20));
    for name in ["image.iso", "image.iso.sig"] {
        fs::rename(place.path("in").join(name), place.path("incoming").join(name)).unwrap();
    }
    let upload = fs::File::create(place.path("sources/upload.tar")).unwrap();
    // Enough for the roots and for what proves that events arrive; not for twenty directories more.
    let script = "mount -t tmpfs -o size=64k,mode=0755 none out && \
                  echo 12 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let daemon = start_in(&place, &["--user", "--map-root-user", "--mount"], script);
    daemon.waits_for("ready");

    let kinds = ["kms-silent", "access-denied", "no-space", "no-events"];
    daemon.until("all are told", || {
        let said = status(&place);
        let is_stuck = |rule: &Value| {
            let causes = rule["causes"].as_array().cloned().unwrap_or_default();
            causes.iter().any(|of| of["cause"] == "being-written")
        };
        kinds.iter().all(|kind| !concerns(&said, kind).is_empty())
            && said["rules"].as_array().unwrap().iter().any(is_stuck)
    });
    let said = status(&place);
    let hint = |kind: &str| concerns(&said, kind)[0]["hint"].as_str().unwrap().to_owned();
    assert!(hint("kms-silent").starts_with("check the network"), "{said:#}");
    assert!(hint("access-denied").starts_with("allow kms:Encrypt to signers"), "{said:#}");
    assert!(hint("no-space").starts_with("make room"), "{said:#}");
    assert!(hint("no-events").contains("sysctl fs.inotify.max_user_watches"), "{said:#}");
    for kind in kinds {
        for concern in concerns(&said, kind) {
            assert_eq!(concern["needs_operator"], kind != "kms-silent", "{concern}");
        }
    }

    let files = asked(&place, "backlog --json");
    let of = |cause: &str| {
        let found = files.iter().find(|file| file["cause"] == cause);
        found.unwrap_or_else(|| panic!("no {cause} among {files:#?}"))
    };
    for (cause, rule, file) in [
        ("network", "releases", "app-"),
        ("access-denied", "nightlies", "app.tar.gz"),
        ("no-space", "incoming", "image.iso"),
        ("being-written", "sources", "upload.tar"),
    ] {
        let found = of(cause);
        assert_eq!(found["rule"], rule);
        assert!(found["file"].as_str().unwrap().starts_with(file), "{found}");
        assert!(!found["hint"].as_str().unwrap().is_empty() && found["next_attempt"].is_string(), "{found}");
    }
    assert!(of("being-written")["hint"].as_str().unwrap().contains("fuser -v"));

    // What people see, for `docs/operations.md`: KMS_SIG_SHOW=1 prints it.
    for command in ["status", "backlog --most 1"] {
        let run = place.shell(&format!("\"$KMS_SIG\" {command} --policy policy.toml")).exits(3);
        if std::env::var_os("KMS_SIG_SHOW").is_some() {
            println!("$ kms-sig {command}\n{}", String::from_utf8_lossy(run.stdout()));
        }
    }
    drop(upload);
}

/// A command of another user, who may be in a group.
fn as_user(place: &Place, groups: &str, command: &str) -> (i32, String) {
    let script = format!(
        "setpriv --reuid=7301 --regid=7301 {groups} \"$KMS_SIG\" {command} --socket run/s 2>&1; echo $?"
    );
    let run = place.shell(&script);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    let (said, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    (code.parse().unwrap(), said.to_owned())
}

#[test]
fn who_is_in_the_group_may_ask_and_only_the_owner_may_order() {
    let place = place(SIGN);
    set_policy(&place, &format!("control.socket = \"run/s\"\n{SIGN}"));
    // Whoever comes by can get to the socket; the rest is the socket's own mode.
    place.shell("mkdir -m 755 run && chmod 755 . && chgrp 7300 run && chmod g+s run").exits(0);
    let daemon = Daemon::start(&place);
    place.shell("chgrp 7300 run/s").exits(0);
    let (code, said) = as_user(&place, "--clear-groups", "status");
    assert!(code == 3 && said.contains("user 7301 may not ask the daemon at"), "{code} {said}");
    let (code, said) = as_user(&place, "--groups=7300", "status");
    assert!(code == 0 && said.contains("all is well"), "{code} {said}");
    for order in ["rescan", "reload"] {
        let (code, said) = as_user(&place, "--groups=7300", order);
        assert!(
            code == 3 && said.contains("only the daemon's own user and root may order that"),
            "{code} {said}"
        );
    }
    assert_eq!(daemon.count("policy reloaded"), 0);
    place.run(["reload", "--socket", "run/s"]).exits(0);
}
