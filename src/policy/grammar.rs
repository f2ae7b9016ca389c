//! Every key a policy may have: where it stands, what it says, and what it looks like.
//!
//! Messages about missing, misplaced, misspelt and mistyped keys are made from these tables, so
//! that a key is described once. Never reads anything.

/// A table of the policy file and the keys it may have.
pub(super) struct Section {
    /// How it is called in messages.
    pub(super) title: &'static str,
    /// Its keys, in the order in which they are listed to an operator.
    pub(super) keys: &'static [Key],
}

/// A key and how to write it.
pub(super) struct Key {
    /// The key.
    pub(super) name: &'static str,
    /// What it says; goes after "write".
    pub(super) what: &'static str,
    /// The whole entry.
    pub(super) example: &'static str,
    /// The only mode of a rule it belongs to.
    pub(super) only: Option<ModeName>,
}

/// The two values of `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModeName {
    Sign,
    Verify,
}

impl ModeName {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Verify => "verify",
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Sign => Self::Verify,
            Self::Verify => Self::Sign,
        }
    }
}

const fn key(name: &'static str, what: &'static str, example: &'static str) -> Key {
    Key { name, what, example, only: None }
}

const fn sign(name: &'static str, what: &'static str, example: &'static str) -> Key {
    Key { name, what, example, only: Some(ModeName::Sign) }
}

const fn verify(name: &'static str, what: &'static str, example: &'static str) -> Key {
    Key { name, what, example, only: Some(ModeName::Verify) }
}

pub(super) const TOP: Section = Section {
    title: "the top level",
    keys: &[
        key("allow_root", "whether the daemon may run as root", "allow_root = true"),
        key("aws", "how to reach AWS, as a table", "[aws]"),
        key("local", "where local keys are, as a table", "[local]"),
        key("state", "where state lives, as a table", "[state]"),
        key("quarantine", "where failed pairs go, as a table", "[quarantine]"),
        key("control", "where the daemon answers questions, as a table", "[control]"),
        key("limits", "the limits of the daemon, as a table", "[limits]"),
        key("watch", "each rule as a table of its own", "[[watch]]"),
    ],
};

pub(super) const AWS: Section = Section {
    title: "[aws]",
    keys: &[
        key("region", "the Region of keys whose name has none", r#"region = "eu-west-1""#),
        key("profile", "a profile of the AWS configuration files", r#"profile = "signer""#),
        key("endpoint_url", "where KMS answers", r#"endpoint_url = "https://kms.example.com""#),
        key("use_fips", "whether the FIPS endpoints are used", "use_fips = true"),
    ],
};

pub(super) const LOCAL: Section = Section {
    title: "[local]",
    keys: &[key("keyring", "the file that holds local keys", r#"keyring = "/var/lib/kms-sig/keyring""#)],
};

pub(super) const STATE: Section = Section {
    title: "[state]",
    keys: &[
        key("dir", "the directory where state lives", r#"dir = "/var/lib/kms-sig""#),
        key("history_keep", "how long decisions stay on record", r#"history_keep = "400d""#),
        key(
            "seal_key",
            "a key of its own for the head of the record",
            r#"seal_key = "arn:aws:kms:eu-west-1:111122223333:key/4321dcba-12ab-34cd-56ef-1234567890ab""#,
        ),
        key("seal_interval", "how often the head of the record is sealed", r#"seal_interval = "1h""#),
    ],
};

pub(super) const QUARANTINE: Section = Section {
    title: "[quarantine]",
    keys: &[key("dir", "the directory where failed pairs go", r#"dir = "/srv/kms-sig/quarantine""#)],
};

pub(super) const CONTROL: Section = Section {
    title: "[control]",
    keys: &[
        key("socket", "the control socket", r#"socket = "/run/kms-sig/control.sock""#),
        key("metrics", "a loopback address where metrics are told", r#"metrics = "127.0.0.1:9464""#),
    ],
};

pub(super) const LIMITS: Section = Section {
    title: "[limits]",
    keys: &[
        key("max_in_flight", "how many KMS calls may run at the same time", "max_in_flight = 64"),
        key("kms_per_second", "the most KMS calls that may start in a second", "kms_per_second = 50"),
        key("hash_threads", "how many files are hashed at the same time", "hash_threads = 4"),
        key("min_free_space", "what must stay free on a file system", r#"min_free_space = "64MiB""#),
    ],
};

pub(super) const WATCH: Section = Section {
    title: "[[watch]]",
    keys: &[
        key("name", "a name of its own", r#"name = "releases""#),
        key("mode", "what the rule does", r#"mode = "sign" or mode = "verify""#),
        key("path", "the directory to watch", r#"path = "/srv/kms-sig/releases""#),
        sign(
            "key",
            "the key that signs",
            r#"key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab""#,
        ),
        verify(
            "trusted_keys",
            "the keys that may vouch",
            r#"trusted_keys = ["arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]"#,
        ),
        key(
            "context",
            "the encryption context as a table of strings",
            r#"context = { channel = "stable", file = "{name}" }"#,
        ),
        key("include", "patterns of the file names that are meant", r#"include = ["*.tar.gz"]"#),
        key("exclude", "patterns of the file names that are not meant", r#"exclude = ["*.log"]"#),
        key("recursive", "whether directories below are watched too", "recursive = true"),
        key("settle", "how long a file must be unchanged to count as complete", r#"settle = "15s""#),
        key("prompt", "whether what is proved complete waits for nothing", "prompt = false"),
        key(
            "control_files",
            "how the names of control files of downloaders end",
            r#"control_files = [".aria2", ".lftp-pget-status", ".st"]"#,
        ),
        key("max_size", "the largest file that is handled", r#"max_size = "16GiB""#),
        key("max_links", "how many hard links a file may have", "max_links = 1"),
        key("allowed_owners", "whose files are handled", r#"allowed_owners = ["builder", 1000]"#),
        key("create", "whether missing directories are made", "create = true"),
        key("deliver_to", "the directory where valid pairs go", r#"deliver_to = "/srv/kms-sig/verified""#),
        key("deliver_mode", "the permission bits of delivered files", r#"deliver_mode = "0644""#),
        sign(
            "batch",
            "how files share a KMS call, as a table",
            r#"batch = { window = "200ms", max_files = 1000 }"#,
        ),
        sign("on_stale", "what happens to a signature whose file has changed", r#"on_stale = "report""#),
        key(
            "quarantine_max_size",
            "how much of this rule may lie in quarantine",
            r#"quarantine_max_size = "32GiB""#,
        ),
        key("quarantine_keep", "how long quarantine is kept", r#"quarantine_keep = "90days""#),
        verify("in_place", "whether pairs are judged where they lie", "in_place = true"),
        verify("on_invalid", "what happens to an invalid pair", r#"on_invalid = "quarantine""#),
        verify("on_missing", "what happens to a file without a signature", r#"on_missing = "quarantine""#),
        verify(
            "signature_timeout",
            "how long a file waits for its signature",
            r#"signature_timeout = "10m""#,
        ),
        verify(
            "grace",
            "how long an invalid pair must stay unchanged before it is judged",
            r#"grace = "30s""#,
        ),
        verify("rollback", "what happens to a file that was superseded earlier", r#"rollback = "off""#),
        verify("accept_batch", "whether batch signatures are accepted", "accept_batch = false"),
    ],
};

/// The table `batch` of a rule. Too small to stand among the sections that an operator looks for.
pub(super) const BATCH: Section = Section {
    title: "`batch`",
    keys: &[
        key("window", "how long the first file waits for others", r#"window = "200ms""#),
        key("max_files", "how many files share a KMS call at most", "max_files = 1000"),
    ],
};

/// All sections, to say where a misplaced key belongs.
pub(super) const SECTIONS: [&Section; 8] =
    [&TOP, &AWS, &LOCAL, &STATE, &QUARANTINE, &CONTROL, &LIMITS, &WATCH];

impl Section {
    /// The key called `name`.
    pub(super) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The keys that a table of this kind may have; `mode` is that of a rule, if known.
    fn valid(&self, mode: Option<ModeName>) -> impl Iterator<Item = &'static str> {
        let fits = move |key: &&Key| mode.is_none() || key.only.is_none() || key.only == mode;
        self.keys.iter().filter(fits).map(|key| key.name)
    }

    /// What to do about a key that no table of this kind has.
    pub(super) fn advice(&self, unknown: &str, mode: Option<ModeName>) -> String {
        let elsewhere = || SECTIONS.into_iter().find(|section| section.find(unknown).is_some());
        if let Some(name) = nearest(unknown, self.valid(mode)) {
            format!("did you mean `{name}`?")
        } else if let Some(section) = elsewhere() {
            format!("it belongs to {}", section.title)
        } else {
            format!("valid here: {}", self.valid(mode).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The candidate that `word` was probably meant to be: at most one edit in three letters away.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let letters = word.chars().count();
    candidates
        // Who is that much longer or shorter is that many edits away; a key of a megabyte is not
        // compared.
        .filter(|candidate| candidate.len().abs_diff(letters) <= (candidate.len() / 3).max(1))
        .map(|candidate| (edit_distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    // `row` holds the distances of the letters of `a` so far to every beginning of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, above) in b.chars().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(from != to);
            left = replaced.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// How to add a section: its header and its first entry, which is the one that is required.
pub(super) fn add(section: &Section) -> String {
    let entry = section.keys.first().map_or("its keys", |key| key.example);
    format!("add {} with {entry}", section.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("path", "path", 0),
            ("pth", "path", 1),
            ("kitten", "sitting", 3),
            ("on_stale", "on_stlae", 2),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn o2_a_misspelt_key_gets_the_right_advice() {
        for (word, mode, advice) in [
            ("Path", None, "did you mean `path`?"),
            ("trusted-keys", Some(ModeName::Verify), "did you mean `trusted_keys`?"),
            ("onstale", Some(ModeName::Sign), "did you mean `on_stale`?"),
            ("keyring", Some(ModeName::Sign), "it belongs to [local]"),
            ("allow_root", None, "it belongs to the top level"),
        ] {
            assert_eq!(WATCH.advice(word, mode), advice);
        }
        assert_eq!(STATE.advice("colour", None), "valid here: dir, history_keep, seal_key, seal_interval");
        let sign = WATCH.advice("colour", Some(ModeName::Sign));
        assert!(sign.contains(" key, ") && !sign.contains("trusted_keys"), "{sign}");
    }

    #[test]
    fn every_example_is_an_entry_of_its_key() {
        for section in SECTIONS {
            for key in section.keys {
                let heads =
                    [format!("{} = ", key.name), format!("[{}]", key.name), format!("[[{}]]", key.name)];
                assert!(heads.iter().any(|head| key.example.starts_with(head)), "{}", key.name);
            }
        }
    }
}
