//! Reads the policy file: the file itself, its top level, and what must hold between its tables.
//!
//! Besides the policy file it reads `/etc/passwd` (for `allowed_owners`) and symbolic links (to see
//! that places lie apart). Never falls back to a default file, and never gives a policy that has a
//! fault (P7).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use toml::de::DeTable;

use super::control;
use super::fault::{Faults, Report};
use super::grammar::{AWS, LIMITS, LOCAL, QUARANTINE, STATE, Section, TOP, add};
use super::place::{self, Place, Role};
use super::reader::{Field, Table};
use super::record;
use super::rule::{self, CrossChecks};
use super::{Limits, Policy, Rule};
use crate::escape::Escaped;
use crate::kms::AwsSettings;
use crate::kms::endpoint::check_endpoint;

/// The largest policy file, in bytes: some thousand rules.
const MAX_LEN: u64 = 1 << 20;

/// The most rules: each is compared with every other.
const MAX_RULES: usize = 1000;

/// Default of `max_in_flight`.
const MAX_IN_FLIGHT: usize = 64;

/// The most hashing threads.
const MAX_HASH_THREADS: usize = 256;

/// Default of `min_free_space`, in bytes: 64 MiB.
const MIN_FREE_SPACE: u64 = 64 << 20;

impl Policy {
    /// Reads and checks a policy file.
    ///
    /// ```
    /// use kms_sig::policy::Policy;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let file = dir.path().join("policy.toml");
    /// let text = r#"
    ///     [local]
    ///     keyring = "keyring"
    ///     [state]
    ///     dir = "state"
    ///     [[watch]]
    ///     name = "releases"
    ///     mode = "sign"
    ///     path = "releases"
    ///     key = "local:releases"
    ///     on_stale = "report"
    /// "#;
    /// std::fs::write(&file, text)?;
    /// let policy = Policy::load(&file)?;
    /// assert_eq!(policy.rules[0].path, dir.path().join("releases"), "beside the policy file");
    ///
    /// // Every fault at once, each with its line: P7.
    /// std::fs::write(&file, text.replace("key =", "keys =").replace("sign", "seal"))?;
    /// let faults = Policy::load(&file).unwrap_err().to_string();
    /// assert!(faults.contains("policy.toml:8") && faults.contains("policy.toml:10"), "{faults}");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Every fault found, each with file, line and what to write instead.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        load(file)
    }
}

/// As [`Policy::load`].
fn load(file: &Path) -> Result<Policy, Faults> {
    let source = read(file)?;
    let base = folder_of(file).map_err(|error| unreadable(file, &error))?;
    let named = std::path::absolute(file).map_err(|error| unreadable(file, &error))?;

    let mut report = Report::new(&source);
    let (tree, errors) = DeTable::parse_recoverable(&source);
    for error in errors {
        let span = error.span().unwrap_or(source.len()..source.len());
        let text = source.get(span.clone()).unwrap_or_default();
        let line = report.line(span.start);
        report.broken(line, syntax(error.message(), text));
    }
    let policy = policy(tree.get_ref(), named, &base, &report);
    drop(tree);
    report.conclude(file, policy)
}

fn read(file: &Path) -> Result<String, Faults> {
    let fault = |message: String| Faults::of_file(file, message);
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened =
        rustix::fs::open(file, flags, Mode::empty()).map_err(|errno| unreadable(file, &errno.into()))?;
    let opened = File::from(opened);
    let metadata = opened.metadata().map_err(|error| unreadable(file, &error))?;
    if !metadata.is_file() {
        return Err(fault("the policy is no regular file; name the policy file itself".to_owned()));
    }
    let mut bytes = Vec::new();
    opened.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| unreadable(file, &error))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(fault(format!("the policy is larger than {MAX_LEN} bytes; name the policy file itself")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count() + 1;
        fault(format!("line {line} is not UTF-8; save the policy as UTF-8"))
    })
}

fn unreadable(file: &Path, error: &io::Error) -> Faults {
    let cannot = |advice| format!("cannot read the policy: {error}; {advice}");
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => Faults::of_file(file, "there is no such policy file; name an existing one"),
        Some(Errno::ACCESS | Errno::PERM | Errno::ISDIR | Errno::NOTDIR | Errno::LOOP) => {
            Faults::of_file(file, cannot("check the permissions of the file and of its folders"))
        }
        Some(_) | None => {
            Faults::of_file(file, cannot("try again, and check the disk if it lasts")).passing()
        }
    }
}

/// The policy file's folder: absolute, without symbolic links.
fn folder_of(file: &Path) -> io::Result<PathBuf> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).canonicalize()
}

/// A message of the TOML parser, and what to do. `text` is what it stumbled over.
fn syntax(message: &str, text: &str) -> String {
    let shown = Escaped::text(text);
    if message == "duplicate key" {
        return format!("`{shown}` is here for the second time; write it once");
    }
    let message = Escaped::text(message.trim_end_matches(", expected nothing"));
    if text.trim().is_empty() || text.chars().count() > 40 {
        return format!("not TOML: {message}; write entries as key = value, and text in double quotes");
    }
    format!("not TOML at `{shown}`: {message}; write entries as key = value, and text in double quotes")
}

fn policy<'t>(tree: &'t DeTable<'t>, file: PathBuf, base: &Path, report: &'t Report) -> Option<Policy> {
    let top = Table::open(&TOP, tree, 1, None, report);
    let allow_root = top.find("allow_root").and_then(|field| field.boolean()).unwrap_or(false);
    let aws = top.section("aws", &AWS).map(|table| aws(&table)).unwrap_or_default();
    let limits = limits(top.section("limits", &LIMITS));

    let mut cross_checks = CrossChecks::default();
    let rules = rules(&top, base, &mut cross_checks);

    let mut place = |table, section: &'static Section, name, role| {
        let field = top.section(table, section)?.require(name, &section.title)?;
        let path = field.path(base)?;
        cross_checks.places.push(Place::new(role, field.line, &path));
        Some(path)
    };
    let keyring = place("local", &LOCAL, "keyring", Role::Keyring);
    let state_dir = place("state", &STATE, "dir", Role::State);
    let quarantine_dir = place("quarantine", &QUARANTINE, "dir", Role::Quarantine);
    let control = control::read(&top, base, &mut cross_checks.places);
    place::check(&cross_checks.places, report);
    let record = record::read(&top, rules.as_deref().unwrap_or_default());

    if top.find("state").is_none() {
        report
            .fault_of_whole(top.line, format!("the policy does not say where state lives; {}", add(&STATE)));
    }
    if let (Some((field, whose)), None) = (&cross_checks.quarantine, top.find("quarantine")) {
        field.conflict(format!("{whose} quarantines, but nothing says where; {}", add(&QUARANTINE)));
    }
    if let (Some((field, whose)), None) = (&cross_checks.keyring, top.find("local")) {
        field.conflict(format!("{whose} uses a local key, but no keyring is named; {}", add(&LOCAL)));
    }
    Some(Policy {
        file,
        allow_root,
        aws,
        keyring,
        state_dir: state_dir?,
        record,
        quarantine_dir,
        control,
        limits,
        rules: rules?,
    })
}

/// Every rule, or none if one of them is incomplete.
fn rules<'t>(top: &Table<'t>, base: &Path, cross_checks: &mut CrossChecks<'t>) -> Option<Vec<Arc<Rule>>> {
    let mut entries = match top.find("watch") {
        Some(field) => field.list()?,
        None => Vec::new(),
    };
    if entries.is_empty() {
        let message = "the policy watches nothing; add a [[watch]] table with name, mode and path".to_owned();
        top.report.fault_of_whole(top.line, message);
    }
    if let Some(first_too_many) = entries.get(MAX_RULES) {
        first_too_many.conflict(format!(
            "the policy has {} rules, and at most {MAX_RULES} are taken; watch a directory above several of them with \
             recursive = true, or run another daemon with the rest",
            entries.len()
        ));
        entries.truncate(MAX_RULES);
    }
    let read = |entry: Field<'t>| {
        Some(rule::read(entry.entries()?, entry.line, base, top.report, cross_checks)?.into())
    };
    // All are read before any is missed, so that all faults are found.
    let rules: Vec<Option<Arc<Rule>>> = entries.into_iter().map(read).collect();
    rules.into_iter().collect()
}

fn aws(table: &Table<'_>) -> AwsSettings {
    let region = table.find("region").and_then(|field| {
        let region = field.line_of_text()?;
        // The Region becomes part of a host name.
        if !region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            field.fault(format!(
                "\"{}\" is no Region; write one such as \"eu-west-1\"",
                Escaped::text(region)
            ));
        }
        Some(region.to_owned())
    });
    let profile = table.find("profile").and_then(|field| field.line_of_text()).map(str::to_owned);
    let use_fips = table.find("use_fips").and_then(|field| field.boolean());
    let endpoint = table.find("endpoint_url");
    let endpoint_url = endpoint.and_then(|field| {
        let url = field.text()?;
        if let Err(error) = check_endpoint(url) {
            field.fault(error);
        }
        Some(url.to_owned())
    });
    if let (Some(field), Some(true)) = (endpoint, use_fips) {
        // The endpoint rules of KMS refuse every call then ("FIPS and custom endpoint are not
        // supported").
        field.conflict("AWS takes no endpoint of your own together with use_fips; keep one of the two");
    }
    AwsSettings { region, profile, endpoint_url, use_fips }
}

fn limits(table: Option<Table<'_>>) -> Limits {
    let find = |name| table.and_then(|table| table.find(name));
    let processors = || std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_HASH_THREADS));
    Limits {
        max_in_flight: find("max_in_flight").and_then(|f| f.number(1..=1024)).unwrap_or(MAX_IN_FLIGHT),
        kms_per_second: find("kms_per_second").and_then(|f| f.number(1..=100_000)),
        hash_threads: find("hash_threads").and_then(|f| f.number(1..=256)).unwrap_or_else(processors),
        min_free_space: find("min_free_space").and_then(|f| f.size(0)).unwrap_or(MIN_FREE_SPACE),
    }
}
