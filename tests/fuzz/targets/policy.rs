//! Policies: any bytes end in a policy or in faults that an operator can act upon.
//!
//! The first byte says what the rest is. 0: how to change one of the policies of
//! `tests/policy/good`, key by key, so that the checks behind the parser are reached. 1: an
//! endpoint. Anything else begins the policy itself, so every policy file is a seed as it is.

#![no_main]

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::LazyLock;

use kms_sig::key::Provider;
use kms_sig::kms::endpoint::check_endpoint;
use kms_sig::policy::{Faults, Mode, Place, Policy, Rule, SignRule, VerifyRule};
use kms_sig_fuzz::Scratch;
use libfuzzer_sys::arbitrary::{self, Unstructured};
use libfuzzer_sys::fuzz_target;
use toml::{Table, Value};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::new("policy"));

/// What the structured half begins with.
static BASES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    [
        include_str!("../../policy/good/every-key.toml"),
        include_str!("../../policy/good/least.toml"),
        include_str!("../../policy/good/shared-destination.toml"),
        include_str!("../../../config/policy.toml"),
        include_str!("../../../config/quickstart.toml"),
    ]
    .map(|text| text.parse().expect("a policy that the unit tests load"))
    .into()
});

/// The words of the dictionary: every key (a unit test sees to that), and values worth a try.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let entries = include_str!("../policy.dict").lines().filter_map(|line| line.trim().strip_prefix('"'));
    entries.filter_map(|entry| entry.strip_suffix('"')).map(|word| word.replace("\\\"", "\"")).collect()
});

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, changes)) => {
        if let Ok(text) = changed(&mut Unstructured::new(changes)) {
            check(text.as_bytes());
        }
    }
    Some((1, url)) => check_url(&String::from_utf8_lossy(url)),
    Some(_) | None => check(data),
});

/// One of the good policies with some keys set, removed, moved or doubled.
fn changed(input: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut policy = input.choose(&BASES)?.clone();
    while !input.is_empty() {
        let key = input.choose(&WORDS)?.clone();
        let table = table(&mut policy, input)?;
        match input.int_in_range(0..=5)? {
            0 => drop(table.remove(&key)),
            1 => {
                let rules = policy.get_mut("watch").and_then(Value::as_array_mut);
                if let Some(rules) = rules.filter(|rules| (1..50).contains(&rules.len())) {
                    let rule = input.choose(rules)?.clone();
                    rules.push(rule);
                }
            }
            2 => {
                // A value that is right elsewhere.
                if let Some(value) = table.values().nth(input.choose_index(table.len().max(1))?).cloned() {
                    table.insert(key, value);
                }
            }
            _ => drop(table.insert(key, value(input, 3)?)),
        }
    }
    Ok(policy.to_string())
}

/// The top level, a section, a rule, or a table in one of them.
fn table<'t>(policy: &'t mut Table, input: &mut Unstructured<'_>) -> arbitrary::Result<&'t mut Table> {
    let mut table = policy;
    for _ in 0..input.int_in_range(0..=2)? {
        let index = input.choose_index(table.len().max(1))?;
        let name = table.keys().nth(index).cloned().unwrap_or_default();
        let inner = table.get(&name).map(|value| match value {
            Value::Table(_) => (true, 0),
            Value::Array(list) => (list.iter().any(Value::is_table), list.len()),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => (false, 0),
        });
        let Some((true, len)) = inner else { break };
        let index = input.choose_index(len.max(1))?;
        // Looked at twice, because the borrow checker cannot see that a miss gives the table back.
        let is_table = match table.get(&name) {
            Some(Value::Array(list)) => list.get(index).is_some_and(Value::is_table),
            other => other.is_some(),
        };
        if !is_table {
            break;
        }
        table = match table.get_mut(&name) {
            Some(Value::Array(list)) => list.get_mut(index).and_then(Value::as_table_mut),
            other => other.and_then(Value::as_table_mut),
        }
        .expect("looked at above");
    }
    Ok(table)
}

fn value(input: &mut Unstructured<'_>, depth: u32) -> arbitrary::Result<Value> {
    Ok(match input.int_in_range(0..=if depth == 0 { 6 } else { 8 })? {
        0..=2 => Value::String(input.choose(&WORDS)?.clone()),
        3 => Value::String(input.arbitrary::<String>()?),
        4 => Value::Integer(input.arbitrary()?),
        5 => Value::Boolean(input.arbitrary()?),
        6 => Value::Float(input.arbitrary()?),
        7 => {
            let len = input.int_in_range(0..=4)?;
            Value::Array((0..len).map(|_| value(input, depth - 1)).collect::<arbitrary::Result<_>>()?)
        }
        _ => {
            let mut table = Table::new();
            for _ in 0..input.int_in_range(0..=4)? {
                table.insert(input.choose(&WORDS)?.clone(), value(input, depth - 1)?);
            }
            Value::Table(table)
        }
    })
}

fn check(text: &[u8]) {
    let file = SCRATCH.file("policy.toml", text);
    match (Policy::load(&file), Policy::load(&file)) {
        (Ok(policy), Ok(again)) => {
            assert_eq!(summary(&policy), summary(&again), "the same file, read twice");
            check_policy(&policy);
            check_rewritten(&policy, text);
        }
        (Err(faults), Err(again)) => {
            assert_eq!(faults, again, "the same file, read twice");
            check_faults(&faults, &file, text);
        }
        (one, other) => panic!("the same file, read twice: {} and {}", one.is_ok(), other.is_ok()),
    }
}

/// O2: every fault has a place in the file and can be printed as it is.
fn check_faults(faults: &Faults, file: &Path, text: &[u8]) {
    assert!(!faults.may_pass(), "nothing but the text is wrong");
    assert_eq!(faults.file(), file);
    let all: Vec<_> = faults.iter().collect();
    assert!(!all.is_empty());
    assert!(all.is_sorted_by(|a, b| a < b), "in order, none twice: {faults}");
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let readable = std::str::from_utf8(text).is_ok() && text.len() <= 1 << 20;
    for fault in all {
        let place = if readable { 1..=lines } else { 0..=0 };
        assert!(place.contains(&fault.line), "{faults}");
        assert!(
            !fault.message.is_empty() && !fault.message.contains(char::is_control),
            "{:?}",
            fault.message
        );
    }
}

/// P6 and P7, as far as the text alone decides them.
fn check_policy(policy: &Policy) {
    assert!(!policy.rules.is_empty());
    let names: BTreeSet<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names.len(), policy.rules.len(), "names are unique");
    let control = policy.control.socket.as_ref();
    let own = [Some(&policy.state_dir), policy.quarantine_dir.as_ref(), policy.keyring.as_ref(), control];
    for path in own.into_iter().flatten() {
        assert_is_plain(path);
    }
    if let Some(url) = &policy.aws.endpoint_url {
        assert_eq!(check_endpoint(url), Ok(()));
    }
    let is_local = |provider| provider == Provider::Local;
    for (i, rule) in policy.rules.iter().enumerate() {
        assert_is_plain(&rule.path);
        assert!(!rule.settle.is_zero() && rule.max_size > 0 && rule.max_links > 0);
        assert!(rule.allowed_owners.as_ref().is_none_or(|owners| !owners.is_empty() && owners.is_sorted()));
        assert!(
            rule.control_files.endings().iter().all(|ending| ending.len() > 1 && ending.starts_with('.'))
        );
        assert!(rule.include.as_ref().is_none_or(|patterns| !patterns.sources().is_empty()));
        let local = match &rule.mode {
            Mode::Sign(SignRule { key, .. }) => is_local(key.provider()),
            Mode::Verify(VerifyRule { trusted_keys, .. }) => {
                assert!(!trusted_keys.is_empty());
                assert!(!rule.context.placeholders().any(|(_, hole)| hole.is_of_the_signer()));
                trusted_keys.iter().any(|key| is_local(key.to_key_id().provider()))
            }
        };
        assert!(!local || policy.keyring.is_some(), "a local key without a keyring");
        let elsewhere = policy.rules.iter().enumerate().filter(|(j, _)| *j != i);
        for (_, other) in elsewhere {
            assert!(!rule.path.starts_with(&other.path), "two rules over one directory");
        }
        if let Some(delivery) = rule.delivery() {
            assert_is_plain(&delivery.dir);
            assert_eq!(delivery.mode & !0o777, 0);
            for watched in policy.rules.iter().map(|rule| &rule.path) {
                assert!(!delivery.dir.starts_with(watched) && !watched.starts_with(&delivery.dir));
            }
        }
        for private in own.into_iter().flatten() {
            assert!(!private.starts_with(&rule.path), "in the reach of senders");
        }
    }
}

fn assert_is_plain(path: &Path) {
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    assert!(path.is_absolute() && plain, "{path:?}");
}

/// Another way to write the same entries means the same.
fn check_rewritten(policy: &Policy, text: &[u8]) {
    let text = std::str::from_utf8(text).expect("what loads is text");
    let table: Table = text.parse().expect("what loads is TOML");
    let rewritten = SCRATCH.file("rewritten.toml", table.to_string().as_bytes());
    let again = Policy::load(&rewritten).unwrap_or_else(|faults| panic!("{table}\n{faults}"));
    assert_eq!(summary(policy), summary(&again), "{table}");
}

/// Everything a policy says, but for the places in its file.
fn summary(policy: &Policy) -> String {
    let Policy {
        file: _,
        allow_root,
        aws,
        keyring,
        state_dir,
        record,
        quarantine_dir,
        control,
        limits,
        rules,
    } = policy;
    let rules: Vec<String> = rules.iter().map(|rule| summary_of_rule(rule)).collect();
    format!(
        "{allow_root} {aws:?} {keyring:?} {state_dir:?} {record:?} {quarantine_dir:?} {control:?} {limits:?} {rules:#?}"
    )
}

fn summary_of_rule(rule: &Rule) -> String {
    let Rule {
        name,
        line: _,
        path,
        recursive,
        include,
        exclude,
        control_files,
        settle,
        prompt,
        max_size,
        max_links,
        allowed_owners,
        create,
        context,
        quarantine_max_size,
        quarantine_keep,
        mode,
    } = rule;
    let [include, exclude] = [include, exclude].map(|list| list.as_ref().map(|list| list.sources()));
    let mode = match mode {
        Mode::Sign(sign) => format!("{sign:?}"),
        Mode::Verify(verify) => format!("{verify:?}"),
    };
    format!(
        "{name} {path:?} {recursive} {include:?} {exclude:?} {control_files:?} {settle:?} {prompt} {max_size} {max_links} {allowed_owners:?} \
         {create} {} {quarantine_max_size} {quarantine_keep:?} {mode} {} {}",
        context.canonical(),
        rule.fingerprint(),
        matches!(&rule.mode, Mode::Verify(VerifyRule { place: Place::InPlace, .. })),
    )
}

/// K24: an endpoint that is taken leads where it says, whoever takes the URL apart.
fn check_url(text: &str) {
    if check_endpoint(text).is_err() {
        return;
    }
    let is_plain = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("http:"));
    let browser = url::Url::parse(text).ok();
    let sdk: Option<http::Uri> = text.parse().ok();
    if let Some(url) = &browser {
        assert!(url.username().is_empty() && url.password().is_none(), "{text:?}");
        if is_plain {
            let loopback = match url.host().expect("a host") {
                url::Host::Domain(name) => name == "localhost",
                url::Host::Ipv4(ip) => ip.is_loopback(),
                url::Host::Ipv6(ip) => ip.is_loopback(),
            };
            assert!(loopback, "{text:?} leads to {:?}", url.host());
        }
    }
    if let Some(uri) = &sdk {
        let host = uri.host().expect("a host");
        assert!(!is_plain || kms_sig::kms::endpoint::is_loopback(host), "{text:?} leads to {host:?}");
    }
    if let (Some(url), Some(uri)) = (&browser, &sdk)
        && let (Some(url::Host::Domain(name)), Some(host)) = (url.host(), uri.host())
    {
        assert!(name.eq_ignore_ascii_case(host), "{text:?} leads to {name:?} or to {host:?}");
    }
}
