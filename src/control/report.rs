//! What the daemon says of itself, in the shapes that go over the control socket as JSON.
//!
//! Made of the status by the daemon, read by the commands. Times are RFC 3339 in UTC, durations
//! seconds; names of files are escaped, with the bytes in hexadecimal beside them where a program
//! may want to act on them. Fields may be added; those that are there keep their meaning.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Clocks, Moment};
use crate::daemon::ask::{Backlog as Pairs, Unanswered, Waiting};
use crate::daemon::status::{Figures, Phase, Plan, Reading, Root, Status};
use crate::escape::Escaped;
use crate::kms::caller::Caller;
use crate::kms::throttle::{Quota, RateNow};
use crate::log_queue;

/// `GET /status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    /// The daemon's version.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// When this was so.
    pub(crate) time: String,
    /// When it started.
    pub(crate) started: String,
    /// `starting`, `ready`, `reloading` or `stopping`.
    pub(crate) phase: String,
    /// The policy in force, once there is one.
    pub(crate) policy: Option<PolicyStatus>,
    /// What a person should know of or do, the worst first. Empty: all is well.
    pub(crate) concerns: Vec<Concern>,
    /// The rules, in the order of the policy.
    pub(crate) rules: Vec<RuleStatus>,
    /// How it stands with KMS.
    pub(crate) kms: KmsStatus,
    /// Log lines that were dropped since the start, as nobody took them in time or they could not
    /// be written.
    #[serde(default)]
    pub(crate) log_lines_dropped: u64,
}

/// The policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PolicyStatus {
    /// Its file, escaped.
    pub(crate) file: String,
    /// Which one since the start, from 1.
    pub(crate) generation: u64,
    /// Since when.
    pub(crate) since: String,
    /// Why the last reload was refused, if it was.
    pub(crate) refused: Option<String>,
}

/// Something that a person should know of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Concern {
    /// In a word: the cause of a hold, the reason of refusals, or `rule-held`, `no-events`,
    /// `kms-silent`, `brake`, `reload-refused`, `unresponsive`, `log-stuck`.
    pub(crate) kind: String,
    /// The rule, if it is about one.
    pub(crate) rule: Option<String>,
    /// How many files it is about.
    pub(crate) files: Option<usize>,
    /// Since when, where it is known.
    pub(crate) since: Option<String>,
    /// In full.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) hint: String,
    /// Whether a person is needed: only a person can end it, or it has lasted too long.
    pub(crate) needs_operator: bool,
}

/// One rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RuleStatus {
    /// Its name.
    pub(crate) name: String,
    /// `sign` or `verify`.
    pub(crate) mode: String,
    /// The watched directory, escaped.
    pub(crate) path: String,
    /// `opening`, `watched` (events and scans), `scanned` (scans alone) or `held` (it cannot work).
    pub(crate) state: String,
    /// Why it is `scanned` or `held`.
    pub(crate) reason: Option<String>,
    /// Files in memory that something is still to be done about.
    pub(crate) waiting: usize,
    /// Those of them that are held.
    pub(crate) held: usize,
    /// Those of them with a running attempt.
    pub(crate) running_attempts: usize,
    /// Still more lie in the directory.
    pub(crate) more: bool,
    /// What they wait for.
    pub(crate) causes: Vec<CauseStatus>,
    /// Files that are refused as they are, by the code of the reason.
    #[serde(default)]
    pub(crate) refused: BTreeMap<String, usize>,
    /// The one that has waited longest.
    pub(crate) oldest: Option<OldestStatus>,
    /// Files decided since the daemon started, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// The mass-failure brake is on.
    pub(crate) brake: bool,
    /// When the last scan ended.
    pub(crate) last_scan: Option<String>,
    /// How long it took, in seconds.
    pub(crate) last_scan_seconds: f64,
    /// Watchers built anew since the daemon started.
    pub(crate) watcher_rebuilds: u64,
    /// Bytes hashed since the daemon started.
    pub(crate) hashed_bytes: u64,
}

/// Files that wait for one cause.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CauseStatus {
    /// In a word.
    pub(crate) cause: String,
    /// How many.
    pub(crate) files: usize,
    /// Whether they are held.
    pub(crate) held: bool,
    /// Since when the one that has waited longest.
    pub(crate) since: String,
    /// What that one says.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) hint: String,
    /// Whether a person is needed: only a person can end it, or it has lasted too long.
    pub(crate) needs_operator: bool,
    /// When the first of them is looked at next.
    pub(crate) next_attempt: Option<String>,
}

/// The file that has waited longest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OldestStatus {
    /// Its path below the rule's directory, escaped.
    pub(crate) file: String,
    /// Since when it is there: its change time.
    pub(crate) since: String,
    /// How long that is, in seconds.
    pub(crate) age_seconds: f64,
    /// What it waits for.
    pub(crate) cause: String,
}

/// How it stands with KMS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KmsStatus {
    /// Calls under way.
    pub(crate) in_flight: usize,
    /// How fast calls may follow each other, for each account, Region and class of keys that was
    /// asked under the policy in force.
    #[serde(default)]
    pub(crate) rates: Vec<RateStatus>,
    /// Calls since the daemon started, by operation and result.
    pub(crate) calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// As whom AWS was asked last under the policy in force, as far as the credentials say it.
    #[serde(default)]
    pub(crate) caller: Option<CallerStatus>,
    /// The accounts of the keys of AWS that answered under the policy in force.
    #[serde(default)]
    pub(crate) accounts: Vec<String>,
    /// Keys under which it does not answer: they are not asked but for a probe now and then.
    pub(crate) silent: Vec<SilentStatus>,
}

/// How fast calls that count against one quota of AWS may follow each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RateStatus {
    /// The account; `null` while no key that is named without it has answered.
    pub(crate) account: Option<String>,
    /// The Region, likewise.
    pub(crate) region: Option<String>,
    /// The class of keys: `symmetric`.
    pub(crate) keys: String,
    /// Calls that may start in a second now.
    pub(crate) calls_per_second: f64,
    /// The most that this will ever be: the policy's, or what is found without one.
    pub(crate) ceiling: f64,
    /// When KMS throttled last, if it did.
    pub(crate) last_throttled: Option<String>,
}

/// As whom AWS is asked. Never a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CallerStatus {
    /// Where the credentials come from: the profile, the kind of source, the role.
    pub(crate) source: String,
    /// Their access key id.
    pub(crate) access_key_id: String,
    /// Their account, where they name it.
    pub(crate) account: Option<String>,
}

/// A key under which KMS does not answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SilentStatus {
    /// The key.
    pub(crate) key: String,
    /// `Encrypt` or `Decrypt`.
    pub(crate) operation: String,
    /// Since when.
    pub(crate) since: String,
    /// What it said last.
    pub(crate) reason: String,
}

/// `GET /backlog`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Backlog {
    /// When this was so.
    pub(crate) time: String,
    /// The files, those that have waited longest first within each rule.
    pub(crate) files: Vec<WaitingFile>,
    /// What else there is to say of each rule that was asked.
    pub(crate) rules: Vec<RuleBacklog>,
}

/// What is not in the list of a rule's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RuleBacklog {
    /// The rule.
    pub(crate) rule: String,
    /// How many files there are that were asked for.
    pub(crate) total: usize,
    /// Still more lie in the directory, for which there was no room in memory.
    pub(crate) more: bool,
    /// Why it did not answer, if it did not.
    pub(crate) unanswered: Option<String>,
}

/// A file that something is still to be done about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WaitingFile {
    /// The rule.
    pub(crate) rule: String,
    /// Its path below the rule's directory, escaped.
    pub(crate) file: String,
    /// The bytes of that, in hexadecimal.
    pub(crate) path_hex: String,
    /// In a word: the cause of a hold, or what it waits for.
    pub(crate) cause: String,
    /// Whether it is held.
    pub(crate) held: bool,
    /// Whether a person is needed: only a person can end it, or it has lasted too long.
    pub(crate) needs_operator: bool,
    /// In full.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) hint: String,
    /// Since when it is there: its change time.
    pub(crate) since: String,
    /// Tries that ended in a hold.
    pub(crate) attempts: u32,
    /// When it is looked at next; `null` for when something happens to it.
    pub(crate) next_attempt: Option<String>,
    /// Its size in bytes, if it is there.
    pub(crate) size: Option<u64>,
}

/// The answer to an order, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What was done, or why not.
    pub(crate) message: String,
}

impl StatusReport {
    /// All of it, now.
    pub(crate) fn of(status: &Status) -> Self {
        let (reading, clocks) = (status.read(), status.clock.read());
        let plan = reading.plan.as_deref();
        let silent = reading.silent_keys.iter().map(|((key, operation), silent)| SilentStatus {
            key: Escaped::text(key).to_string(),
            operation: operation.as_str().to_owned(),
            since: clocks.stamp(silent.since),
            reason: silent.trouble.to_string(),
        });
        let mut calls: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for ((operation, result), counted) in status.kms_metrics.calls() {
            calls.entry(operation.as_str().to_owned()).or_default().insert(result.to_owned(), counted.count);
        }
        let rates = status.kms_metrics.rates();
        let rates = rates.iter().map(|(quota, rate)| RateStatus::of(quota, rate, clocks)).collect();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            time: clock::timestamp(),
            started: clocks.stamp(Moment::ZERO),
            phase: phase(reading.life.phase).to_owned(),
            policy: plan.map(|plan| PolicyStatus {
                file: Escaped::new(&plan.policy.file).to_string(),
                generation: plan.generation,
                since: clocks.stamp(plan.since),
                refused: reading.life.refused.as_deref().map(|why| Escaped::text(why).to_string()),
            }),
            concerns: concerns(status, &reading, clocks),
            rules: plan.map(|plan| rules(plan, &reading, clocks)).unwrap_or_default(),
            kms: KmsStatus {
                in_flight: status.kms_metrics.in_flight(),
                rates,
                calls,
                caller: reading.asked.caller.as_ref().map(CallerStatus::of),
                accounts: reading.asked.accounts.iter().map(|a| Escaped::text(a).to_string()).collect(),
                silent: silent.collect(),
            },
            log_lines_dropped: log_queue::dropped(),
        }
    }
}

impl RateStatus {
    fn of(quota: &Quota, rate: &RateNow, clocks: Clocks) -> Self {
        let shown = |text: &String| Escaped::text(text).to_string();
        Self {
            account: quota.place.as_ref().map(|place| shown(&place.account)),
            region: quota.place.as_ref().map(|place| shown(&place.region)),
            keys: quota.class.as_str().to_owned(),
            calls_per_second: rate.per_second,
            ceiling: rate.ceiling,
            last_throttled: rate.last_throttled.map(|at| clocks.stamp(at)),
        }
    }
}

impl CallerStatus {
    fn of(caller: &Caller) -> Self {
        let shown = |text: &str| Escaped::text(text).to_string();
        Self {
            source: shown(&caller.source),
            access_key_id: shown(&caller.access_key_id),
            account: caller.account.as_deref().map(shown),
        }
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Reloading => "reloading",
        Phase::Stopping => "stopping",
    }
}

fn rules(plan: &Plan, reading: &Reading, clocks: Clocks) -> Vec<RuleStatus> {
    let of = |rule: &std::sync::Arc<crate::policy::Rule>| {
        let Figures { outcomes, now: shown, hashed, rebuilds, .. } =
            reading.rules.get(&rule.name).cloned().unwrap_or_default();
        let state = shown.root.as_str();
        let reason = match shown.root {
            Root::Opening | Root::Watched => None,
            Root::Scanned(why) => Some(why.reason().to_owned()),
            Root::Held(why) => Some(why),
        };
        RuleStatus {
            name: rule.name.clone(),
            mode: rule.mode.as_str().to_owned(),
            path: Escaped::new(&rule.path).to_string(),
            state: state.to_owned(),
            reason,
            waiting: shown.waiting,
            held: shown.held,
            running_attempts: shown.running_attempts,
            more: shown.more,
            causes: shown
                .causes
                .into_iter()
                .map(|(cause, of)| CauseStatus {
                    cause: cause.to_owned(),
                    files: of.count,
                    held: of.is_held,
                    since: clocks.stamp(of.since),
                    reason: of.reason,
                    hint: of.hint,
                    needs_operator: of.needs_operator,
                    next_attempt: of.next_attempt.map(|at| clocks.stamp(at)),
                })
                .collect(),
            refused: shown.refused.iter().map(|(code, of)| ((*code).to_owned(), of.count)).collect(),
            oldest: shown.oldest.map(|oldest| OldestStatus {
                file: oldest.file,
                since: clock::timestamp_at(oldest.since),
                age_seconds: clocks.wall.saturating_sub(oldest.since).as_secs_f64(),
                cause: oldest.cause.to_owned(),
            }),
            outcomes: outcomes.into_iter().map(|(outcome, n)| (outcome.to_owned(), n)).collect(),
            brake: shown.braked,
            last_scan: shown.last_scan.map(|at| clocks.stamp(at)),
            last_scan_seconds: shown.last_scan_took.as_secs_f64(),
            watcher_rebuilds: rebuilds,
            hashed_bytes: hashed,
        }
    };
    plan.policy.rules.iter().map(of).collect()
}

/// What a person should know of: what stops a rule, then what only a person can end, then what
/// passes by itself.
fn concerns(status: &Status, reading: &Reading, clocks: Clocks) -> Vec<Concern> {
    let mut all = Vec::new();
    for silent in status.watchdog.silent(NOT_TURNING) {
        all.push(Concern {
            kind: "unresponsive".to_owned(),
            rule: reading.rules.contains_key(&silent.name).then(|| silent.name.clone()),
            files: None,
            since: None,
            reason: match silent.at_disk {
                true => format!("{} waits for a file system that does not answer", silent.name),
                false => format!("the event loop of {} does not respond", silent.name),
            },
            hint: match silent.at_disk {
                true => "see to the disk or the file server; the other rules go on".to_owned(),
                false => "restart the daemon (the watchdog of systemd does), and report it".to_owned(),
            },
            needs_operator: true,
        });
    }
    if log_queue::is_dropping() {
        all.push(Concern {
            kind: "log-stuck".to_owned(),
            rule: None,
            files: None,
            since: None,
            reason: format!(
                "nobody reads the log, and it is dropped: {} lines since the start; the work goes on",
                log_queue::dropped()
            ),
            hint: "see to what reads standard error, or to journald (systemctl status systemd-journald); \
                   what was decided is on record: kms-sig history"
                .to_owned(),
            needs_operator: true,
        });
    }
    for ((key, operation), silent) in &reading.silent_keys {
        all.push(Concern {
            kind: "kms-silent".to_owned(),
            rule: None,
            files: None,
            since: Some(clocks.stamp(silent.since)),
            reason: format!(
                "KMS does not answer {} under {}: {}",
                operation.as_str(),
                Escaped::text(key),
                silent.trouble
            ),
            hint: format!("{}; it is asked again every half minute", silent.trouble.hint()),
            needs_operator: silent.trouble.kind.needs_operator(clocks.now.saturating_sub(silent.since)),
        });
    }
    if let Some(why) = &reading.life.refused {
        all.push(Concern {
            kind: "reload-refused".to_owned(),
            rule: None,
            files: None,
            since: None,
            reason: format!(
                "the last reload was refused, and the old policy goes on: {}",
                Escaped::text(why)
            ),
            hint: "correct the policy (kms-sig check) and reload".to_owned(),
            needs_operator: true,
        });
    }
    for (rule, figures) in &reading.rules {
        all.extend(rule_concerns(rule, figures, clocks));
    }
    all.sort_by_key(|concern| (!concern.needs_operator, concern.kind != "rule-held"));
    all
}

/// A loop that has not responded for this long is reported. The loops are asked by a watchdog, and
/// when somebody looks.
pub(super) const NOT_TURNING: Duration = Duration::from_secs(10);

fn rule_concerns(rule: &str, figures: &Figures, clocks: Clocks) -> Vec<Concern> {
    let concern = |kind: &str, reason: &str, hint: &str, needs_operator| Concern {
        kind: kind.to_owned(),
        rule: Some(rule.to_owned()),
        files: None,
        since: None,
        reason: reason.to_owned(),
        hint: hint.to_owned(),
        needs_operator,
    };
    let mut all = Vec::new();
    match &figures.now.root {
        Root::Held(why) => {
            let hint = "do what it says; it is tried again every five seconds";
            all.push(concern("rule-held", why, hint, true));
        }
        // What a network file system is like is no concern.
        Root::Scanned(why) if why.is_a_fault() => {
            all.push(concern("no-events", why.reason(), why.hint(), true));
        }
        Root::Opening | Root::Watched | Root::Scanned(_) => {}
    }
    if figures.now.braked {
        all.push(concern(
            "brake",
            "nearly every signature is rejected or of another key; such pairs are held, valid ones go on",
            "check trusted_keys, context and accept_batch of the rule, then reload",
            true,
        ));
    }
    for (cause, of) in &figures.now.causes {
        if (of.is_held && *cause != "brake") || of.needs_operator {
            all.push(Concern {
                files: Some(of.count),
                since: Some(clocks.stamp(of.since)),
                ..concern(cause, &of.reason, &of.hint, of.needs_operator)
            });
        }
    }
    // Each stays as it is until somebody does something about the file, or the rule.
    for (code, of) in &figures.now.refused {
        let reason = match of.count {
            1 => format!("refused: {}", of.reason),
            _ => format!("refused, for example: {}", of.reason),
        };
        let hint = format!("{}; kms-sig backlog --cause {code} lists them", of.reason.hint());
        all.push(Concern { files: Some(of.count), ..concern(code, &reason, &hint, true) });
    }
    all
}

impl Backlog {
    /// The answers of the workers, each with its rule.
    pub(super) fn of(status: &Status, answers: Vec<(String, Result<Pairs, Silence>)>) -> Self {
        let clocks = status.clock.read();
        let (mut files, mut rules) = (Vec::new(), Vec::new());
        for (rule, answer) in answers {
            let (pairs, unanswered) = match answer {
                Ok(pairs) => (pairs, None),
                Err(silence) => (Pairs::default(), Some(silence.to_string())),
            };
            rules.push(RuleBacklog { rule: rule.clone(), total: pairs.total, more: pairs.more, unanswered });
            files.extend(pairs.pairs.into_iter().map(|pair| waiting(&rule, pair, clocks)));
        }
        Self { time: clock::timestamp(), files, rules }
    }
}

fn waiting(rule: &str, pair: Waiting, clocks: Clocks) -> WaitingFile {
    WaitingFile {
        rule: rule.to_owned(),
        file: Escaped::new(pair.path.as_path()).to_string(),
        path_hex: hex::encode(pair.path.as_bytes()),
        cause: pair.cause.to_owned(),
        held: pair.is_held,
        needs_operator: pair.needs_operator,
        reason: pair.reason,
        hint: pair.hint,
        since: clock::timestamp_at(pair.since),
        attempts: pair.attempts,
        next_attempt: pair.next_attempt.map(|at| clocks.stamp(at)),
        size: pair.size,
    }
}

/// Why a worker did not list its backlog.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// It was not there.
    #[error("it starts or ends just now; ask again")]
    Gone,
    /// It is asked too much.
    #[error("it is asked by too many at once; ask again")]
    Busy,
    /// It did not come to it.
    #[error("it waits for a file system, or has very much to do; ask again, and see to the disk if it lasts")]
    Late,
}

impl From<Unanswered> for Silence {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Gone => Self::Gone,
            Unanswered::Busy => Self::Busy,
        }
    }
}
