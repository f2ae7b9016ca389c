//! The Debian package where it belongs: in a Debian that systemd has booted, used by an operator
//! who does what `docs/install.md` says. Installed, killed, hung, misconfigured, rebooted, upgraded
//! and removed; `systemd.sh` beside this file is what happens inside. Prints each step.
//!
//! Debian is made once, below `target/`, with the mirror that this machine's apt uses, or
//! `KMS_SIG_DEBIAN_MIRROR`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::mount::run;

/// The oldest release that is supported.
const RELEASE: &str = "bookworm";
/// What the package depends on, as nothing is downloaded inside, and dbus for systemctl.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates,procps";
/// What systemd-nspawn says when the system inside wants to be booted again (its manual page).
const REBOOT: i32 = 133;
/// All of one boot; it takes a minute or two.
const PATIENCE: &str = "900";

/// Where Debian is kept between runs.
fn target() -> PathBuf {
    let program = Path::new(crate::support::place::PROGRAM);
    program.ancestors().nth(2).unwrap().to_owned()
}

/// A tool that must be there, or how to get it.
#[track_caller]
fn tool(name: &str, package: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()));
    assert!(found, "there is no {name}; install it: {package}");
    Command::new(name)
}

/// Debian with systemd and nothing more, from the cache or newly made.
fn debian() -> PathBuf {
    let ready = target().join(format!("debian-{RELEASE}"));
    let list = "etc/kms-sig-test.packages";
    if !fs::read_to_string(ready.join(list)).is_ok_and(|packages| packages == PACKAGES) {
        fs::remove_dir_all(&ready).ok();
        let made = ready.with_extension("partial");
        fs::remove_dir_all(&made).ok();
        let mut debootstrap = tool("debootstrap", "apt-get install debootstrap");
        debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]);
        run(debootstrap.arg(&made).arg(mirror()));
        fs::write(made.join(list), PACKAGES).unwrap();
        fs::rename(made, &ready).unwrap();
    }
    ready
}

fn mirror() -> String {
    if let Ok(mirror) = std::env::var("KMS_SIG_DEBIAN_MIRROR") {
        return mirror;
    }
    let mut apt = tool("apt-get", "this test needs Debian");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)", "Created-By: Packages"]);
    let listed = String::from_utf8(apt.output().unwrap().stdout).unwrap();
    // Not the updates and security, which have a suffix and are no whole Debian.
    let whole =
        listed.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find_map(|words| match words[..] {
            [uri, "Debian", codename] if !codename.contains('-') => Some(uri.to_owned()),
            _ => None,
        });
    whole.expect("apt knows no mirror of Debian; apt-get update, or set KMS_SIG_DEBIAN_MIRROR")
}

/// The package: the one that `KMS_SIG_DEB` names, or one made now.
fn package(into: &Path) {
    if let Some(made) = std::env::var_os("KMS_SIG_DEB") {
        fs::copy(&made, into.join(Path::new(&made).file_name().unwrap())).unwrap();
        return;
    }
    tool("cargo-deb", "cargo install --locked cargo-deb");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["deb", "--locked", "--quiet", "--output"]).arg(into).current_dir(env!("CARGO_MANIFEST_DIR"));
    run(&mut cargo);
}

/// The commands of the chapter on the service that are typed as root, each with what it prints
/// there.
fn chapter() -> String {
    let chapter = crate::support::document::section("docs/install.md", "## Running it as a service");
    let mut script = String::new();
    let mut count = 0;
    for block in chapter.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for command in block.split("# ").skip(1) {
            let (command, output) = command.split_once('\n').unwrap();
            writeln!(script, "shows {} {}", quoted(command), quoted(output.trim_end())).unwrap();
            count += 1;
        }
    }
    assert!(count > 5, "the chapter shows what to type");
    script
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn the_package_serves_a_debian_as_the_documentation_says() {
    tool("systemd-nspawn", "apt-get install systemd-container");
    let place = tempfile::tempdir_in(target()).unwrap();
    let (root, shared) = (place.path().join("root"), place.path().join("test"));
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(debian()).arg(&root));
    fs::create_dir(&shared).unwrap();
    package(&shared);
    fs::write(shared.join("chapter.sh"), chapter()).unwrap();
    fs::write(shared.join("systemd.sh"), include_str!("systemd.sh")).unwrap();
    let unit =
        "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /test/systemd.sh\n";
    fs::write(root.join("etc/systemd/system/kms-sig-test.service"), unit).unwrap();
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../kms-sig-test.service", wants.join("kms-sig-test.service")).unwrap();
    // Whoever is asked who they are when they are first booted waits for ever.
    fs::write(root.join("etc/machine-id"), "uninitialized\n").unwrap();

    let mut console = Vec::new();
    let mut boots = 0;
    loop {
        boots += 1;
        let mut nspawn = Command::new("timeout");
        nspawn.args(["--kill-after=10", PATIENCE, "systemd-nspawn", "--quiet", "--boot", "--register=no"]);
        nspawn.args(["--keep-unit", "--console=pipe", "--directory"]).arg(&root);
        nspawn.arg(format!("--bind={}:/test", shared.display()));
        nspawn.arg("systemd.show_status=no").stdin(Stdio::null());
        let output = nspawn.output().unwrap();
        console.extend(output.stdout);
        console.extend(output.stderr);
        if output.status.code() != Some(REBOOT) || boots == 2 {
            break;
        }
    }
    let log = String::from_utf8_lossy(&fs::read(shared.join("log")).unwrap_or_default()).into_owned();
    // Not `println!`, which is shown of failing tests alone: whoever reads the log of a good run
    // sees the steps as well.
    writeln!(std::io::stdout(), "{log}").unwrap();
    let done = log.lines().last() == Some("ALL STEPS DONE") && boots == 2;
    assert!(done, "a step failed, see above; after {boots} boots\n{}", String::from_utf8_lossy(&console));
}
