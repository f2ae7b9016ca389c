//! What a policy says, key by key, for operators. From this text and `grammar`, which says how keys
//! are written, `tests/it/manual.rs` makes the manual page kms-sig-policy(5), `docs/policy.md` and
//! the annotated example `config/policy.toml`, so that each fact is written once.
//!
//! Tests demand that every key of the grammar is explained here and no other, and that the defaults
//! told here are those that `table` and `rule` apply. Never reads anything, and decides nothing.

use super::grammar::{self, ModeName};

/// A table of the policy, explained.
#[derive(Debug)]
pub struct Chapter {
    /// How it is written, as in `[aws]`; empty for the top level.
    pub table: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its keys, in the order in which they are best read.
    pub keys: &'static [Entry],
}

/// A key, explained.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub name: &'static str,
    /// What it does, and what may be written.
    pub effect: &'static str,
    /// What holds without it.
    pub default: Absent,
    /// What follows from it: what to mind.
    pub consequence: &'static str,
}

/// What holds where a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It must be written.
    Required,
    /// It must be written if this holds.
    RequiredIf(&'static str),
    /// This, as it would be written.
    Value(&'static str),
    /// This, in words.
    Words(&'static str),
}

/// Which rules may have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// All of them; also any key of another table.
    All,
    /// Those with `mode = "sign"`.
    Sign,
    /// Those with `mode = "verify"`.
    Verify,
}

impl Chapter {
    /// How `entry` is written, and which rules may have it. `None` for a key that the policy does
    /// not know.
    pub fn grammar(&self, entry: &Entry) -> Option<(&'static str, Only)> {
        let title = if self.table.is_empty() { grammar::TOP.title } else { self.table };
        let section = grammar::SECTIONS.into_iter().find(|section| section.title == title)?;
        let key = section.find(entry.name)?;
        let only = match key.only {
            None => Only::All,
            Some(ModeName::Sign) => Only::Sign,
            Some(ModeName::Verify) => Only::Verify,
        };
        Some((key.example, only))
    }
}

const fn entry(
    name: &'static str,
    default: Absent,
    effect: &'static str,
    consequence: &'static str,
) -> Entry {
    Entry { name, effect, default, consequence }
}

/// What a policy is. Paragraphs; code stands between backquotes, here and in all texts of this
/// file.
pub const ABOUT: &str = "A policy is a TOML file. It has tables for the whole daemon and one `[[watch]]` for each directory.\n\n\
     There is no daemon without a policy. Keys, directories and the action on failure have no defaults. An unknown key is \
     an error, and all faults are reported at once, with their lines:";

/// The command that reports them.
pub const CHECK: &str = "kms-sig check --policy /etc/kms-sig/policy.toml";

/// How values are written, and what may be named. Paragraphs.
pub const FORM: &str = "Run it as the daemon's user: it says what that user may trust. After an edit, \
     `systemctl reload kms-sig` (or SIGHUP) makes a running daemon take the file over; if it has a fault, the old policy \
     stays in force. Symbolic links on the way to it (`current/policy.toml`, a ConfigMap's `..data`) are followed anew \
     each time.\n\n\
     Durations are written `\"500ms\"`, `\"2s\"`, `\"10m\"`, `\"1h 30m\"`; sizes `\"64MiB\"`, `\"100MB\"`, or as a number of \
     bytes. Relative paths begin at the policy's folder; `~` and variables are not expanded.\n\n\
     The policy, the keyring, `[state] dir`, `[quarantine] dir`, `deliver_to` and everything above them must belong to root \
     or to the daemon's user, and nobody else may write there. So must every symbolic link above them, and every directory \
     that such a link leads through. Sticky directories above them, such as /tmp, are accepted, and so is the daemon's own \
     primary group. So is what a container is given read-only from elsewhere (a ConfigMap, a Secret), whatever its mode. For watched directories, see `path`.\n\n\
     A policy has at most 1,000 rules and one megabyte, and a pattern of `include` or `exclude` at most 1,024 bytes.";

/// What placeholders are for.
pub const CONTEXT: &str = "The encryption context is part of what is signed: verifying has to name exactly the same. Values \
     may have placeholders:";

/// The placeholders of a context, and what they stand for.
pub const PLACEHOLDERS: [(&str, &str); 5] = [
    ("{name}", "The file's name."),
    ("{stem}", "The name without what follows its last dot."),
    ("{relpath}", "The path below the rule's directory."),
    ("{watch}", "The rule's name, in sign rules only."),
    ("{hostname}", "This host's name, in sign rules only."),
];

/// How the values of placeholders are written.
pub const ENCODING: &str = "A brace is written twice. `%`, control characters and bytes that are not UTF-8 are \
     percent-encoded, so for `kms-sig verify` the name `100%.txt` is `--context file=100%25.txt`. Keys and values have 8,192 \
     bytes together at most, and no key begins with `kms-sig:`. A verify rule has exactly what the signer's rule says, with \
     `{watch}` and `{hostname}` written out.";

/// What is never picked up.
pub const UNFINISHED: &str = "Never picked up, unless a pattern of `include` says so itself (`*.tmp`, not `*`): dotfiles, \
     `*~`, `*.part`, `*.partial`, `*.crdownload`, `*.filepart`, `*.tmp`, `*.swp`, `*.part.minio`, `*_.gstmp`, `dir-put-blob*`, \
     and what downloaders note beside a file: `*.aria2`, `*.aria2__temp` and `*.lftp-pget-status`. A name that ends in .sig is never a \
     payload.";

/// A small policy that does everything.
pub const EXAMPLE: &str = r#"[state]
dir = "/var/lib/kms-sig"

[quarantine]
dir = "/srv/kms-sig/quarantine"

[[watch]]
name = "releases"
mode = "sign"
path = "/srv/kms-sig/releases"
key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
context = { channel = "stable", file = "{name}" }

[[watch]]
name = "downloads"
mode = "verify"
path = "/srv/kms-sig/incoming"
trusted_keys = ["arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]
context = { channel = "stable", file = "{name}" }
deliver_to = "/srv/kms-sig/verified"
on_invalid = "quarantine"
on_missing = "quarantine"
"#;

use Absent::{Required, RequiredIf, Value, Words};

/// The whole policy.
pub const CHAPTERS: [Chapter; 8] = [
    Chapter {
        table: "",
        about: "Stands above the first table, as TOML has it.",
        keys: &[
            entry(
                "allow_root",
                Value("false"),
                "Whether the daemon may run as root. `--allow-root` says the same.",
                "The daemon needs no root: as root, no check of permissions holds it back, and it can be no safer than its \
                 own checks. With `false` it refuses to start as root.",
            ),
            entry(
                "aws",
                Words("the environment, profile and role that every AWS program finds"),
                "How AWS is reached.",
                "Without this table, credentials, Region and proxies are looked for as usual.",
            ),
            entry(
                "local",
                RequiredIf("a rule names a key `local:NAME`"),
                "Where local keys are.",
                "Local keys are for hosts without AWS, for tests and for trying out.",
            ),
            entry(
                "state",
                Required,
                "Where the daemon remembers what it decided.",
                "On a reload it cannot be changed; restart for that.",
            ),
            entry(
                "quarantine",
                RequiredIf("a rule quarantines"),
                "Where failed pairs are kept.",
                "There is one store for all rules; each item in it says which rule it comes from.",
            ),
            entry(
                "control",
                Words("the defaults of its keys"),
                "Where the daemon answers `kms-sig status` and its like.",
                "Without this table there is a control socket, and no metrics over TCP.",
            ),
            entry(
                "limits",
                Words("the defaults of its keys"),
                "What the daemon may use, all rules together.",
                "Rules take turns at what is limited, and within a rule the owners of its files do.",
            ),
            entry(
                "watch",
                Required,
                "A rule: one `[[watch]]` for each directory, at least one.",
                "Watched directories must not lie inside each other, or a file would have two rules.",
            ),
        ],
    },
    Chapter {
        table: "[aws]",
        about: "Optional. What is written here goes before the environment and the profile.",
        keys: &[
            entry(
                "region",
                Words("`AWS_REGION`, then the profile's"),
                "The Region of keys that are named without one: key ids and aliases.",
                "A key ARN names its own Region, and is asked there whatever is written here.",
            ),
            entry(
                "profile",
                Words("`AWS_PROFILE`, then the usual chain of credentials"),
                "A profile of the AWS configuration files to take credentials and settings from.",
                "Its credentials are used or none: neither those of the environment nor the instance's role take their \
                 place, and its Region, `endpoint_url`, `use_fips_endpoint` and `ca_bundle` go before the environment's. \
                 The files are those of the daemon's user, not yours: `~/.aws` below its home, unless `AWS_CONFIG_FILE` \
                 and `AWS_SHARED_CREDENTIALS_FILE` say otherwise.",
            ),
            entry(
                "endpoint_url",
                Words("`AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL`, the profile's, then AWS's own"),
                "Where KMS answers: a VPC endpoint, or something that speaks its protocol.",
                "`https` only, except on this machine itself (localhost, 127.0.0.1, [::1]): whoever sits on the path of a \
                 plain connection could invent verdicts. What answers there is believed, so it must be as trustworthy \
                 as KMS.",
            ),
            entry(
                "use_fips",
                Words("the profile's, then `false`"),
                "Whether AWS's FIPS 140 endpoints are used.",
                "Not together with `endpoint_url`, wherever that is written. Not every Region has them.",
            ),
        ],
    },
    Chapter {
        table: "[local]",
        about: "Needed if a rule names a key `local:NAME`.",
        keys: &[entry(
            "keyring",
            Required,
            "The file of local keys. `kms-sig key` makes it, and the keys in it.",
            "Whoever can read it can sign, and no log tells of it; it must have mode 0600. Keep a copy as you would of a \
             private key: a keyring that is lost takes its signatures with it.",
        )],
    },
    Chapter {
        table: "[state]",
        about: "Required.",
        keys: &[
            entry(
                "dir",
                Required,
                "The directory of `state.db`, made with mode 0700 if it is missing.",
                "Losing it loses time, history and the memory of `rollback`, never a file. One daemon uses it at a time. It \
             must not lie in a directory that is watched or delivered to.",
            ),
            entry(
                "history_keep",
                Value("\"400d\""),
                "How long decisions stay on record, by the host's clock; `\"forever\"` keeps them all.",
                "What is removed is gone: export it before. The record goes on from a checkpoint, and the newest row stays.",
            ),
            entry(
                "seal_key",
                Words("none; the head of the record is not sealed"),
                "A key of its own, which no rule uses, under which the head of the record and its number are encrypted, so \
                 that CloudTrail remembers them.",
                "The daemon needs `kms:Encrypt` on it, and makes one call each `seal_interval`. A seal that fails holds no \
                 file.",
            ),
            entry(
                "seal_interval",
                Value("\"1h\""),
                "How often the head of the record is sealed if anything was decided, up to 30 days. Only with `seal_key`.",
                "What was decided since the last seal has no witness.",
            ),
        ],
    },
    Chapter {
        table: "[quarantine]",
        about: "Needed if a rule quarantines.",
        keys: &[entry(
            "dir",
            Required,
            "The directory of the store, made with mode 0700 if it is missing. Each item is a folder with `payload`, \
             `payload.sig` and `record.json`, which says what was found and why.",
            "Best on the file system of the watched directories, and under systemd on the same mount: there a file is \
             moved at once, elsewhere it is copied first. It must lie apart from what is watched and delivered to; it may \
             lie in the state directory.",
        )],
    },
    Chapter {
        table: "[control]",
        about: "Optional.",
        keys: &[
            entry(
                "socket",
                Words(
                    "`control.sock` in the directory that systemd makes (`RuntimeDirectory=`), otherwise in `[state] dir`",
                ),
                "The Unix socket at which `kms-sig status`, `backlog`, `events`, `rescan` and `reload` ask the daemon. Its \
                 mode is 0660 and its group the daemon's.",
                "Whoever may connect can read what waits and what was decided, names of files included; `rescan` and \
                 `reload` are for the daemon's own user and root. Its directory must belong to root or the daemon, and \
                 nobody else may write there. On a reload it cannot be changed; restart for that.",
            ),
            entry(
                "metrics",
                Words("none; metrics are at the control socket alone"),
                "An address of loopback, with a port, where `GET /metrics` gives metrics in the OpenMetrics format.",
                "Every user of this host can read them: names of rules and keys, and figures. An address that other hosts \
                 can reach is refused; put a proxy that asks who is there in front.",
            ),
        ],
    },
    Chapter {
        table: "[limits]",
        about: "Optional. They hold for all rules together.",
        keys: &[
            entry(
                "max_in_flight",
                Value("64"),
                "How many calls of KMS may be under way, 1 to 1024.",
                "More makes many small files quicker while KMS answers, and costs a connection each.",
            ),
            entry(
                "kms_per_second",
                Words("the rate finds itself"),
                "The most calls of KMS that may start in a second, 1 to 100000, for all keys together. Each attempt \
                 counts; local keys are not counted.",
                "What exceeds it waits. Without it, each account and Region begins with 100 calls a second; while that is \
                 what holds files up and KMS throttles nothing, it doubles every second, up to 1000. With it, the daemon \
                 begins there and never makes more. Either way throttling halves the rate, and it comes back step by \
                 step. The quota of your account and Region is shared with everything that uses KMS there, S3 with \
                 SSE-KMS included: set this where calls have to stay below some number, for their cost or for others.",
            ),
            entry(
                "hash_threads",
                Words("the number of processors"),
                "How many files are hashed at the same time, 1 to 256.",
                "Fewer leave more of the machine to others.",
            ),
            entry(
                "min_free_space",
                Value("\"64MiB\""),
                "What a delivery, or a copy into quarantine, must leave free on its file system.",
                "Below it, files are held and tried again; none is lost. It guards copies, not records or state, and does \
                 not hold on a file system that counts no blocks (ramfs); `check --online` says so.",
            ),
        ],
    },
    Chapter {
        table: "[[watch]]",
        about: "Some keys belong to sign rules or to verify rules only.",
        keys: &[
            entry(
                "name",
                Required,
                "What the rule is called in the log, in records and in state: 1 to 64 letters, digits, `.`, `_` or `-`, \
                 unlike every other rule's.",
                "A rule that gets another name forgets its history.",
            ),
            entry(
                "mode",
                Required,
                "`\"sign\"`: every file gets a signature. `\"verify\"`: every file is judged by the signature that came \
                 with it.",
                "There is no default, because each is wrong for the other's folder.",
            ),
            entry(
                "path",
                Required,
                "The directory that is watched.",
                "If it is missing, the rule is held and tried again while the others run. It may belong to anyone, but must \
                 not be writable by everybody unless it is sticky; to move files out of a sticky directory, the daemon must \
                 own it. What stands above it must belong to root, to the daemon's user or to the directory's own owner, and \
                 nobody else may write there, except in sticky directories and by a group that may write to the directory \
                 itself. Symbolic links above it are followed only where root or the daemon's user alone could have put \
                 them. A verify rule moves files out of it: a program that keeps it equal to another folder in both \
                 directions (Syncthing, Unison) takes that for a deletion, and deletes the sender's originals. Have such \
                 a program receive only, or use `in_place`.",
            ),
            entry(
                "key",
                Required,
                "The key that signs: a key id, a key ARN, `alias/NAME`, an alias ARN, or `local:NAME`.",
                "Needs `kms:Encrypt`; also `kms:Decrypt`, to recognise signatures that the daemon does not remember \
                 making. Whoever may move an alias chooses the key.",
            ),
            entry(
                "trusted_keys",
                Required,
                "The keys that may vouch for a file: full key ARNs, or `local:NAME`. They are asked in this order until one \
                 recognises the signature.",
                "Everyone who may call `kms:Encrypt` on one of them can have files accepted. Aliases are refused: whoever \
                 may move an alias would choose the key. Needs `kms:Decrypt` on each. A second key costs a second call \
                 for what the first did not sign.",
            ),
            entry(
                "context",
                Words("none"),
                "The encryption context: pairs of text, with placeholders.",
                "Must be the same when signing and verifying, or every signature is `rejected`. Without `{name}` or \
                 `{relpath}` a valid pair can be renamed to stand for another file. In a recursive rule use `{relpath}`: \
                 with `{name}` alone, a valid pair can be moved to another directory, and an old one be passed off there \
                 as new; `check` notes verify rules without it. CloudTrail logs the context in clear: no secrets. Key \
                 policies can demand it.",
            ),
            entry(
                "include",
                Words("all names except those of unfinished files"),
                "Only files whose name matches one of these patterns: `*`, `?`, `[a-z]`, `{a,b}`, no slash.",
                "What does not match is not looked at, and stays where it is.",
            ),
            entry(
                "exclude",
                Words("none"),
                "No file whose name matches one of these patterns, even if `include` has it.",
                "What matches is not looked at, and stays where it is. A directory whose name matches is not entered.",
            ),
            entry(
                "recursive",
                Value("false"),
                "Whether directories below are watched too.",
                "Other mounts are not entered, nor dot directories, where uploads under way may have their final names \
                 (rsync), unless a pattern of `include` says so itself (`.*`). It goes at most 64 directories deep and watches at most 100,000 of them, with \
                 at most 1,024 bytes for the path of one and 16 MiB for all. Deliveries keep their place below \
                 `deliver_to`.",
            ),
            entry(
                "settle",
                Words("`\"15s\"` in sign rules, `\"2s\"` in verify rules"),
                "How long a file must be unchanged, with nobody writing to it, before it counts as complete: above 0, at \
                 most a day. To be signed it must have had no writer either for that long.",
                "In a sign rule, make it longer than any pause of your senders: some close a file whose connection dropped, \
                 sleep, and open it again to append (wget, up to 10 seconds), and too short a time signs half of it. Where \
                 the kernel cannot tell who is writing (network file systems; files of others without CAP_LEASE), it \
                 alone decides. Best are senders who write under another name and rename. On a mount that writes back \
                 later (rclone), make it longer than that takes.",
            ),
            entry(
                "prompt",
                Value("true"),
                "Whether a file that is proved complete is taken without waiting for `settle`: in a verify rule by its \
                 valid signature, in a sign rule by having been moved in or renamed to its name.",
                "In a verify rule a pair is tried as soon as the last of its files was closed or moved in. Only `valid` \
                 counts then; anything else waits, as it does without this. In a sign rule a file that was written \
                 under another name is taken 10 ms after the rename, if nobody has it open and nothing was written \
                 under its name since. What is created, linked or copied under its own name, or found by a scan, waits for \
                 `settle`, and so does what broke off: a file with a modification time of 0 (rsync), or one that was \
                 called `.in.*` or `.pureftpd-upload.*`. Where the kernel cannot tell who is writing, nothing is \
                 signed before `settle`. A name is tried early at most once in `settle`, or two seconds if that is \
                 longer.",
            ),
            entry(
                "control_files",
                Value("[\".aria2\", \".lftp-pget-status\", \".st\"]"),
                "What downloaders keep beside a file that is not complete, as what follows its name: at most 16 endings, \
                 each from its dot on; `[]` for none. While such a file lies beside a payload, is regular and of the same \
                 owner, the payload is unfinished: it is not signed, and no verdict but a valid one counts. In a \
                 verify rule that ends when neither of the two has changed for a day.",
                "`F.aria2` stays beside an `F` of full size and wrong content when aria2 is killed, `F.st` when axel is. \
                 Remove it, or resume the download; `status` counts such files after an hour. An ending that is not among \
                 those of unfinished files (`.st`) counts only with at most 64 KiB and no signature beside it, and is an \
                 ordinary payload where the file is missing that it would belong to. A control file is no \
                 payload, unless a pattern of `include` has its ending itself (`*.st`).",
            ),
            entry(
                "max_size",
                Value("\"16GiB\""),
                "The largest file that is handled.",
                "Larger ones are refused: left alone, and reported once. It also bounds what a sender can make the daemon \
                 read.",
            ),
            entry(
                "max_links",
                Value("1"),
                "The most hard links that a file may have.",
                "Another name of the file may be somebody else's to write to. A file is refused when it has had more for \
                 three seconds: before, they may be links that are made in place of a rename. More is needed for senders who link their \
                 files into place and keep the first name.",
            ),
            entry(
                "allowed_owners",
                Words("anyone"),
                "Whose files are handled, by name in /etc/passwd or by user id.",
                "Files and signatures of others are refused. A name is looked up when the policy is read.",
            ),
            entry(
                "create",
                Value("false"),
                "Whether missing directories are made: `path` and `deliver_to`; for a sign rule also a missing keyring with \
                 its key.",
                "With `false`, a directory whose disk is not mounted is not mistaken for an empty one.",
            ),
            entry(
                "quarantine_max_size",
                Value("\"32GiB\""),
                "How much of this rule may lie in quarantine. An item counts the bytes of its payload and signature, and each \
                 of its files (these, the folder and the record) at least 16 KiB. Only for rules that quarantine.",
                "What would exceed it is held as `quarantine-full` and stays in the watched directory, until items are \
                 released or purged; nothing is deleted for it.",
            ),
            entry(
                "quarantine_keep",
                Words("for ever"),
                "After how long items of this rule are purged from quarantine, up to ten years. Only for rules that \
                 quarantine.",
                "The daemon purges at its start and once a day, logs each item and puts it on record. It believes the \
                 host's clock.",
            ),
            entry(
                "deliver_to",
                Words(
                    "none; a sign rule writes the signature beside the file, a verify rule needs this or `in_place`",
                ),
                "Where file and signature are published, as a private copy of exactly the bytes that were signed or \
                 verified. The source is removed when the copy is safe on the disk.",
                "Nothing there is ever overwritten: a name that is taken by other content holds the file. It must lie apart \
                 from every watched directory; rules may share it. Delivery is at least once: take files out of it when \
                 you have used them.",
            ),
            entry(
                "deliver_mode",
                Value("\"0644\""),
                "The permission bits of what is delivered, as octal digits.",
                "No set-id or sticky bits; signatures get no execute bits. The owner is the daemon, the group that of a \
                 set-gid directory, else the daemon's. Only with `deliver_to`.",
            ),
            entry(
                "batch",
                Words("each file costs one call, and has a plain signature"),
                "Has files share a call of KMS: `window` is how long the first file waits for others (`\"10ms\"` to `\"1m\"`), \
                 `max_files` how many are signed at once at most (2 to 65536); both are required. Files that settled \
                 meanwhile get batch signatures, each complete by itself.",
                "CloudTrail has one line for a batch and names none of its files: the pairs of `context` with `{name}`, `{stem}` \
                 or `{relpath}` are signed, but KMS does not see them. Verify rules take such signatures with `accept_batch`; \
                 the original and `aws kms decrypt` alone cannot. With `deliver_to` a batch has no more files than a \
                 sixteenth of the descriptors that the process may have open.",
            ),
            entry(
                "on_stale",
                Value("\"report\""),
                "What becomes of a signature of ours whose file has changed since: `\"resign\"` replaces it, `\"report\"` \
                 leaves both and says so, `\"quarantine\"` moves both away.",
                "`\"resign\"` signs whatever the file has become, whoever changed it. Signatures that are not ours are \
                 never replaced.",
            ),
            entry(
                "in_place",
                Value("false"),
                "Judge pairs where they lie and leave them there, instead of `deliver_to`.",
                "Whoever can write to the directory can change a file after its verdict and before it is used. Delivery \
                 closes that gap.",
            ),
            entry(
                "on_invalid",
                Required,
                "What becomes of an invalid pair: `\"quarantine\"` moves it to the store, `\"log\"` leaves it and says so.",
                "A pair that cannot be judged is not invalid: it is held, and tried again. Signatures of other programs \
                 that end in `.sig` are `malformed`, and so invalid.",
            ),
            entry(
                "on_missing",
                Required,
                "What becomes of a file whose signature did not come within `signature_timeout`: `\"quarantine\"` moves it to \
                 the store, `\"log\"` leaves it and says so.",
                "With `\"log\"` the file stays, and its signature may still come.",
            ),
            entry(
                "signature_timeout",
                Value("\"10m\""),
                "How long a file waits for its signature: above 0, at most 30 days.",
                "Longer than the slowest upload of a signature after its file, or good files are quarantined.",
            ),
            entry(
                "grace",
                Words("`\"30s\"` where the kernel tells who is writing, `\"10m\"` where it cannot"),
                "How long an invalid pair must stay unchanged before the verdict is final: `\"0s\"` to a day.",
                "Half of a file does not verify either: too short a time quarantines slow uploads. Valid pairs never wait \
                 for it.",
            ),
            entry(
                "rollback",
                Value("\"off\""),
                "What becomes of a file that is valid but was superseded before by another under its name: `\"off\"` does \
                 not look, `\"alert\"` delivers it and tells an operator, `\"deny\"` holds it and tells an operator.",
                "It remembers only what this rule accepted, or was killed in accepting, while it was on; what is released from \
                 quarantine to `deliver_to` counts. Going back on purpose is denied as well.",
            ),
            entry(
                "accept_batch",
                Value("false"),
                "Whether batch signatures are accepted besides plain ones. Which keys of `context` live only in a file's leaf \
                 is taken from this rule: those with `{name}`, `{stem}` or `{relpath}`.",
                "The files of one batch cost one Decrypt; that root stays open for five minutes, even if the key is disabled \
                 meanwhile. With `false` a batch signature is malformed.",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_explained_and_no_other() {
        let known: BTreeSet<_> = grammar::SECTIONS
            .iter()
            .flat_map(|section| section.keys.iter().map(|key| (section.title, key.name)))
            .collect();
        let title = |chapter: &Chapter| match chapter.table {
            "" => grammar::TOP.title,
            table => table,
        };
        let explained: BTreeSet<_> = CHAPTERS
            .iter()
            .flat_map(|chapter| chapter.keys.iter().map(move |entry| (title(chapter), entry.name)))
            .collect();
        assert_eq!(explained, known);
        let entries = CHAPTERS.iter().map(|chapter| chapter.keys.len()).sum::<usize>();
        assert_eq!(entries, known.len(), "a key is explained once");
    }

    #[test]
    fn every_explanation_is_whole() {
        for entry in CHAPTERS.iter().flat_map(|chapter| chapter.keys) {
            for text in [entry.effect, entry.consequence] {
                assert!(text.ends_with('.') && !text.contains("  "), "{}: {text}", entry.name);
                assert_eq!(text.matches('`').count() % 2, 0, "{}: {text}", entry.name);
            }
        }
    }
}
