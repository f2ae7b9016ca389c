//! The command line: exact output, exact exit codes, and what lies in the directory afterwards.
//! With local keys throughout; what needs KMS is tested against a server that speaks its protocol.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use crate::support::doorbell::Doorbell;
use crate::support::place::{Place, name};

const VALID: &str = "valid signature from local:demo\n";
const INVALID: &str = "invalid signature\n";

// Signing and verifying

#[test]
fn a_signed_file_verifies() {
    let place = Place::with_signed_file();
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID).complains("");
    assert_eq!(place.names(), ["f", "f.sig", "keyring"]);
}

#[test]
fn the_originals_command_lines_work() {
    let place = Place::with_keyring();
    place.write("README.md", "text");
    let context = "--context=hostname=web1.example.com,version=20";
    place.run(["sign", "local:demo", "README.md", "out.sig", context]).exits(0).says("").complains("");
    for line in [
        ["verify", "README.md", "out.sig", context, "--key=local:demo"],
        ["verify", context, "--key=local:demo", "README.md", "out.sig"],
    ] {
        place.run(line).exits(0).says(VALID).complains("");
    }
}

#[test]
fn a_signature_may_lie_anywhere() {
    let place = Place::with_keyring();
    fs::create_dir(place.path("sigs")).unwrap();
    place.write("f", "payload");
    place.run(["sign", "local:demo", "f", "sigs/one"]).exits(0);
    place.run(["verify", "f", "sigs/one", "--key", "local:demo"]).exits(0).says(VALID);
    assert_eq!(place.names(), ["f", "keyring", "sigs"]);
}

#[test]
fn s15_an_empty_file_is_signed_like_any_other() {
    let place = Place::with_keyring();
    place.write("empty", "");
    place.run(["sign", "local:demo", "empty"]).exits(0);
    place.run(["verify", "empty", "--key", "local:demo"]).exits(0).says(VALID);
}

#[test]
fn p10_a_large_file_is_streamed() {
    let place = Place::with_keyring();
    fs::File::create(place.path("big")).unwrap().set_len(64 << 20).unwrap();
    // 32 MiB for everything that is allocated: half the file.
    place.shell("ulimit -d 32768; \"$KMS_SIG\" sign local:demo big").exits(0).complains("");
    place.run(["verify", "big", "--key", "local:demo"]).exits(0).says(VALID);
}

#[test]
fn k6_another_payload_is_invalid() {
    let place = Place::with_signed_file();
    place.write("f", "payload");
    place.run(["verify", "f", "--key", "local:demo"]).exits(1).says("").complains(INVALID);
    place
        .run(["verify", "f", "--key", "local:demo", "--verbose"])
        .exits(1)
        .says("")
        .complains("invalid signature\nreason: the signature is genuine, but not of these bytes\n");
}

#[test]
fn k1_a_damaged_signature_is_invalid() {
    let place = Place::with_signed_file();
    let good = place.read("f.sig");
    for at in [0, 5, 12, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        place.write("f.sig", bad);
        place.run(["verify", "f", "--key", "local:demo"]).exits(1).says("").complains(INVALID);
    }
    place.write("f.sig", [good.as_slice(), b"\n"].concat());
    place
        .run(["verify", "f", "--key", "local:demo", "-v"])
        .exits(1)
        .complains("invalid signature\nreason: the signature is damaged, or the context is not the one it was made with\n");
}

#[test]
fn k7_the_context_must_be_the_same() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    place.run(["sign", "local:demo", "f", "--context", "a=1,b=2"]).exits(0);
    for (context, code) in [
        (&["--context=a=1,b=2"][..], 0),
        (&["--context=b=2,a=1"], 0),
        (&["--context=b=2", "--context=a=1", "--context="], 0),
        (&[], 1),
        (&["--context=a=1"], 1),
        (&["--context=a=1,b=3"], 1),
        (&["--context=a=1,b=2,c="], 1),
    ] {
        let line = ["verify", "f", "--key", "local:demo"].iter().chain(context);
        let run = place.run(line).exits(code);
        if code == 0 {
            run.says(VALID).complains("")
        } else {
            run.says("").complains(INVALID)
        };
    }
}

#[test]
fn a_comma_in_a_context_is_written_with_a_backslash() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    place.run(["sign", "local:demo", "f", "--context", r"a=1\,2,path=c:\temp"]).exits(0);
    let verify = |context: &str| place.run(["verify", "f", "--key", "local:demo", "--context", context]);
    verify(r"path=c:\temp,a=1\,2").exits(0).says(VALID);
    verify(r"path=c:temp,a=1\,2").exits(1);
}

#[test]
fn k2_a_key_that_did_not_make_it_is_invalid() {
    let place = Place::with_signed_file();
    place.run(["key", "create", "local:other"]).exits(0);
    place.run(["verify", "f", "--key", "local:other"]).exits(1).says("").complains(INVALID);
    place
        .run(["verify", "f", "--key", "local:other", "-v"])
        .exits(1)
        .complains("invalid signature\nreason: none of the named keys made the signature\n");
}

#[test]
fn k3_any_of_several_keys_may_have_made_it() {
    let place = Place::with_signed_file();
    place.run(["key", "create", "local:other"]).exits(0);
    place.run(["verify", "f", "--key", "local:other", "--key", "local:demo"]).exits(0).says(VALID);
    // A key that cannot be asked might have been the one: no verdict, unless another vouches.
    place.run(["verify", "f", "--key", "local:gone", "--key", "local:demo"]).exits(0).says(VALID);
    place.run(["verify", "f", "--key", "local:gone", "--key", "local:other"]).exits(3).says("");
}

#[test]
fn another_hosts_key_of_the_same_name_does_not_verify() {
    let place = Place::with_signed_file();
    place.run(["key", "create", "local:demo", "--keyring", "elsewhere"]).exits(0);
    place.run(["verify", "f", "--key=local:demo", "--keyring=elsewhere"]).exits(1).complains(INVALID);
}

#[test]
fn signatures_of_the_same_file_differ_and_all_verify() {
    let place = Place::with_signed_file();
    place.run(["sign", "local:demo", "f", "second"]).exits(0);
    assert_ne!(place.read("f.sig"), place.read("second"));
    place.run(["verify", "f", "second", "--key", "local:demo"]).exits(0).says(VALID);
}

// Standard streams

#[test]
fn a_payload_comes_from_standard_input() {
    let place = Place::with_keyring();
    place.run_with(["sign", "local:demo", "-", "out.sig"], "payload").exits(0).says("").complains("");
    place.run_with(["verify", "-", "out.sig", "--key=local:demo"], "payload").exits(0).says(VALID);
    place.run_with(["verify", "-", "out.sig", "--key=local:demo"], "payloaf").exits(1).complains(INVALID);
}

#[test]
fn a_signature_goes_to_standard_output() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    for line in [&["sign", "local:demo", "f", "-"][..], &["sign", "local:demo", "-"]] {
        let run = place.run_with(line, "payload").exits(0).complains("");
        let verified = place.run_with(["verify", "f", "-", "--key=local:demo"], run.stdout());
        verified.exits(0).says(VALID).complains("");
    }
    assert_eq!(place.names(), ["f", "keyring"]);
}

#[test]
fn o9_file_and_signature_cannot_both_be_standard_input() {
    let place = Place::with_signed_file();
    for line in [&["verify", "-"][..], &["verify", "-", "-"]] {
        place.run_with(line, "payload").exits(2).says("").complains(
            "kms-sig: the file and its signature cannot both be standard input\n\
             hint: name the signature: kms-sig verify - SIG\n",
        );
    }
}

#[test]
fn pipes_are_read_like_files() {
    let place = Place::with_signed_file();
    place
        .shell("mkfifo p && (cat f >p & \"$KMS_SIG\" verify p f.sig --key local:demo)")
        .exits(0)
        .says(VALID)
        .complains("");
    place.shell("cat f.sig | \"$KMS_SIG\" verify f /dev/stdin --key local:demo").exits(0).says(VALID);
}

#[test]
fn a_reader_that_goes_away_changes_no_verdict() {
    let place = Place::with_signed_file();
    // The pipe's reader is gone before the program starts.
    let script = "exec 3>&1; { read -r go; \"$KMS_SIG\" verify f --key local:demo; echo $? >&3; } <gate | \
                  { exec <&-; echo go >gate; wait; }";
    place.shell(&format!("mkfifo gate; {script}")).says("0\n").complains("");
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let place = Place::with_signed_file();
    let full = "kms-sig: cannot write to standard output: no space left on device\n\
                hint: make room there, or name another place\n";
    place.shell("\"$KMS_SIG\" verify f --key local:demo >/dev/full").exits(3).complains(full);
    place.shell("\"$KMS_SIG\" sign local:demo f - >/dev/full").exits(3).complains(full);
    // A signature that is cut short is none, so a reader that goes away is trouble here.
    let cut = "kms-sig: cannot write to standard output: broken pipe\n\
               hint: what reads it ended before it had all of it; a part is worth nothing\n";
    let script = "exec 3>&1; { read -r go; \"$KMS_SIG\" sign local:demo f -; echo $? >&3; } <gate | \
                  { exec <&-; echo go >gate; wait; }";
    place.shell(&format!("mkfifo gate; {script}")).says("3\n").complains(cut);
    // With nobody to tell, the exit code still does.
    place.shell("\"$KMS_SIG\" verify f --key local:nobody >/dev/full 2>/dev/full").exits(3);
    place.shell("\"$KMS_SIG\" verify f --key local:demo >&- 2>&-").exits(0);
}

#[test]
fn c14_what_goes_to_a_closed_stream_is_no_success() {
    let place = Place::with_signed_file();
    let closed = "kms-sig: cannot write to standard output: bad file descriptor\n\
                  hint: it was closed (>&-), or not opened for this, when the command began: redirect it\n";
    // The last is open, for reading alone.
    for to in [">&-", "1</dev/null"] {
        for command in [
            "sign local:demo f -",
            "show f.sig",
            "key list --keyring keyring",
            "version",
            "--help",
            "sign --help",
        ] {
            let run = place.shell(&format!("\"$KMS_SIG\" {command} {to}")).exits(3).says("");
            assert!(
                run.stderr().starts_with(closed.split('\n').next().unwrap()),
                "{command} {to}: {}",
                run.stderr()
            );
        }
    }
    place.shell("\"$KMS_SIG\" sign local:demo f - >&-").exits(3).complains(closed);
    for command in ["version", "--help"] {
        place.shell(&format!("\"$KMS_SIG\" {command} >/dev/full")).exits(3);
        place.shell(&format!("\"$KMS_SIG\" {command} >/dev/null")).exits(0);
    }
    // By another name it is the same stream.
    for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        place.shell(&format!("\"$KMS_SIG\" sign local:demo f {name} >&-")).exits(3);
    }
    // What is to be signed is not there, and not empty.
    for name in ["-", "/dev/stdin", "/dev/fd/0"] {
        place.shell(&format!("\"$KMS_SIG\" sign local:demo {name} new.sig <&-")).exits(3);
    }
    assert_eq!(place.names(), ["f", "f.sig", "keyring"]);
    // A verdict is told by the exit code, too.
    place.shell("\"$KMS_SIG\" verify f --key local:demo >&-").exits(0).complains("");
    place.shell("\"$KMS_SIG\" sign local:demo f - >/dev/null").exits(0);
}

#[test]
fn a_signature_in_another_form_is_invalid_and_told_what_it_is() {
    let place = Place::with_signed_file();
    let base64 = "base64 -w 20 f.sig >b && mv b f.sig";
    let json = "printf '{\\n  \"CiphertextBlob\": \"%s\",\\n  \"KeyId\": \"k\"\\n}' \"$(base64 -w 0 f.sig)\" >b && mv b f.sig";
    let hex = "od -An -v -tx1 f.sig >b && mv b f.sig";
    let sum = "sha512sum f >f.sig";
    for (make, what) in [
        (base64, "hint: the signature file is base64 text"),
        (json, "hint: the signature file is text with a ciphertext in it as base64"),
        (hex, "hint: the signature file is hexadecimal text"),
        (sum, "hint: the signature file is a checksum"),
    ] {
        let signature = place.read("f.sig");
        place.shell(make).exits(0);
        let run = place.run(["verify", "f", "--key", "local:demo"]).exits(1).says("");
        assert!(run.stderr().starts_with(&format!("{INVALID}{what}")), "{}", run.stderr());
        let shown = place.run(["show", "f.sig"]).exits(1);
        let shown = String::from_utf8_lossy(shown.stdout()).into_owned();
        assert!(shown.contains(&format!("format: none of ours: {}", &what[6..])), "{shown}");
        place.write("f.sig", signature);
    }
    // What it says to do does it.
    place.shell(base64).exits(0);
    place.shell("base64 -d f.sig >b && mv b f.sig").exits(0);
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID).complains("");
}

#[test]
fn a15_a_signature_under_nearly_the_right_name_is_found_and_not_taken() {
    for (file, there) in [("X.TXT", "X.TXT.SIG"), ("caf\u{e9}", "cafe\u{301}.sig"), ("f", "f.sig.txt")] {
        let place = Place::with_keyring();
        place.write(file, "content");
        place.run(["sign", "local:demo", file, there]).exits(0);
        let run = place.run(["verify", file, "--key", "local:demo"]).exits(1).says("");
        let shown = there.replace('\u{301}', "\\u{301}");
        let hint = format!("hint: \"{shown}\" is there: a signature has the name of its file");
        assert!(run.stderr().lines().nth(1).unwrap().starts_with(&hint), "{}", run.stderr());
    }
}

// Where the signature goes

#[test]
fn a_signature_has_the_mode_of_the_umask() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    for (umask, mode) in [("022", 0o644), ("027", 0o640), ("077", 0o600), ("002", 0o664)] {
        place.shell(&format!("umask {umask}; \"$KMS_SIG\" sign local:demo f {umask}")).exits(0);
        assert_eq!(fs::metadata(place.path(umask)).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn p4_a_signature_is_replaced_as_a_whole() {
    let place = Place::with_signed_file();
    let before = fs::metadata(place.path("f.sig")).unwrap().ino();
    let held = fs::File::open(place.path("f.sig")).unwrap();
    place.write("f", "new payload");
    place.run(["sign", "local:demo", "f"]).exits(0);
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID);
    assert_ne!(fs::metadata(place.path("f.sig")).unwrap().ino(), before);
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    assert_eq!(place.names(), ["f", "f.sig", "keyring"]);
}

#[test]
fn p4_after_a_failure_the_old_signature_stays_and_nothing_else_is_there() {
    let place = Place::with_signed_file();
    let old = place.read("f.sig");
    place.run(["sign", "local:gone", "f"]).exits(3).says("").complains(
        "kms-sig: cannot sign \"f\": key-not-found: the keyring has no key local:gone\n\
         hint: kms-sig key list shows its keys, kms-sig key create local:NAME makes one\n",
    );
    place.run(["sign", "local:gone", "f", "new"]).exits(3);
    place.run(["sign", "local:demo", "missing", "f.sig"]).exits(3);
    place.run(["sign", "local:demo", "/proc/self/mem", "f.sig", "--force"]).exits(3);
    assert_eq!(place.read("f.sig"), old);
    assert_eq!(place.names(), ["f", "f.sig", "keyring"]);
}

#[test]
fn a_signature_that_cannot_be_written_is_told() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    fs::create_dir(place.path("dir")).unwrap();
    for (sig, why, hint) in [
        ("none/f.sig", "no such file or directory", "make its directory first, or name another place"),
        ("dir", "is a directory", "name a file in it"),
        ("new/", "is a directory", "name a file in it"),
        ("f/x", "not a directory", "check the path"),
        ("/dev/full", "no space left on device", "make room there, or name another place"),
    ] {
        place
            .run(["sign", "local:demo", "f", sig])
            .exits(3)
            .says("")
            .complains(&format!("kms-sig: cannot write \"{sig}\": {why}\nhint: {hint}\n"));
    }
    assert_eq!(place.names(), ["dir", "f", "keyring"]);
    assert_eq!(fs::read_dir(place.path("dir")).unwrap().count(), 0);
}

#[test]
fn a_link_stays_and_what_it_points_to_is_replaced() {
    let place = Place::with_keyring();
    fs::create_dir(place.path("store")).unwrap();
    place.write("f", "payload");
    symlink("store/real", place.path("f.sig")).unwrap();
    for _ in 0..2 {
        place.run(["sign", "local:demo", "f"]).exits(0).complains("");
        place.run(["verify", "f", "store/real", "--key", "local:demo"]).exits(0).says(VALID);
    }
    assert_eq!(fs::read_link(place.path("f.sig")).unwrap().as_os_str(), "store/real");
    assert_eq!(fs::read_dir(place.path("store")).unwrap().count(), 1);
}

#[test]
fn devices_and_pipes_are_written_to_and_stay() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    let run = place.run(["sign", "local:demo", "f", "/dev/stdout"]).exits(0).complains("");
    place.run_with(["verify", "f", "-", "--key=local:demo"], run.stdout()).exits(0).says(VALID);
    place.shell("\"$KMS_SIG\" sign local:demo f /dev/stdout >out").exits(0).complains("");
    place.run(["verify", "f", "out", "--key=local:demo"]).exits(0).says(VALID);
    place
        .shell("mkfifo p; cat p >piped & \"$KMS_SIG\" sign local:demo f p; code=$?; wait; exit $code")
        .exits(0)
        .complains("");
    place.run(["verify", "f", "piped", "--key=local:demo"]).exits(0).says(VALID);
    assert!(fs::metadata(place.path("p")).unwrap().file_type().is_fifo());
    place.run(["sign", "local:demo", "f", "/dev/null"]).exits(0).says("").complains("");
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_file_is_not_replaced_by_its_own_signature() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    symlink("f", place.path("same")).unwrap();
    fs::hard_link(place.path("f"), place.path("twin")).unwrap();
    for sig in ["f", "./f", "same", "twin"] {
        place.run(["sign", "local:demo", "f", sig]).exits(2).says("").complains(
            "kms-sig: the signature would replace the file itself\n\
             hint: leave SIG out for FILE.sig, or name another file\n",
        );
    }
    assert_eq!(place.read("f"), b"payload");
}

/// What follows a ciphertext's beginning: bytes that are no text.
fn noise() -> Vec<u8> {
    (0..200).map(|at| 0x80 | (at * 37 % 128) as u8).collect()
}

#[test]
fn p8_the_signature_of_another_file_is_not_replaced() {
    let place = Place::with_keyring();
    for file in ["a", "b"] {
        place.write(file, file);
        place.run(["sign", "local:demo", file]).exits(0);
    }
    for files in ["*.sig", "a b.sig"] {
        let run = place.shell(&format!("\"$KMS_SIG\" sign local:demo {files}")).exits(2);
        run.complains_of(
            "\"b.sig\" is the signature of another file; it is left as it is\nhint: give one FILE",
        );
    }
    place.run(["verify", "b", "--key", "local:demo"]).exits(0).says(VALID);
    place.run(["sign", "local:demo", "a", "b.sig", "--force"]).exits(0);
    place.run(["sign", "local:demo", "b", "b.sig"]).exits(0);
    place.run(["sign", "local:demo", "b", "new.sig"]).exits(0);
    place.run(["sign", "local:demo", "a", "new.sig"]).exits(0); // nobody else's
    // A copy of the file, and what has no name.
    std::fs::create_dir(place.path("build")).unwrap();
    place.write("build/b", "b");
    place.run(["sign", "local:demo", "build/b", "b.sig"]).exits(0);
    place.shell("\"$KMS_SIG\" sign local:demo - b.sig < b").exits(0);
}

#[test]
fn p8_the_second_match_of_a_pattern_is_not_replaced_as_the_signatures_place() {
    let place = Place::with_keyring();
    place.write("a.csv", "1,2\n");
    place.write("b.csv", "3,4\n");
    let told = "kms-sig: \"b.csv\" is text, and no signature; it is left as it is\n\
                hint: give one FILE at a time: the second is the place for the signature; to have it replaced all the \
                same, add --force\n";
    // A key that there is not shows that nobody asked for it.
    for key in ["local:demo", "local:gone"] {
        place.shell(&format!("\"$KMS_SIG\" sign {key} *.csv")).exits(2).says("").complains(told);
    }
    place.write("c.csv", "5,6\n");
    place.shell("\"$KMS_SIG\" sign local:demo *.csv").exits(2).says("");
    assert_eq!(place.read("b.csv"), b"3,4\n");
    assert_eq!(place.names(), ["a.csv", "b.csv", "c.csv", "keyring"]);
    place.run(["sign", "local:demo", "a.csv", "b.csv", "--force"]).exits(0).complains("");
    place.run(["verify", "a.csv", "b.csv", "--key", "local:demo"]).exits(0).says(VALID);
}

#[test]
fn p8_what_is_no_signature_of_ours_is_left_wherever_it_lies() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    let after = |prefix: &[u8]| [prefix, &noise()].concat();
    for (there, what) in [
        (b"-----BEGIN PGP SIGNATURE-----\n".to_vec(), "an OpenPGP signature"),
        (b"untrusted comment: x\n".to_vec(), "a minisign or signify signature"),
        (b"notes\n".to_vec(), "text, and no signature"),
        (b"kms-sig batch 1\n".to_vec(), "no signature, although it begins as that of a batch"),
        (after(b"PK\x03\x04"), "not known to be a signature"),
        (noise(), "not known to be a signature"),
        (vec![1; 6145], "larger than any signature"),
    ] {
        place.write("f.sig", &there);
        let told = format!("kms-sig: \"f.sig\" is {what}; it is left as it is\n");
        place.run(["sign", "local:gone", "f"]).exits(2).says("").complains(&format!(
            "{told}hint: name another file for the signature (kms-sig sign KEY FILE SIG), or replace what is there with \
             --force\n"
        ));
        place.run(["sign", "local:gone", "f", "f.sig"]).exits(2).says("").complains_of(&told);
        assert_eq!(place.read("f.sig"), there);
    }
    place.run(["sign", "--force", "local:demo", "f"]).exits(0).complains("");
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID);
    // Neither a directory nor the file itself, whatever is asked for.
    fs::create_dir(place.path("dir")).unwrap();
    place
        .run(["sign", "--force", "local:gone", "f", "dir"])
        .exits(3)
        .complains_of("kms-sig: cannot write \"dir\"");
    place
        .run(["sign", "--force", "local:gone", "f", "f"])
        .exits(2)
        .complains_of("kms-sig: the signature would");
    assert_eq!(place.names(), ["dir", "f", "f.sig", "keyring"]);
}

#[test]
fn p8_an_older_signature_is_replaced_whoever_keeps_its_key_and_so_is_an_empty_file() {
    let place = Place::with_signed_file();
    let local = place.read("f.sig");
    let after = |prefix: &[u8]| [prefix, &noise()].concat();
    let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
    let arn = format!("\x4barn:aws:kms:eu-west-2:111122223333:key/{id}");
    let old_form = [&[0x0a, 0x20][..], &noise()[..32], &[0x12, 0x8f, 1, 1, 1, 2, 0, 0x78]].concat();
    for older in [
        local,
        Vec::new(),
        after(&[1, 2, 2, 0, 0x78]), // AWS
        after(&old_form),           // AWS in 2015
        after(id.as_bytes()),       // moto, LocalStack, ministack
        after(arn.as_bytes()),      // local-kms
        b"kms-sig batch 1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n!".to_vec(),
    ] {
        for sig in ["f.sig", "elsewhere"] {
            place.write(sig, &older);
            place.run(["sign", "local:demo", "f", sig]).exits(0).says("").complains("");
            place.run(["verify", "f", sig, "--key", "local:demo"]).exits(0).says(VALID);
        }
    }
}

#[test]
fn descriptors_are_written_to_whatever_file_they_lead_to() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    place.write("log", "text\n");
    for (script, sig) in [
        ("\"$KMS_SIG\" sign local:demo f /dev/fd/3 3>log", "log"),
        ("\"$KMS_SIG\" sign local:demo f /proc/self/fd/3 3>>log", "log"),
        ("ln -s /dev/stdout out && \"$KMS_SIG\" sign local:demo f out >log", "log"),
        (
            "bash -c '\"$KMS_SIG\" sign local:demo f >(cat >piped; : >done)'; until [ -e done ]; do :; done",
            "piped",
        ),
    ] {
        place.shell(script).exits(0).says("").complains("");
        place.run(["verify", "f", sig, "--key", "local:demo"]).exits(0).says(VALID);
    }
}

#[test]
fn p9_a_link_where_others_can_write_is_not_followed() {
    let place = Place::with_signed_file();
    let target = place.read("f.sig");
    fs::create_dir(place.path("shared")).unwrap();
    place.write("shared/f", "other payload");
    symlink("../f.sig", place.path("shared/f.sig")).unwrap();
    let chmod = |mode| {
        fs::set_permissions(place.path("shared"), fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(0o777);
    for force in [&[][..], &["--force"]] {
        let words = [&["sign", "local:gone", "shared/f"][..], force].concat();
        place.run(words).exits(2).says("").complains(
            "kms-sig: \"shared/f.sig\" is a symbolic link in a directory that others can write to (mode 0777); it is \
             not followed\n\
             hint: remove the link\n",
        );
    }
    assert_eq!(place.read("f.sig"), target);
    // It is read through, all the same: that has no effect but a verdict.
    place.run(["verify", "shared/f", "--key", "local:demo"]).exits(1).complains(INVALID);
    for safe in [0o755, 0o1777] {
        chmod(safe);
        place.run(["sign", "local:demo", "shared/f"]).exits(0).complains("");
        place.run(["verify", "shared/f", "f.sig", "--key", "local:demo"]).exits(0).says(VALID);
    }
}

#[test]
fn s4_a_file_that_changes_while_it_is_verified_gets_no_verdict() {
    let place = Place::with_signed_file();
    place.write("f", "before\n");
    place.write("new", "payload\n");
    // The file is open when the signature is asked for; until that comes, there is all the time to
    // change it.
    for change in ["cp new f", "mv new f", "rm f", "echo more >>f"] {
        place.write("f", "before\n");
        place
            .shell(&format!(
                "rm -f p; mkfifo p; \"$KMS_SIG\" verify f p --key local:demo & exec 3>p; {change}; cat f.sig >&3; \
                 exec 3>&-; wait $!"
            ))
            .exits(3)
            .says("")
            .complains(
                "kms-sig: \"f\" changed while it was read\nhint: run it again when nobody writes to it\n",
            );
        place.write("new", "payload\n");
    }
    // Of a pipe nothing can be said but what was read.
    place.shell("cat new | \"$KMS_SIG\" verify - f.sig --key local:demo").exits(0).says(VALID);
}

// What cannot be read, and what is no signature

#[test]
fn o9_a_missing_signature_is_told_and_is_1() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    let missing = |sig: &str| format!("no signature: \"{sig}\" does not exist\n");
    place.run(["verify", "f", "--key", "local:demo"]).exits(1).says("").complains(&missing("f.sig"));
    place.run(["verify", "f", "g.sig"]).exits(1).says("").complains(&missing("g.sig"));
    place.run(["show", "f.sig"]).exits(1).says("").complains(&missing("f.sig"));
    symlink("nowhere", place.path("f.sig")).unwrap();
    place.run(["verify", "f"]).exits(1).says("").complains(&missing("f.sig"));
}

#[test]
fn o9_an_unreadable_signature_is_3() {
    let place = Place::with_keyring();
    place.write("f", "payload");
    fs::create_dir(place.path("f.sig")).unwrap();
    for command in [&["verify", "f"][..], &["show", "f.sig"]] {
        place
            .run(command)
            .exits(3)
            .says("")
            .complains("kms-sig: cannot read signature \"f.sig\": is a directory\nhint: name a file; of a directory, make an archive first\n");
    }
    place
        .run(["verify", "f", "f/sig"])
        .exits(3)
        .complains("kms-sig: cannot read signature \"f/sig\": not a directory\nhint: check the path\n");
}

#[test]
fn o9_a_file_that_cannot_be_read_is_3() {
    let place = Place::with_signed_file();
    fs::create_dir(place.path("d")).unwrap();
    let archive = "name a file; of a directory, make an archive first";
    for (file, why, hint) in [
        ("missing", "no such file or directory", "check the path"),
        ("d", "is a directory", archive),
        ("f/g", "not a directory", "check the path"),
        // Opens, and then fails to read, for root as for anyone.
        (
            "/proc/self/mem",
            "input/output error",
            "try again; if it stays so, the kernel's log (dmesg) may know more",
        ),
    ] {
        let told = format!("kms-sig: cannot read \"{file}\": {why}\nhint: {hint}\n");
        place.run(["verify", file, "f.sig", "--key=local:demo"]).exits(3).says("").complains(&told);
        place.run(["sign", "local:demo", file, "out"]).exits(3).says("").complains(&told);
    }
    assert!(!place.path("out").exists());
    place
        .shell("\"$KMS_SIG\" verify - f.sig --key local:demo <d")
        .exits(3)
        .complains(&format!("kms-sig: cannot read standard input: is a directory\nhint: {archive}\n"));
}

#[test]
fn a16_what_cannot_be_a_signature_is_invalid_without_asking_kms() {
    let mut place = Place::with_signed_file();
    let kms = Doorbell::at(&mut place);
    let cases: [(&[u8], &str); 6] = [
        (
            b"kms-sig batch 1\n",
            "this is no batch signature: its header has other lines than size, index, leaf-context, ciphertext and an \
             empty one, in this order",
        ),
        (b"", "the signature is empty"),
        (&[1; 6145], "the signature is longer than 6144 bytes"),
        (
            b"-----BEGIN PGP SIGNATURE-----\n",
            "this is an OpenPGP signature; verify it with a public key (--trust)",
        ),
        (
            b"untrusted comment: x\n",
            "this is a minisign or signify signature; verify it with a public key (--trust)",
        ),
        (
            b"-----BEGIN SSH SIGNATURE-----\n",
            "this is an SSH signature; verify it with a public key (--trust)",
        ),
    ];
    for (bytes, reason) in cases {
        place.write("f.sig", bytes);
        place.run(["verify", "f"]).exits(1).says("").complains(INVALID);
        place
            .run(["verify", "f", "-v"])
            .exits(1)
            .complains(&format!("invalid signature\nreason: {reason}\n"));
        place.run(["verify", "f", "--key=alias/a", "--key=local:demo"]).exits(1).complains(INVALID);
    }
    fs::File::create(place.path("f.sig")).unwrap().set_len(1 << 30).unwrap();
    place.run(["verify", "f"]).exits(1).says("").complains(INVALID);
    kms.is_untouched();
}

#[test]
fn p2_a_kms_that_cannot_be_asked_is_no_verdict() {
    let mut place = Place::with_keyring();
    place.write("f", "payload");
    place.write("f.sig", "some ciphertext");
    for (name, value) in [
        // Port 1 of this host: nobody listens there.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ] {
        place.set(name, value);
    }
    place.run(["verify", "f"]).exits(3).says("").complains_of("kms-sig: cannot verify \"f\": ");
    place
        .run(["verify", "f", "--key=alias/a"])
        .exits(3)
        .says("")
        .complains_of("kms-sig: cannot verify \"f\": ");
    place.run(["sign", "alias/a", "f", "new"]).exits(3).says("").complains_of("kms-sig: cannot sign \"f\": ");
    assert!(!place.path("new").exists());
}

// Local keys

#[test]
fn a_local_signature_without_a_named_key_is_not_judged() {
    let mut place = Place::with_signed_file();
    let kms = Doorbell::at(&mut place);
    place.run(["verify", "f"]).exits(3).says("").complains(
        "kms-sig: cannot verify \"f\": the signature says that local:demo made it, and local keys are used only when named\n\
         hint: verify with --key local:demo --keyring FILE\n",
    );
    kms.is_untouched();
}

#[test]
fn a_local_key_never_touches_aws() {
    let mut place = Place::with_keyring();
    let kms = Doorbell::at(&mut place);
    place.set("AWS_CONFIG_FILE", "/proc/self/mem");
    place.write("f", "payload");
    place.run(["sign", "local:demo", "f"]).exits(0).complains("");
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID).complains("");
    kms.is_untouched();
}

#[test]
fn p7_a_local_key_needs_a_keyring_that_is_named() {
    let place = Place::new();
    place.write("f", "payload");
    place.write("f.sig", "x");
    // It is never found by its place.
    fs::create_dir(place.path(".kms-sig")).unwrap();
    place.write("keyring", "version = 1\n");
    let told = |who: &str| {
        format!("kms-sig: {who} needs a keyring\nhint: name it with --keyring FILE or KMS_SIG_KEYRING\n")
    };
    for line in [
        &["sign", "local:demo", "f"][..],
        &["verify", "f", "--key", "alias/a", "--key", "local:demo"],
        &["key", "create", "local:demo"],
    ] {
        place.run(line).exits(2).says("").complains(&told("local:demo"));
    }
    place.run(["key", "list"]).exits(2).says("").complains(&told("listing keys"));
}

#[test]
fn the_keyring_option_goes_before_the_environment_and_stands_anywhere() {
    let mut place = Place::with_signed_file();
    place.set("KMS_SIG_KEYRING", "nowhere");
    for line in [
        ["--keyring", "keyring", "verify", "f", "--key=local:demo"],
        ["verify", "f", "--key=local:demo", "--keyring", "keyring"],
    ] {
        place.run(line).exits(0).says(VALID).complains("");
    }
    place.set("KMS_SIG_KEYRING", "");
    place.run(["verify", "f", "--key=local:demo"]).exits(2);
}

#[test]
fn a_keyring_that_cannot_be_trusted_is_no_verdict() {
    let place = Place::with_signed_file();
    let verify = |keyring: &str| {
        place.run(["verify", "f", "--key=local:demo", "--keyring", keyring]).exits(3).says("")
    };
    let cannot = "kms-sig: cannot verify \"f\": credentials: ";

    fs::set_permissions(place.path("keyring"), fs::Permissions::from_mode(0o644)).unwrap();
    let advice = "keyring \"keyring\" is open to others (mode 0644); run chmod 600 \"keyring\"\n";
    verify("keyring").complains(&format!("{cannot}{advice}"));
    place.run(["key", "list"]).exits(3).says("").complains(&format!("kms-sig: {advice}"));
    place.run(["key", "create", "local:x"]).exits(3).complains(&format!("kms-sig: {advice}"));
    fs::set_permissions(place.path("keyring"), fs::Permissions::from_mode(0o600)).unwrap();

    symlink("keyring", place.path("link")).unwrap();
    verify("link").complains(&format!("{cannot}keyring \"link\" is a symbolic link; name the file itself\n"));
    let hint = "hint: name the keyring that has the key (--keyring FILE), or put back a copy of it\n";
    verify("nowhere")
        .complains(&format!("{cannot}cannot read keyring \"nowhere\": no such file or directory\n{hint}"));
    verify("/").complains(&format!("{cannot}keyring \"/\" is not a regular file\n{hint}"));
    place.shell("umask 077; echo 'version = 9' >new").exits(0);
    verify("new").complains(&format!(
        "{cannot}keyring \"new\" has version 9; this program knows versions 1 and 2\n\
         hint: use the kms-sig that wrote it, or a newer one\n"
    ));
    place.shell("umask 077; printf 'version = 1\\nsecret\\n' >bad").exits(0);
    verify("bad")
        .complains(&format!("{cannot}line 2 of keyring \"bad\" is not what a keyring holds\n{hint}"));
    place.shell("umask 077; mkfifo pipe").exits(0);
    verify("pipe").complains(&format!("{cannot}keyring \"pipe\" is not a regular file\n{hint}"));
    for (keyring, told, hint) in [
        (
            "new",
            "keyring \"new\" has version 9; this program knows versions 1 and 2",
            "use the kms-sig that wrote it, or a newer one",
        ),
        (
            "bad",
            "line 2 of keyring \"bad\" is not what a keyring holds",
            "put back a copy of it, or begin another keyring",
        ),
        ("pipe", "keyring \"pipe\" is not a regular file", "name a file that kms-sig key create made"),
    ] {
        let listed = place.run(["key", "list", "--keyring", keyring]).exits(3);
        listed.complains(&format!("kms-sig: {told}\nhint: {hint}\n"));
    }
}

#[test]
fn key_create_makes_a_private_keyring() {
    let place = Place::new();
    place
        .shell("umask 0; \"$KMS_SIG\" key create local:a --keyring k")
        .exits(0)
        .says("created local:a\n")
        .complains("");
    assert_eq!(fs::metadata(place.path("k")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(place.names(), ["k"]);
}

#[test]
fn key_create_replaces_no_key() {
    let place = Place::with_signed_file();
    let before = place.read("keyring");
    place
        .run(["key", "create", "local:demo"])
        .exits(2)
        .says("")
        .complains("kms-sig: keyring \"keyring\" already has a key local:demo; choose another name\n");
    assert_eq!(place.read("keyring"), before);
    place.run(["key", "create", "local:new"]).exits(0);
    place.run(["verify", "f", "--key", "local:demo"]).exits(0).says(VALID);
}

#[test]
fn key_create_takes_local_names_only() {
    let place = Place::with_keyring();
    for key in ["demo", "alias/demo", "local:", "local:../demo", "local:.demo", ""] {
        place.run(["key", "create", key]).exits(2).says("");
    }
    place.run(["key", "create", "demo"]).exits(2).complains(
        "kms-sig: \"demo\" is no local key; after local: come 1 to 64 letters, digits, '.', '_' or '-', \
         the first of them a letter or digit\n",
    );
    place.run(["key", "create", "local:a", "--keyring", "none/keyring"]).exits(3).complains(
        "kms-sig: cannot lock the directory of keyring \"none/keyring\": no such file or directory\n\
         hint: make the directory first\n",
    );
    assert_eq!(place.names(), ["keyring"]);
}

#[test]
fn key_list_shows_names_and_times_and_no_secret() {
    let place = Place::new();
    place
        .shell(
            "umask 077; printf 'version = 1\\n[keys.b]\\ncreated = \"2026-01-02T03:04:05Z\"\\nsecret = \"%064d\"\\n\
             [keys.\"a.1\"]\\ncreated = \"2025-01-02T03:04:05Z\"\\nsecret = \"%064d\"\\n' 7 8 >k",
        )
        .exits(0);
    place
        .run(["key", "list", "--keyring", "k"])
        .exits(0)
        .says("local:a.1\t2025-01-02T03:04:05Z\taes\nlocal:b\t2026-01-02T03:04:05Z\taes\n")
        .complains("");
    place.run(["key", "list", "--keyring", "none"]).exits(3).says("").complains(
        "kms-sig: cannot read keyring \"none\": no such file or directory\n\
         hint: kms-sig key create local:NAME makes a keyring\n",
    );
}

// Hostile names

#[test]
fn a13_names_are_shown_on_one_line_and_harmlessly() {
    let place = Place::with_keyring();
    let hostile = name(b"a\n\x1b[2Jb\xff");
    place.run([name(b"verify"), hostile]).exits(3).complains(
        "kms-sig: cannot read \"a\\x0a\\x1b[2Jb\\xff\": no such file or directory\nhint: check the path\n",
    );
    place.write(hostile, "payload");
    place
        .run([name(b"verify"), hostile])
        .exits(1)
        .complains("no signature: \"a\\x0a\\x1b[2Jb\\xff.sig\" does not exist\n");
    place.run([name(b"sign"), name(b"local:demo"), hostile]).exits(0).complains("");
    place.run([name(b"verify"), hostile, name(b"--key=local:demo")]).exits(0).says(VALID);
}

#[test]
fn p9_usage_errors_echo_no_terminal_escape() {
    let place = Place::new();
    for line in
        [&["sign", "\x1b[2J", "f"][..], &["--\x1b[2J"], &["\x1b[2J"], &["verify", "f", "--context=\x1b[2J"]]
    {
        let run = place.run(line).exits(2).says("");
        assert!(!run.stderr().contains('\x1b'), "{line:?}");
    }
}

#[test]
fn a14_names_with_a_dash_follow_two_dashes() {
    let place = Place::with_keyring();
    place.write("-rf", "payload");
    place.run(["sign", "local:demo", "--", "-rf"]).exits(0).complains("");
    place.run(["verify", "--key=local:demo", "--", "-rf", "-rf.sig"]).exits(0).says(VALID);
    place.run(["verify", "-rf"]).exits(2).says("");
}

#[test]
fn a14_a_name_too_long_for_its_signature_fails_cleanly() {
    let place = Place::with_keyring();
    let longest = "n".repeat(251);
    place.write(&longest, "payload");
    place.run(["sign", "local:demo", &longest]).exits(0).complains("");
    place.run(["verify", &longest, "--key=local:demo"]).exits(0).says(VALID);
    let too_long = "m".repeat(252);
    place.write(&too_long, "payload");
    place.run(["sign", "local:demo", &too_long]).exits(3).complains(&format!(
        "kms-sig: cannot write \"{too_long}.sig\": file name too long\nhint: name a shorter one\n"
    ));
    place.run(["sign", "local:demo", &too_long, "short.sig"]).exits(0);
}

// Usage

#[test]
fn bad_keys_and_contexts_are_usage_errors() {
    let place = Place::with_signed_file();
    for (key, told) in [
        ("", "the key is empty; write a key id, key ARN, alias/NAME, alias ARN or local:NAME"),
        ("a b", "\"a b\" is no key; write a key id, key ARN, alias/NAME, alias ARN or local:NAME"),
        (
            "arn:aws:s3:::bucket",
            "\"arn:aws:s3:::bucket\" is no KMS ARN; one looks like arn:aws:kms:REGION:ACCOUNT:key/ID or \
             arn:aws:kms:REGION:ACCOUNT:alias/NAME",
        ),
    ] {
        place.run(["sign", key, "f"]).exits(2).says("").complains(&format!("kms-sig: {told}\n"));
        place.run(["verify", "f", "--key", key]).exits(2).says("").complains(&format!("kms-sig: {told}\n"));
    }
    for (context, told) in [
        ("a", "context pair \"a\" has no '='; write key=value, and a comma inside a value as \\,"),
        ("=v", "context pair \"=v\" has an empty key; write key=value"),
        ("a=1,a=2", "context key \"a\" is given twice; give it once"),
        (
            "kms-sig:x=1",
            "context key \"kms-sig:x\" begins with \"kms-sig:\", which is reserved; choose another",
        ),
    ] {
        let context = format!("--context={context}");
        place.run(["sign", "local:demo", "f", &context]).exits(2).complains(&format!("kms-sig: {told}\n"));
        place.run(["verify", "f", &context]).exits(2).complains(&format!("kms-sig: {told}\n"));
    }
}

#[test]
fn command_lines_that_mean_nothing_are_usage_errors() {
    let place = Place::new();
    for line in [
        &[][..],
        &["sing"],
        &["sign"],
        &["sign", "local:demo"],
        &["sign", "local:demo", "f", "s", "extra"],
        &["verify"],
        &["verify", "f", "s", "extra"],
        &["verify", "f", "--key"],
        &["verify", "f", "--unknown"],
        &["version", "--log-format", "xml"],
        &["key"],
        &["show"],
    ] {
        let run = place.run(line).exits(2).says("");
        assert!(!run.stderr().is_empty(), "{line:?}");
    }
    let run = place.run([name(b"sign"), name(b"\xff"), name(b"f")]).exits(2).says("");
    assert!(run.stderr().contains("UTF-8"), "{}", run.stderr());
}

#[test]
fn a_log_filter_that_cannot_be_read_is_a_usage_error() {
    let mut place = Place::new();
    place.set("KMS_SIG_LOG", "kms_sig=loud");
    place.run(["version"]).exits(2).says("").complains_of("kms-sig: KMS_SIG_LOG is no log filter: ");
}

#[test]
fn version_tells_version_commit_and_target() {
    let place = Place::new();
    let run = place.run(["version"]).exits(0).complains("");
    let text = String::from_utf8(run.stdout().to_vec()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), ["version", "commit", "target"]);
    assert_eq!(lines[0].1, env!("CARGO_PKG_VERSION"));
    assert!(lines[1].1 == "unknown" || lines[1].1.len() == 12, "{text}");
    assert!(lines[2].1.contains("-linux-"), "{text}");
    for format in ["human", "json"] {
        place.run(["version", "--log-format", format]).exits(0).says(&text).complains("");
    }
}

#[test]
fn help_goes_to_standard_output() {
    let place = Place::new();
    for (line, part) in [
        (&["--help"][..], "kms-sig key create local:demo"),
        (&["-h"], "Exit codes:"),
        (&["help"], "Exit codes:"),
        (&["sign", "--help"], "--context <K=V,…>"),
        (&["verify", "--help"], "--key <KEY>"),
        (&["show", "--help"], "Nothing of what is shown is proven"),
        (&["key", "create", "--help"], "--keyring <FILE>"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let run = place.run(line).exits(0).complains("");
        let text = String::from_utf8(run.stdout().to_vec()).unwrap();
        assert!(text.contains(part), "{line:?}\n{text}");
    }
}

// Showing

#[test]
fn show_tells_what_a_local_signature_says() {
    let place = Place::with_signed_file();
    let sha512 = place.shell("sha512sum <f.sig | cut -d' ' -f1").exits(0);
    let sha512 = String::from_utf8(sha512.stdout().to_vec()).unwrap();
    // 4 magic, 1 length, 4 name, 12 nonce, 64 digest, 16 tag.
    let told = format!(
        "size: 101 bytes\nformat: plain signature, ciphertext of a kms-sig keyring\nprovider: local\nclaims key: local:demo\n\
         sha512: {sha512}"
    );
    place.run(["show", "f.sig"]).exits(0).says(&told).complains("");
    place.run_with(["show", "-"], place.read("f.sig")).exits(0).says(&told).complains("");
}

#[test]
fn show_says_no_more_of_other_ciphertexts_than_is_known() {
    let place = Place::new();
    let show = |bytes: &[u8]| {
        let run = place.run_with(["show", "-"], bytes).exits(0).complains("");
        String::from_utf8(run.stdout().to_vec()).unwrap()
    };
    let opaque = show(b"\x01\x02\x02\x00");
    assert!(
        opaque.starts_with(
            "size: 4 bytes\nformat: plain signature; the ciphertext says nothing of itself\n\
             provider: AWS KMS or a service like it\nsha512: "
        ),
        "{opaque}"
    );
    let with_id = show(b"1234abcd-12ab-34cd-56ef-1234567890ab\x01\x02");
    assert!(with_id.contains("\nclaims key: 1234abcd-12ab-34cd-56ef-1234567890ab\n"), "{with_id}");
    let torn = show(b"KSL1\x04demo");
    assert!(torn.contains("\nformat: plain signature; the ciphertext says nothing of itself\n"), "{torn}");
}

#[test]
fn show_names_what_is_no_signature_of_ours() {
    let place = Place::new();
    let cases: [(&[u8], &str); 4] = [
        (b"", "size: 0 bytes\nformat: none of ours: the signature is empty\n"),
        (
            &[1; 7000],
            "size: more than 6144 bytes\nformat: none of ours: the signature is longer than 6144 bytes\n",
        ),
        (
            b"-----BEGIN PGP SIGNATURE-----\n",
            "size: 30 bytes\nformat: none of ours: this is an OpenPGP signature; verify it with a public key (--trust)\n",
        ),
        (
            b"-----BEGIN SSH SIGNATURE-----\n",
            "size: 30 bytes\nformat: none of ours: this is an SSH signature; verify it with a public key (--trust)\n",
        ),
    ];
    for (bytes, told) in cases {
        place.run_with(["show", "-"], bytes).exits(1).says(told).complains("");
    }
}

// What to do about it

#[test]
fn what_stands_in_the_way_of_a_daemon_is_told_with_what_to_do() {
    let place = crate::support::policy::place(crate::support::policy::SIGN);
    let at = |name: &str| fs::canonicalize(place.path(".")).unwrap().join(name);
    let watch = || place.run(["watch", "--policy", "policy.toml", "--once"]).says("");
    let history = || place.run(["history", "--policy", "policy.toml"]).exits(3).says("");
    let move_away = "hint: move away what is there, or name another directory\n";
    history().complains(&format!(
        "kms-sig: there is no state in {:?}\nhint: start the daemon, which makes it, or name the policy that it runs by\n",
        at("state")
    ));
    place.write("state", "a file");
    watch().exits(2).complains(&format!(
        "kms-sig: cannot open directory {:?}: not a directory\n{move_away}",
        at("state")
    ));
    history().complains(&format!(
        "kms-sig: cannot read the state in {:?}: not a directory\n\
         hint: run it as the daemon's user; what is damaged is set aside when the daemon starts\n",
        at("state")
    ));
    fs::remove_file(place.path("state")).unwrap();
    fs::create_dir_all(place.path("state/state.db")).unwrap();
    watch().exits(3).complains(&format!(
        "kms-sig: state in {:?} failed: is a directory\n\
         hint: check its disk and permissions; without state.db the daemon begins a new one\n",
        at("state/state.db")
    ));
    fs::remove_dir(place.path("state/state.db")).unwrap();
    place.shell("umask 077; echo >q").exits(0);
    watch()
        .exits(2)
        .complains_of(&format!("cannot open directory {:?}: not a directory\n{move_away}", at("q")));
    fs::remove_file(place.path("q")).unwrap();
    fs::remove_dir(place.path("in")).unwrap();
    place.run(["check", "--policy", "policy.toml"]).exits(0).says(format!(
        "sign: held: {:?} does not exist; make it\n  to do: make it, or write create = true\n\
         {:?}: 1 rule, no fault\n",
        at("in"),
        at("policy.toml")
    ));
}

#[test]
fn what_has_no_hint_in_its_message_has_one_below_it() {
    let mut place = Place::with_signed_file();
    let long = "a".repeat(2049);
    place.run(["sign", &long, "f"]).exits(2).complains(
        "kms-sig: a key has at most 2048 characters\n\
         hint: write a key id, key ARN, alias/NAME, alias ARN or local:NAME\n",
    );
    let long = format!("--context=a={}", "x".repeat(8192));
    place.run(["sign", "local:demo", "f", &long]).exits(2).complains(
        "kms-sig: the context has 8193 bytes; KMS takes at most 8192 for keys and values together\n\
         hint: leave out what verifying need not know, or shorten it\n",
    );
    place.run(["key", "list", "--keyring", "none/k"]).exits(3).complains_of("\nhint: ");
    let limited = place.shell("ulimit -n 4; \"$KMS_SIG\" verify f --key local:demo").exits(3);
    limited.complains_of("too many open files\nhint: raise the limit of open files (ulimit -n)\n");
    place.set("KMS_SIG_LOG", "kms_sig=loud");
    place.run(["version"]).exits(2).complains_of("\nhint: write for example KMS_SIG_LOG=kms_sig=debug\n");
}

#[test]
fn standard_output_by_name_is_appended_to_where_it_is_redirected_so() {
    for sig in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"] {
        let place = Place::with_keyring();
        place.write("f", "payload\n");
        place.write("log", "what was there before\n");
        place.shell(&format!("\"$KMS_SIG\" sign local:demo f {sig} >> log")).exits(0);
        let log = place.read("log");
        let signature = log.strip_prefix(b"what was there before\n").expect("what was there before");
        place.write("f.sig", signature);
        place.run(["verify", "f", "--key", "local:demo"]).exits(0);
    }
}
