//! Names: whatever bytes a sender chooses, they show safely, mean one thing and lead nowhere else
//! (P6, P9).
//!
//! The first byte says what the rest is. 0: a name to show. 1: arguments of `--context`, one a
//! line. 2: a context value of a rule, a line break, a path. 3: a key. 4: a path to go down. 5: a
//! rule's patterns and a name in its directory.

#![no_main]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use kms_sig::context::{Context, ContextError, ContextTemplate, Filling};
use kms_sig::escape::{Escaped, quoted};
use kms_sig::fs::{Dir, Kind, RelPath};
use kms_sig::key::{KeyArn, KeyId, Provider};
use kms_sig::policy::{Patterns, Policy, Rule};
use kms_sig::source::directory::scan::{Meaning, Unsignable, meaning};
use kms_sig_fuzz::Scratch;
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The longest name on Linux file systems, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::new("names"));

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, name)) => check_shown(name),
    Some((1, arguments)) => {
        if let Ok(text) = std::str::from_utf8(arguments) {
            check_context(&text.lines().collect::<Vec<_>>());
        }
    }
    Some((2, rest)) => {
        let mut parts = rest.splitn(2, |byte| *byte == b'\n');
        if let (Some(Ok(value)), Some(path)) = (parts.next().map(std::str::from_utf8), parts.next()) {
            check_placeholders(value, path);
        }
    }
    Some((3, text)) => {
        if let Ok(text) = std::str::from_utf8(text) {
            check_key(text);
        }
    }
    Some((4, path)) => check_path(path),
    Some((5, rest)) => {
        if let Ok(case) = Case::arbitrary(&mut Unstructured::new(rest)) {
            check_meaning(&case);
        }
    }
    Some(_) | None => {}
});

/// A13: what is shown is one line that no terminal acts upon, and says which bytes it stands for.
fn check_shown(name: &[u8]) {
    let shown = Escaped::new(OsStr::from_bytes(name)).to_string();
    assert!(!shown.contains(acts_on_terminals), "{name:?} shows as {shown:?}");
    assert_eq!(unescaped(&shown).as_deref(), Some(name), "{shown:?} could be another name");
    assert_eq!(quoted(Path::new(OsStr::from_bytes(name))), format!("\"{shown}\""));
    if let Ok(text) = std::str::from_utf8(name) {
        assert_eq!(Escaped::text(text).to_string(), shown);
    }
}

/// Control characters, and characters that Unicode lets a display leave out or take as an order:
/// the property `Default_Ignorable_Code_Point`, both separators of lines, and interlinear
/// annotation.
fn acts_on_terminals(c: char) -> bool {
    const IGNORABLE: [(u32, u32); 20] = [
        (0xAD, 0xAD),
        (0x34F, 0x34F),
        (0x61C, 0x61C),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x200B, 0x200F),
        (0x2028, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
        (0xFFF0, 0xFFFB),
        (0x1BCA0, 0x1BCA3),
        (0x1D173, 0x1D17A),
        (0xE0000, 0xE00FF),
        (0xE0100, 0xE01EF),
        (0xE01F0, 0xE0FFF),
        (0x80, 0x9F),
    ];
    c.is_ascii_control() || IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// The bytes that an escaped text stands for.
fn unescaped(shown: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = shown;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        rest = if let Some(after) = escape.strip_prefix('\\') {
            bytes.push(b'\\');
            after
        } else if let Some(digits) = escape.strip_prefix('x') {
            let (byte, after) = digits.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(byte, 16).ok()?);
            after
        } else {
            let (code, after) = escape.strip_prefix("u{")?.split_once('}')?;
            let c = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            after
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// A context can be written down again, and its bytes tell it from every other.
fn check_context(arguments: &[&str]) {
    let context = match Context::parse(arguments) {
        Ok(context) => context,
        Err(error) => return assert!(!error.to_string().contains(char::is_control), "{error}"),
    };
    let pairs: Vec<(&str, &str)> = context.pairs().collect();
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0));
    assert!(pairs.iter().all(|(key, _)| !key.is_empty() && !key.starts_with("kms-sig:")));
    let written: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{key}={value}").replace(',', "\\,")).collect();
    assert_eq!(Context::parse(&written).as_ref(), Ok(&context));

    let mut canonical = context.canonical();
    let mut parts = Vec::new();
    while let Some((len, rest)) = canonical.split_first_chunk() {
        let (part, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        parts.push(String::from_utf8(part.to_vec()).expect("text"));
        canonical = rest.to_vec();
    }
    assert!(canonical.is_empty());
    assert_eq!(parts, pairs.iter().flat_map(|(key, value)| [*key, *value]).collect::<Vec<_>>());
}

/// Placeholders are filled once, and different paths give different values.
fn check_placeholders(value: &str, path: &[u8]) {
    let mut template = ContextTemplate::default();
    if let Err(error) = template.insert("key", value) {
        return assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    let path = Path::new(OsStr::from_bytes(path));
    let filling = Filling { relpath: path, watch: "rule", hostname: "host" };
    let context = match template.expand(filling) {
        Ok(context) => context,
        Err(ContextError::TooLong(len)) => return assert!(len > 8192),
        Err(error) => panic!("{error}"),
    };
    if let Ok(again) = Context::parse(
        &context.pairs().map(|(key, value)| format!("{key}={value}").replace(',', "\\,")).collect::<Vec<_>>(),
    ) {
        assert_eq!(again, context, "the command line can say the same");
    }

    // A hole with nothing around it shows what it does to the bytes.
    for (hole, part) in [
        ("{name}", path.file_name().unwrap_or_default()),
        ("{stem}", path.file_stem().unwrap_or_default()),
        ("{relpath}", path.as_os_str()),
    ] {
        let mut template = ContextTemplate::default();
        template.insert("key", hole).expect("a placeholder");
        let Ok(context) = template.expand(filling) else { continue };
        let value = context.pairs().next().expect("one pair").1;
        assert!(!value.contains(char::is_control));
        assert_eq!(percent_decoded(value).as_deref(), Some(part.as_bytes()), "{value:?}");
    }
}

fn percent_decoded(value: &str) -> Option<Vec<u8>> {
    let mut parts = value.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(byte, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// A key is what was written, prints as that, and no trusted key can be repointed.
fn check_key(text: &str) {
    let key: KeyId = match text.parse() {
        Ok(key) => key,
        Err(error) => {
            assert!(text.parse::<KeyArn>().is_err() && KeyArn::from_reply(text).is_err());
            return assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    };
    assert_eq!((key.as_str(), key.to_string().as_str()), (text, text));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?} prints as something else");
    assert_eq!(key.provider() == Provider::Local, text.starts_with("local:"));
    assert_eq!(key.local_name().is_some(), text.starts_with("local:"));
    if let Some(region) = key.region() {
        assert!(text.starts_with("arn:") && !region.is_empty());
        assert!(
            region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "{region:?} is part of a host's name"
        );
    }
    if let Ok(trusted) = text.parse::<KeyArn>() {
        assert!(trusted.is_full() && !text.contains(":alias/"), "{text:?}");
        assert_eq!(trusted.to_key_id(), key);
        assert!(key.is_answered_by(&trusted));
        assert_eq!(KeyArn::from_reply(text).as_ref(), Ok(&trusted));
    }
    if let Ok(answer) = KeyArn::from_reply(text) {
        assert!(answer.to_key_id().is_answered_by(&answer));
    }
}

/// A directory with ways out of it: links up, to the side and to the root.
static TREE: LazyLock<(PathBuf, Dir)> = LazyLock::new(|| {
    let base = SCRATCH.directory("tree");
    let root = base.join("root");
    fs::create_dir_all(root.join("a/b/c")).expect("directories");
    fs::create_dir_all(base.join("outside/a")).expect("directories");
    for (to, name) in [("/", "s"), ("..", "u"), ("../outside", "o"), ("b", "a/l"), ("/proc/self/root", "p")] {
        symlink(to, root.join(name)).expect("a link");
    }
    for file in ["root/f", "root/a/f", "outside/f"] {
        File::create(base.join(file)).expect("a file");
    }
    let dir = Dir::open(&root).expect("a directory");
    (root, dir)
});

/// P9: no path leads out, and the same file has the same bytes in state.
fn check_path(path: &[u8]) {
    let (root, dir) = &*TREE;
    let path = Path::new(OsStr::from_bytes(path));
    if let Ok(below) = dir.descend(path) {
        let stat = below.stat().expect("an open directory");
        let known =
            ["", "a", "a/b", "a/b/c"].map(|known| dir.descend(Path::new(known)).expect("a directory"));
        let inside =
            known.iter().any(|known| known.stat().expect("a directory").identity.ino == stat.identity.ino);
        assert!(inside, "{path:?} leads out of the root");
    }
    let Some(rel) = RelPath::new(path) else { return };
    let names: Vec<&[u8]> = rel.as_bytes().split(|byte| *byte == b'/').collect();
    assert!(names.iter().all(|name| !name.is_empty() && *name != b"." && *name != b".."), "{rel:?}");
    assert_eq!(names.last().copied(), Some(rel.name().as_bytes()));
    assert!(rel.as_path().components().all(|c| matches!(c, Component::Normal(_))));
    assert_eq!(rel.parent().join(rel.name()).as_os_str().as_bytes(), rel.as_bytes());
    assert!(root.join(rel.as_path()).starts_with(root));
    if let Ok(parent) = dir.descend(rel.parent())
        && let Ok(Some(stat)) = parent.stat_of(rel.name())
        && stat.kind == Kind::Directory
    {
        assert!(
            dir.descend(rel.as_path()).is_ok() || stat.identity.dev != dir.stat().expect("root").identity.dev
        );
    }
}

/// The patterns of a rule, and a name in its directory.
#[derive(Debug, Arbitrary)]
struct Case<'a> {
    include: Vec<&'a str>,
    exclude: Vec<&'a str>,
    below: &'a [u8],
    name: &'a [u8],
}

/// A sign rule and a verify rule with these patterns, if they are patterns.
fn rules(case: &Case<'_>) -> Option<Policy> {
    let list = |key: &str, patterns: &[&str]| {
        if patterns.is_empty() {
            return String::new();
        }
        let patterns: Vec<toml::Value> = patterns.iter().map(|text| (*text).into()).collect();
        format!("{key} = {}\n", toml::Value::Array(patterns))
    };
    let patterns = list("include", &case.include) + &list("exclude", &case.exclude);
    let text = format!(
        "[state]\ndir = \"/s\"\n[local]\nkeyring = \"/k\"\n\
         [[watch]]\nname = \"sign\"\nmode = \"sign\"\npath = \"/a\"\nkey = \"local:a\"\n{patterns}\
         [[watch]]\nname = \"verify\"\nmode = \"verify\"\npath = \"/b\"\ntrusted_keys = [\"local:a\"]\n\
         in_place = true\non_invalid = \"log\"\non_missing = \"log\"\n{patterns}"
    );
    match Policy::load(&SCRATCH.file("policy.toml", text.as_bytes())) {
        Ok(policy) => Some(policy),
        Err(faults) => {
            let of_patterns =
                |message: &str| ["`include`: ", "`exclude`: "].iter().any(|key| message.starts_with(key));
            assert!(faults.iter().all(|fault| of_patterns(&fault.message)), "{faults}");
            None
        }
    }
}

/// P6: a payload and its signature are one pair, and nothing of ours or no signature is ever a
/// payload.
fn check_meaning(case: &Case<'_>) {
    let is_name = |name: &[u8]| {
        !name.is_empty() && name.len() <= NAME_MAX && !name.contains(&0) && name != b"." && name != b".."
    };
    if !is_name(case.name) || case.name.contains(&b'/') {
        return;
    }
    let below: PathBuf =
        case.below.split(|byte| *byte == b'/').filter(|name| is_name(name)).map(OsStr::from_bytes).collect();
    let Some(policy) = rules(case) else { return };
    let [signing, verifying] = policy.rules.as_slice() else { panic!("two rules") };
    let name = OsStr::from_bytes(case.name);
    let is_signature = case.name.ends_with(b".sig");
    let ours = case.name.starts_with(b".kms-sig");

    for rule in [signing, verifying] {
        let is_entered = is_entered(rule, &below);
        let meant = meaning(rule, &below, name);
        assert!(is_entered != Some(false) || meant == Meaning::Nothing, "{below:?} is not entered");
        match meant {
            Meaning::Pair(pair) => {
                assert!(!ours, "P6");
                assert_pair(rule, &pair, &below, name);
                let other_half = rule.signature_name(pair.name());
                let expected = match rule.name.as_str() {
                    "sign" => Meaning::Signature(pair.clone()),
                    _ => Meaning::Pair(pair.clone()),
                };
                assert_eq!(meaning(rule, &below, &other_half), expected, "the other half");
                assert_eq!(meaning(rule, &below, pair.name()), Meaning::Pair(pair), "the payload");
            }
            Meaning::Signature(payload) => {
                assert!(!ours, "P6");
                assert!(rule.name == "sign" && is_signature);
                assert_eq!(
                    (payload.parent(), rule.signature_name(payload.name()).as_os_str()),
                    (below.as_path(), name)
                );
                assert_eq!(meaning(rule, &below, payload.name()), Meaning::Pair(payload), "the payload");
            }
            Meaning::Unsignable(path, why) => {
                assert!(!ours, "P6");
                assert_eq!((path.parent(), path.name()), (below.as_path(), name));
                match why {
                    Unsignable::NameTooLong => assert!(case.name.len() > NAME_MAX - 4 && !is_signature),
                    Unsignable::SignatureOfSignature => assert!(is_signature),
                    Unsignable::SuffixInOtherCase => {
                        let end = case.name.len().checked_sub(4).and_then(|at| case.name.get(at..));
                        assert!(rule.name == "sign" && !is_signature);
                        assert!(end.is_some_and(|end| end.eq_ignore_ascii_case(b".sig")));
                    }
                    Unsignable::Stray => panic!("only looking at the directory tells that"),
                }
            }
            Meaning::Nothing => {
                let payload = case.name.strip_suffix(b".sig").unwrap_or(case.name);
                let wanted = rule.wants(OsStr::from_bytes(payload));
                assert!(ours || !wanted || is_entered != Some(true), "{name:?} is left out");
            }
        }
    }
}

/// Whether a rule means what lies in a directory: no part of its path is excluded or begins with a
/// dot. `None` where a pattern of `include` with a dot may have it entered all the same.
fn is_entered(rule: &Rule, below: &Path) -> Option<bool> {
    let parts: Vec<_> = below.iter().collect();
    let is_dot = |part: &&OsStr| part.as_bytes().starts_with(b".");
    if rule.exclude.as_ref().is_some_and(|patterns| parts.iter().any(|part| patterns.matches(part))) {
        return Some(false);
    }
    let may_have = |part: &&OsStr| {
        let has_dot = |patterns: &Patterns| patterns.sources().iter().any(|source| source.starts_with('.'));
        rule.include.as_ref().is_some_and(|patterns| has_dot(patterns) && patterns.matches(part))
    };
    let dots: Vec<_> = parts.into_iter().filter(is_dot).collect();
    if dots.is_empty() {
        return Some(true);
    }
    if dots.iter().all(may_have) { None } else { Some(false) }
}

fn assert_pair(rule: &Rule, pair: &RelPath, below: &Path, name: &OsStr) {
    let payload = pair.name();
    assert_eq!(pair.parent(), below);
    assert!(payload == name || (rule.name == "verify" && rule.signature_name(payload) == name));
    assert!(!payload.as_bytes().ends_with(b".sig") && !payload.as_bytes().starts_with(b".kms-sig"));
    assert!(rule.signature_name(payload).len() <= NAME_MAX);
    assert!(rule.wants(payload));
    assert!(!rule.exclude.as_ref().is_some_and(|patterns| patterns.matches(payload)));
    assert!(rule.include.as_ref().is_none_or(|patterns| patterns.matches(payload)));
    let is_part =
        [".tmp", ".part", ".swp", "~"].iter().any(|mark| payload.as_bytes().ends_with(mark.as_bytes()));
    assert!(rule.include.is_some() || !(payload.as_bytes().starts_with(b".") || is_part));
}
