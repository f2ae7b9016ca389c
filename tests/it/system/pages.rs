//! Manual pages and completions as those who read them take them: groff and the shells.

use std::path::{Path, PathBuf};
use std::process::Command;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// What a program prints for a file that it finds nothing wrong with.
#[track_caller]
fn reads(program: &str, arguments: &[&str], file: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).arg(config(file));
    let output =
        command.output().unwrap_or_else(|e| panic!("{program}: {e}; install it: apt-get install {program}"));
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{file}: {warnings}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn manual_pages_read_well() {
    for page in ["man/kms-sig.1", "man/kms-sig-watch.8", "man/kms-sig-policy.5"] {
        let text = reads("groff", &["-man", "-Tutf8", "-Kutf8", "-ww", "-rLL=80n", "-P-cbou"], page);
        assert!(text.contains("NAME") && text.contains("SEE ALSO") && !text.contains('`'), "{text}");
    }
}

#[test]
fn completions_are_good_shell() {
    reads("bash", &["-n"], "completions/kms-sig.bash");
    reads("zsh", &["-n"], "completions/_kms-sig");
    reads("fish", &["--no-execute"], "completions/kms-sig.fish");
}
