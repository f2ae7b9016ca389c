//! The two units, and what must hold of them without a systemd. What must hold with one: `system::systemd`.

const SINGLE: &str = include_str!("../../systemd/kms-sig.service");
const INSTANCE: &str = include_str!("../../systemd/kms-sig@.service");

fn body(unit: &str) -> &str {
    &unit[unit.find("[Unit]").unwrap()..]
}

#[test]
fn units_differ_in_their_names_only() {
    let named = body(SINGLE)
        .replace("/etc/kms-sig/policy.toml", "/etc/kms-sig/%i.toml")
        .replace("/srv/kms-sig\n", "/srv/kms-sig/%i\n")
        .replace("Directory=kms-sig\n", "Directory=kms-sig-%i\n")
        .replace("with AWS KMS\n", "with AWS KMS for %i\n");
    assert_eq!(named, body(INSTANCE));
}

/// What is relaxed has its reason beside it; what the issue asks for is there.
#[test]
fn units_say_what_an_operator_relies_on() {
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "ExecReload=/usr/bin/kill -HUP $MAINPID",
        "AmbientCapabilities=CAP_LEASE",
        "CapabilityBoundingSet=CAP_LEASE",
        "ProtectSystem=strict",
        "StateDirectoryMode=0700",
    ] {
        assert!(SINGLE.lines().any(|l| l == line), "{line}");
    }
    assert!(SINGLE.lines().any(|l| l.starts_with("WatchdogSec=")));
    let check = SINGLE.find("ExecReload=/usr/bin/kms-sig check").unwrap();
    assert!(
        check < SINGLE.find("ExecReload=/usr/bin/kill").unwrap(),
        "a bad policy never reaches the daemon"
    );
    for absent in ["ExecStartPre=", "PrivateUsers=", "notify-reload\n"] {
        assert!(!SINGLE.lines().any(|l| l.starts_with(absent)), "{absent}");
    }
    assert_eq!(
        SINGLE.lines().filter(|l| l.starts_with("ReadWritePaths=")).count(),
        1,
        "several are several mounts"
    );
}

#[test]
fn units_fit_the_example_policy() {
    let policy = include_str!("../../config/policy.toml");
    for line in ["dir = \"/var/lib/kms-sig\"", "keyring = \"/var/lib/kms-sig/keyring\""] {
        assert!(policy.lines().any(|l| l == line), "{line}");
    }
    let path = |line: &str| -> Option<String> {
        let (key, value) = line.split_once(" = ")?;
        ["path", "deliver_to", "dir"].contains(&key).then(|| value.trim_matches('"').to_owned())
    };
    for path in policy.lines().filter_map(path).filter(|path| path != "/var/lib/kms-sig") {
        assert!(path.starts_with("/srv/kms-sig/"), "ReadWritePaths= does not reach {path}");
        let postinst = include_str!("../../systemd/debian/postinst");
        assert!(
            postinst.lines().any(|line| line.ends_with(&format!(" {path}"))),
            "the package does not make {path}"
        );
    }
}
