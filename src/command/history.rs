//! `kms-sig history`: what was decided, and whether the record of it is unbroken.
//!
//! Reads only, beside a running daemon or without one. What it finds broken is exit code 1; what it
//! cannot read or compare is 3.

mod failure;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::{Failure, answer, block_on, complain};
use crate::cli::{self, HistoryCommand};
use crate::clock;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::key::KeyId;
use crate::kms::provider::Providers;
use crate::policy::Policy;
use crate::signing::Reason;
use crate::state::attestation;
use crate::state::attestation::OpenedSeal;
use crate::state::audit::{Break, Unbroken};
use crate::state::export::{self, escaped};
use crate::state::ledger::Read;
use crate::state::link::{Head, Judged, Point, Row};
use crate::state::reader::{Expected, Filter, History, HistoryError, JudgedFilter, NameFilter};
use crate::state::reason;
use crate::terminal::{self, Palette, progress, streams};
pub(crate) use failure::HistoryFailure;

/// Seals that `--online` opens: the newest. Each binds all rows before it.
const OPENED: usize = 8;

/// Shows, exports or proves the record.
///
/// # Errors
/// A bad policy or argument; the record cannot be read.
pub(crate) fn run(arguments: &HistoryCommand, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let policy = arguments.policy.as_deref().map(Policy::load).transpose()?;
    match (&policy, arguments.verify, arguments.export) {
        (policy, true, _) => verify(arguments, policy.as_ref(), keyring),
        (Some(policy), false, true) => export(&policy.state_dir),
        (Some(policy), false, false) => show(arguments, policy),
        // Only --against makes --policy optional, and it is for --verify.
        (None, false, _) => Ok(Exit::Usage),
    }
}

fn open(dir: &Path) -> Result<History, HistoryFailure> {
    Ok(History::open(dir)?)
}

fn show(arguments: &HistoryCommand, policy: &Policy) -> Result<Exit, Failure> {
    let filter = filter(arguments)?;
    let record = open(&policy.state_dir)?;
    let width = policy.rules.iter().map(|rule| rule.name.len()).max().unwrap_or_default().max("RULE".len());
    let colours = terminal::stdout();
    let mut out = Lines::new()?;
    let mut exit = Exit::Done;
    let mut heading = !arguments.json;
    let mut each = |read: Read| -> Result<(), Halt> {
        if std::mem::take(&mut heading) {
            let heads =
                format!("{:>7}  {:24}  {:width$}  {:11}  NAME", "ROW", "TIME (UTC)", "RULE", "OUTCOME");
            out.line(&colours.heading(&heads).to_string())?;
        }
        match read {
            Ok((row, link)) if arguments.json => out.line(&export::row_line(&row, &link)),
            Ok((row, _)) => out.line(&line(&row, width, colours)),
            Err(broken) => {
                exit = Exit::Invalid;
                complain(&format!("kms-sig: {broken}"));
                Ok(())
            }
        }
    };
    let shown = match arguments.last {
        Some(most) => record
            .newest(&filter, most)
            .map_err(Halt::from)
            .and_then(|rows| rows.into_iter().try_for_each(&mut each)),
        None => record.each(&filter, &mut each),
    };
    out.end(shown)?;
    if let Some(rule) = &arguments.rule {
        tell_unknown_rule(rule, policy, &record)?;
    }
    record.done().map_err(HistoryFailure::from)?;
    Ok(exit)
}

/// Says that a rule is unknown, so that nobody takes it for one that decided nothing. One of an
/// earlier policy is not.
fn tell_unknown_rule(name: &str, policy: &Policy, record: &History) -> Result<(), HistoryFailure> {
    let all = Filter { rule: Some(name.to_owned()), ..Filter::default() };
    if policy.rules.iter().all(|rule| rule.name != name) && record.newest(&all, 1)?.is_empty() {
        complain(&format!("no rule is called \"{}\", in the policy or on record", Escaped::text(name)));
    }
    Ok(())
}

/// A row for people. Nothing in it reaches the terminal as it is, for who can write to the state
/// can put anything there.
fn line(row: &Row, width: usize, colours: Palette) -> String {
    let text = |text: &str| Escaped::text(text).to_string();
    let reason = row.reason.as_deref().map(reason::shown);
    let reason = reason.map(|reason| format!("  ({})", text(&reason))).unwrap_or_default();
    format!(
        "{:>7}  {:24}  {:width$}  {:11}  {}{reason}",
        row.seq,
        text(&row.at),
        text(&row.rule),
        colours.outcome(&text(&row.outcome)),
        escaped(&row.path),
    )
}

fn filter(arguments: &HistoryCommand) -> Result<Filter, HistoryFailure> {
    let judged = arguments.verdict.as_deref().map(|word| match Reason::parse(word) {
        Some(reason) => JudgedFilter::Exactly(Judged::Invalid(reason)),
        None if word == cli::VALID => JudgedFilter::Exactly(Judged::Valid),
        None => JudgedFilter::AnyInvalid,
    });
    Ok(Filter {
        rule: arguments.rule.clone(),
        outcome: arguments.outcome.clone(),
        since: arguments.since.as_deref().map(time).transpose()?,
        until: arguments.until.as_deref().map(time).transpose()?,
        name: arguments.name.as_deref().map(NameFilter::new),
        judged,
    })
}

/// A time, in the form of the record: a day, a moment in UTC, or how long ago.
fn time(text: &str) -> Result<String, HistoryFailure> {
    let wrong = || HistoryFailure::Time(text.to_owned());
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(clock::timestamp_ago(ago));
    }
    let whole = if text.len() == "2026-11-24".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let moment = humantime::parse_rfc3339_weak(&whole).map_err(|_| wrong())?;
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string())
}

fn export(dir: &Path) -> Result<Exit, Failure> {
    let record = open(dir)?;
    let claims = match record.claims().map_err(HistoryFailure::from)? {
        Ok(claims) => claims,
        Err(broken) => return tell_broken(&broken, false),
    };
    let head = Head { chain: claims.chain, point: claims.head };
    let mut broken = None;
    let mut out = Lines::new()?;
    let mut written = out.line(&export::first_line(&claims));
    if written.is_ok() {
        written = record.each(&Filter::default(), |read| match read {
            Ok((row, link)) => out.line(&export::row_line(&row, &link)),
            Err(found) => {
                broken.get_or_insert(found);
                Ok(())
            }
        });
    }
    record.done().map_err(HistoryFailure::from)?;
    if let Some(broken) = broken {
        out.end(written)?; // without the head it is no whole export, and nobody will take it for one
        return tell_broken(&broken, false);
    }
    let written = written.and_then(|()| out.line(&export::head_line(&head, clock::timestamp())));
    out.end(written)?;
    Ok(Exit::Done)
}

/// Standard output for many lines.
struct Lines(BufWriter<File>);

/// Why no more lines are written.
enum Halt {
    /// The reader has gone: it has seen enough.
    Gone,
    /// There is something to tell.
    Failed(Failure),
}

impl From<HistoryError> for Halt {
    fn from(error: HistoryError) -> Self {
        Self::Failed(HistoryFailure::from(error).into())
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Self::Gone } else { Self::Failed(Failure::Output(error)) }
    }
}

impl Lines {
    fn new() -> Result<Self, Failure> {
        Ok(Self(BufWriter::new(streams::stdout().map_err(Failure::Output)?)))
    }

    fn line(&mut self, line: &str) -> Result<(), Halt> {
        Ok(writeln!(self.0, "{line}")?)
    }

    fn end(mut self, written: Result<(), Halt>) -> Result<(), Failure> {
        match written.and_then(|()| Ok(self.0.flush()?)) {
            Ok(()) | Err(Halt::Gone) => Ok(()),
            Err(Halt::Failed(failure)) => Err(failure),
        }
    }
}

fn verify(
    arguments: &HistoryCommand,
    policy: Option<&Policy>,
    keyring: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let mut expected: Vec<Expected> = arguments.head.iter().map(expected_head).collect::<Result<_, _>>()?;
    let mut seals = Seals::default();
    if let Some(file) = &arguments.against {
        let proven = export::verify(file, expected.clone()).map_err(HistoryFailure::from)?;
        match proven.proof {
            Err(broken) => {
                complain(&format!("kms-sig: {} is broken", quoted(file)));
                return tell_broken(&broken, arguments.json);
            }
            Ok(unbroken) if policy.is_none() => {
                return conclude(&unbroken, expected.len(), &seals, arguments.json);
            }
            Ok(_) => {}
        }
        let Head { chain, point } = proven.head;
        expected.push(Expected { chain: Some(chain), point, whose: format!("the head in {}", quoted(file)) });
    }
    let Some(policy) = policy else { return Ok(Exit::Usage) };
    let record = match History::open(&policy.state_dir) {
        // Whoever kept a head knows that there was a record.
        Err(HistoryError::Missing(dir)) if !expected.is_empty() => {
            let whose = expected.swap_remove(0);
            let how = format!("there is no record in {}; it was lost or removed", quoted(&dir));
            let broken = Break::Foreign { whose: whose.whose, seq: whose.point.seq, how };
            return tell_broken(&broken, arguments.json);
        }
        opened => opened.map_err(HistoryFailure::from)?,
    };
    let heads = expected.len();
    let unbroken = match record.verify(expected).map_err(HistoryFailure::from)? {
        Ok(unbroken) => unbroken,
        Err(broken) => return tell_broken(&broken, arguments.json),
    };
    if arguments.online {
        let Some(sealing) = &policy.record.seal else {
            return Err(HistoryFailure::NoSeal(policy.file.clone()).into());
        };
        let keyring = policy.keyring.clone().or(keyring);
        let kms = Providers::new(policy.aws.clone(), keyring);
        let asking = progress::asking_kms();
        let opened = block_on(open_seals(&record, &unbroken, &sealing.key, &kms));
        drop(asking);
        seals = match opened?? {
            Ok(seals) => seals,
            Err(broken) => return tell_broken(&broken, arguments.json),
        };
        seals.asked = true;
    }
    conclude(&unbroken, heads, &seals, arguments.json)
}

/// What `--online` came to.
#[derive(Default)]
struct Seals {
    asked: bool,
    /// Opened, and what they should be.
    opened: usize,
    /// Made by another key than the policy's.
    others: usize,
}

async fn open_seals(
    record: &History,
    unbroken: &Unbroken,
    key: &KeyId,
    kms: &Providers,
) -> Result<Result<Seals, Break>, Failure> {
    let mut found = Seals::default();
    for seal in record.seals().map_err(HistoryFailure::from)?.iter().rev().take(OPENED) {
        let head = Head { chain: unbroken.head.chain, point: seal.point };
        let answer = attestation::open(kms, key, &seal.ciphertext, &head).await;
        match answer.map_err(|source| Failure::Seal { provider: key.provider(), source })? {
            OpenedSeal::Genuine => found.opened += 1,
            OpenedSeal::OtherKey => found.others += 1,
            OpenedSeal::Forged => {
                let whose = format!("the seal of {}", Escaped::text(&seal.at));
                let how = "KMS did not seal this head".to_owned();
                return Ok(Err(Break::Foreign { whose, seq: seal.point.seq, how }));
            }
        }
    }
    Ok(Ok(found))
}

/// A head to compare with: `HASH:ROW`, or the last line of a file.
fn expected_head(asked: &OsString) -> Result<Expected, HistoryFailure> {
    let parse = |text: &str| {
        let (link, seq) = text.split_once(':')?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
        Some(Point { seq, link: link.parse().ok()? })
    };
    if let Some(point) = asked.to_str().and_then(parse) {
        return Ok(Expected { chain: None, point, whose: format!("the head of row {}", point.seq) });
    }
    let file = Path::new(asked);
    if !file.exists() {
        return Err(HistoryFailure::Head(asked.to_string_lossy().into_owned()));
    }
    let Head { chain, point } = export::last_line(file)?;
    Ok(Expected { chain: Some(chain), point, whose: format!("the head in {}", quoted(file)) })
}

fn tell_broken(broken: &Break, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        answer(&export::json(&json!({
            "verified": false, "row": broken.row(), "reason": broken.to_string(),
        })))?;
    } else {
        complain(&format!("the record is broken: {broken}"));
    }
    Ok(Exit::Invalid)
}

/// Says what was proven. `heads` are those that somebody kept. What could not be compared is no
/// success.
fn conclude(unbroken: &Unbroken, heads: usize, seals: &Seals, as_json: bool) -> Result<Exit, Failure> {
    let Unbroken { rows, checkpoint, head, found, pruned } = unbroken;
    let unopened = seals.asked && seals.opened == 0;
    let heads = heads.saturating_sub(pruned.len());
    let on_it = found.saturating_sub(heads);
    if as_json {
        answer(&export::json(&json!({
            "verified": pruned.is_empty() && !unopened, "rows": rows, "pruned": checkpoint.seq,
            "chain": head.chain.to_string(), "seq": head.point.seq, "hash": head.point.link.to_string(),
            "heads": heads, "seals": on_it, "seals_opened": seals.opened, "not_comparable": pruned,
        })))?;
    } else {
        let good = terminal::stdout().good("the record is unbroken:");
        let mut said = format!("{good} {}", counted(rows, "row"));
        if checkpoint.seq > 0 {
            said += &format!("\nbefore it: {} pruned", counted(&checkpoint.seq, "row"));
        }
        if heads > 0 {
            said += &format!("\non it: {} kept elsewhere", counted(&heads, "head"));
        }
        if on_it > 0 {
            said += &format!("\non it: {}, {} opened by KMS", counted(&on_it, "seal"), seals.opened);
        }
        answer(&format!("{said}\nchain: {}\nhead: {}:{}", head.chain, head.point.link, head.point.seq))?;
    }
    for whose in pruned {
        complain(&format!(
            "kms-sig: cannot compare {whose}: its row was pruned; heads from row {} on can be compared",
            checkpoint.seq
        ));
    }
    if unopened {
        complain(match seals.others {
            0 => "kms-sig: cannot open a seal: there is none",
            _ => "kms-sig: cannot open a seal: another key than [state] seal_key made the newest",
        });
    }
    Ok(if pruned.is_empty() && !unopened { Exit::Done } else { Exit::Unfinished })
}

fn counted<N: ToString>(n: &N, what: &str) -> String {
    let n = n.to_string();
    if n == "1" { format!("1 {what}") } else { format!("{n} {what}s") }
}
