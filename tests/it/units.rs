//! The two units, and what must hold of them without a systemd. What must hold with one:
//! `system::systemd`.

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
    for unit in [SINGLE, INSTANCE] {
        for line in [
            "Type=notify", // notify-reload would need systemd 253
            "NotifyAccess=main",
            "StartLimitIntervalSec=0",
            "Restart=on-failure",
            "RestartPreventExitStatus=2",
            "ExecReload=/usr/bin/kill -HUP $MAINPID",
            "AmbientCapabilities=CAP_LEASE",
            "CapabilityBoundingSet=CAP_LEASE",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "NoExecPaths=/",
            "ExecPaths=/usr/bin/kms-sig /usr/bin/kill /usr/lib -/usr/lib64",
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "StateDirectoryMode=0700",
            "RuntimeDirectoryMode=0750",
            "UMask=0022",
        ] {
            assert!(unit.lines().any(|l| l == line), "{line}");
        }
        for setting in ["WatchdogSec=", "StateDirectory=", "RuntimeDirectory=", "ReadWritePaths=", "Type="] {
            // Of `ReadWritePaths=` several would be several mounts.
            assert_eq!(unit.lines().filter(|l| l.starts_with(setting)).count(), 1, "{setting}");
        }
        let check = unit.find("ExecReload=/usr/bin/kms-sig check").unwrap();
        assert!(
            check < unit.find("ExecReload=/usr/bin/kill").unwrap(),
            "a bad policy never reaches the daemon"
        );
        for absent in ["ExecStartPre=", "PrivateUsers=", "RequiresMountsFor="] {
            assert!(!unit.lines().any(|l| l.starts_with(absent)), "{absent}");
        }
    }
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
