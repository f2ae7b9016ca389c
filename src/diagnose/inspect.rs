//! What a policy would meet on this host: what keeps the daemon or a rule from working; and for
//! `kms-sig check --online` also file systems, leases, room.
//!
//! Tries out what nobody can see, and with `--online` whether a directory can be made that nobody
//! else can enter, and what can be done in one; leaves nothing behind. Asks the functions by which
//! the daemon decides; what they say is put into words here, with what to do about it.

mod finding;
mod places;
use std::sync::Arc;

use crate::chain;
use crate::context::Placeholder;
use crate::daemon::site::attach::{AttachError, Directories, DirectorySite, batching};
use crate::daemon::site::mounts;
use crate::daemon::worker::timing;
use crate::diagnose::inspect::finding::{CHECK_READING, words};
pub(crate) use crate::diagnose::inspect::finding::{Depth, Finding, Level};
pub(crate) use crate::diagnose::inspect::places::{inspect_policy, once_each};
use crate::diagnose::inspect::places::{modes, own, space, to_write_there, unopened};
use crate::diagnose::survey::{Survey, survey};
use crate::escape::{Escaped, quoted};
use crate::fs::lease;
use crate::fs::lease::Writer;
use crate::fs::private;
use crate::fs::rehearsal::Rehearsal;
use crate::fs::system::Support;
use crate::fs::trust;
use crate::fs::trust::TrustError;
use crate::fs::{Action, Dir, Fitness, FsError, Kind};
use crate::hold::TO_CROSS;
use crate::policy::{Mode, Policy, Rollback, Rule};
use crate::state::reader::Decisions;

/// How many files of a rule may wait for their batch with a copy of theirs open, where the process
/// may have `limit` files open (`None`: any number).
pub(crate) fn copies_waiting(rule: &Rule, limit: Option<u64>) -> u64 {
    let batching = rule.delivery().and_then(|_| batching(rule, limit));
    batching.map_or(0, |batching| batching.max_files as u64)
}

/// `CAP_LEASE` (capabilities(7), linux/capability.h).
const CAP_LEASE: u32 = 28;

/// Names looked at for a file to ask a lease of.
const NAMES: usize = 512;

/// What findings about the files of a rule are about.
pub(crate) const FILES: &str = "files";

/// What findings about its directory are about.
pub(crate) const DIRECTORY: &str = "directory";

/// What was found about one rule.
pub(crate) struct Inspection {
    /// In the order in which it is told.
    pub(crate) findings: Vec<Finding>,
    /// Directories that the rule would have watched; none if it cannot work.
    pub(crate) directories: usize,
}

/// Inspects one rule of a policy.
pub(crate) fn inspect(
    policy: &Policy,
    rule: &Arc<Rule>,
    decisions: Option<&Decisions>,
    depth: Depth,
) -> Inspection {
    let site = match Directories::for_a_look().open(rule) {
        Ok(site) => site,
        Err(error) => return Inspection { findings: unattached(rule, &error, depth), directories: 0 },
    };
    let mut findings = Vec::new();
    let mut directories = 0;
    // Where what is moved would go, for whom the branch decides that it lies on.
    let probe = Some(depth == Depth::Whole && rule.moves_files()).filter(|tries| *tries);
    let probe = probe.and_then(|_| Rehearsal::within(&site.folder().root).ok());
    match survey(&site, decisions, probe.as_ref().map(Rehearsal::dir)) {
        Ok(survey) => {
            findings.extend(files(rule, &survey));
            directories = survey.directories;
        }
        Err(error) => findings.push(Finding::unknown(FILES, words(&error), CHECK_READING)),
    }
    if depth == Depth::Whole {
        findings.push(events(&site));
        findings.push(leases(&site));
    }
    findings.extend(writing(&site, depth));
    findings.extend(delivery(&site, policy.limits.min_free_space, depth));
    if depth == Depth::Whole {
        findings.extend(quarantine(&site, policy));
    }
    findings.extend(binding(rule));
    Inspection { findings, directories }
}

fn unattached(rule: &Rule, error: &AttachError, depth: Depth) -> Vec<Finding> {
    const HELD: &str = "held: ";
    const MAKE: &str = "make it, or write create = true";
    vec![match error {
        AttachError::Trust(TrustError::Missing(_)) if rule.create => return to_be_made(rule),
        // A policy may be looked at before there is anything on this host.
        AttachError::Trust(TrustError::Missing(_)) if depth == Depth::Start => {
            Finding::note(DIRECTORY, format!("{HELD}{}", chain::one_line(error)), MAKE)
        }
        AttachError::Trust(TrustError::Missing(_)) => {
            Finding::fix(DIRECTORY, format!("{HELD}{}", chain::one_line(error)), MAKE)
        }
        AttachError::Trust(TrustError::Io(error)) | AttachError::Fs(error) => {
            unopened(DIRECTORY, error, HELD)
        }
        AttachError::Locked { .. } => {
            Finding::unknown(DIRECTORY, format!("{HELD}{}", chain::one_line(error)), CHECK_READING)
        }
        // These say what to do themselves.
        AttachError::Trust(_) | AttachError::CannotPublish { .. } | AttachError::Sticky { .. } => {
            Finding::fix(DIRECTORY, format!("{HELD}{}", chain::one_line(error)), "")
        }
    }]
}

/// The directories of a rule that makes what is missing of them: only where nobody else could have
/// made it.
fn to_be_made(rule: &Rule) -> Vec<Finding> {
    let places = std::iter::once((DIRECTORY, &rule.path));
    let places = places.chain(rule.delivery().map(|delivery| ("deliver_to", &delivery.dir)));
    places
        .filter(|(_, path)| !path.exists())
        .map(|(about, path)| own(about, path, trust::open(path), None))
        .collect()
}

fn files(rule: &Rule, survey: &Survey) -> Vec<Finding> {
    let mut findings = vec![Finding::fine(FILES, standing(rule, survey.waiting))];
    for (code, (count, reason)) in &survey.refused {
        let files = if *count == 1 { "file is" } else { "files are" };
        let says = format!("{count} {files} refused ({code}): {reason}");
        findings.push(Finding::note(FILES, says, reason.hint()));
    }
    for error in &survey.unread {
        let name = error.path.file_name().map(|name| Escaped::new(name).to_string()).unwrap_or_default();
        findings.push(Finding::fix(
            FILES,
            format!(
                "{}; the files in it are not seen, and the rule is scanned every ten seconds",
                words(error)
            ),
            format!("let the daemon's user read it, or leave it out: exclude = [\"{name}\"]"),
        ));
    }
    if let Some(below) = survey.beyond.as_ref().filter(|_| rule.moves_files()) {
        findings.push(Finding::fix(
            FILES,
            format!(
                "no file can be moved out of {}, which is another subvolume, quota project or branch",
                quoted(below)
            ),
            TO_CROSS,
        ));
    }
    if survey.capped {
        findings.push(Finding::fix(
            FILES,
            "there are more directories than are watched, or deeper ones; the rest is left out",
            "watch a directory further down",
        ));
    }
    findings
}

/// How many files would be processed, in words.
fn standing(rule: &Rule, waiting: usize) -> String {
    let what = match rule.mode {
        Mode::Sign(_) => "to be signed",
        Mode::Verify(_) => "to be judged",
    };
    let files = if waiting == 1 { "file stands" } else { "files stand" };
    format!("{waiting} {files} {what}")
}

fn events(site: &DirectorySite) -> Finding {
    let file_system = &site.folder().file_system;
    match file_system.is_remote() {
        true => Finding::note(
            "events",
            format!(
                "{file_system}: events cannot be relied on there, and the directory is scanned often instead"
            ),
            "watch a directory on a local file system, if that is too slow",
        ),
        false => Finding::fine("events", format!("{file_system}: events can be relied on")),
    }
}

// Leases

fn leases(site: &DirectorySite) -> Finding {
    let file_system = &site.folder().file_system;
    if !file_system.tells_writers() {
        return Finding::note(
            "lease",
            format!(
                "{file_system}: who has a file open for writing elsewhere is not known there; {}",
                without_leases(site, "")
            ),
            "have files renamed or linked into the directory when they are complete",
        );
    }
    let tried = match site.folder().root.check_writable() {
        Ok(()) => site.folder().root.has_leases(),
        Err(_) => Support::Unknown,
    };
    let answer = match tried {
        Support::Unknown => of_a_file(site),
        Support::Yes | Support::No => tried,
    };
    match answer {
        Support::No => Finding::note(
            "lease",
            format!(
                "the file system does not tell who has a file open for writing; {}",
                without_leases(site, "")
            ),
            "have files renamed or linked into the directory when they are complete",
        ),
        Support::Unknown => Finding::note(
            "lease",
            "no file of the directory could be asked who has it open for writing; it will show with the first one",
            "",
        ),
        Support::Yes if is_capable(CAP_LEASE) => Finding::fine(
            "lease",
            "the kernel tells who has a file open for writing, whoever owns it (CAP_LEASE)",
        ),
        Support::Yes if owns_all(site) => {
            Finding::fine("lease", "the kernel tells who has a file open for writing")
        }
        Support::Yes => Finding::note(
            "lease",
            format!(
                "the kernel tells who has a file open for writing of the daemon's own files only; {}",
                without_leases(site, " of others")
            ),
            "give the daemon CAP_LEASE (AmbientCapabilities=CAP_LEASE in its unit)",
        ),
    }
}

/// What goes without leases, for files of whom.
fn without_leases(site: &DirectorySite, whose: &str) -> String {
    match &site.rule.mode {
        Mode::Sign(_) => {
            let settle = humantime::format_duration(site.rule.settle);
            format!("a file{whose} counts as complete when it has been unchanged for {settle}")
        }
        Mode::Verify(_) => {
            let grace = humantime::format_duration(timing(&site.rule).grace_unleased);
            format!("invalid pairs{whose} wait for a grace of {grace}")
        }
    }
}

/// Asks the lease of some regular file that is there.
fn of_a_file(site: &DirectorySite) -> Support {
    let anything = Fitness { max_size: u64::MAX, max_links: u32::MAX, owners: None };
    let Ok(names) = site.folder().root.names() else { return Support::Unknown };
    let mine = |name: &std::ffi::OsString| {
        let stat = site.folder().root.stat_of(name).ok().flatten()?;
        let me = rustix::process::geteuid().as_raw();
        (stat.kind == Kind::File && (stat.uid == me || is_capable(CAP_LEASE))).then_some(())
    };
    let name = names.take(NAMES).filter_map(Result::ok).find(|name| mine(name).is_some());
    match name.map(|name| site.folder().root.open_file(&name, &anything)) {
        Some(Ok((file, _))) => match lease::probe(&file) {
            Writer::Absent | Writer::Present => Support::Yes,
            Writer::Unknown => Support::No,
        },
        Some(Err(_)) | None => Support::Unknown,
    }
}

/// Whether only files of this process's user are handled, or nobody else but root can put any
/// there.
fn owns_all(site: &DirectorySite) -> bool {
    let me = rustix::process::geteuid().as_raw();
    let are_mine = |owners: &Vec<u32>| owners.iter().all(|owner| *owner == me);
    site.rule.allowed_owners.as_ref().is_some_and(are_mine)
        || site.folder().root.stat().is_ok_and(|root| root.uid == me && root.mode & 0o022 == 0)
}

/// Whether this process has a capability that counts on this host's files: one of a user namespace
/// does not.
fn is_capable(capability: u32) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    has_capability(&read("/proc/self/status"), &read("/proc/self/uid_map"), capability)
}

/// By what the kernel says (proc_pid_status(5), user_namespaces(7)).
fn has_capability(status: &str, uid_map: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let is_initial = uid_map.split_whitespace().eq(["0", "0", "4294967295"]);
    is_initial && effective >> capability & 1 == 1
}

// Where something is written

fn writing(site: &DirectorySite, depth: Depth) -> Vec<Finding> {
    let root = &site.folder().root;
    let mut findings = Vec::new();
    if site.rule.writes_to_root() {
        findings.push(match root.check_writable() {
            Ok(()) if depth == Depth::Whole => match root.try_modes() {
                Ok(()) => tried(&site.rule, root),
                Err(error) => Finding::fix("write", words(&error), ""),
            },
            Ok(()) => modes("write", root)
                .filter(|_| site.rule.moves_files() || root.has_nameless_files() == Support::No)
                .unwrap_or_else(|| Finding::fine("write", "the directory can be written to")),
            Err(error) => Finding::fix("write", words(&error), to_write_there(&error)),
        });
    }
    match private::is_name_taken(root) {
        Ok(false) => {}
        Ok(true) => findings.push(Finding::note(
            "write",
            "something that is not the daemon's has its name .kms-sig there; the daemon uses another name",
            "remove it, unless it is yours",
        )),
        Err(error) => findings.push(Finding::unknown("write", words(&error), CHECK_READING)),
    }
    findings
}

fn delivery(site: &DirectorySite, floor: u64, depth: Depth) -> Vec<Finding> {
    let Some(dir) = site.destination() else { return Vec::new() };
    if let Err(error) = dir.check_writable() {
        return vec![Finding::fix("deliver_to", words(&error), to_write_there(&error))];
    }
    if depth == Depth::Start {
        return Vec::new();
    }
    let mut findings =
        vec![space("deliver_to", dir, &format!("{} can be written to", quoted(dir.path())), floor)];
    let nameless = dir.has_nameless_files();
    let blocks = match site.folder().root.check_writable() {
        Ok(()) => dir.shares_blocks_with(&site.folder().root),
        Err(_) => Support::Unknown,
    };
    let copies = match blocks {
        Support::Yes => "copies share blocks with the source (reflink)",
        Support::No => "copies are made byte by byte",
        Support::Unknown => "whether copies can share blocks could not be tried out",
    };
    findings.push(match nameless {
        Support::Yes => {
            Finding::fine("deliver_to", format!("copies have no name until they are whole; {copies}"))
        }
        Support::No => publishing(
            "deliver_to",
            dir,
            Finding::fine(
                "deliver_to",
                format!("copies are called .kms-sig-… until they are whole (no O_TMPFILE there); {copies}"),
            ),
        ),
        Support::Unknown => Finding::note("deliver_to", copies, ""),
    });
    findings
}

/// Whether what a rule does in its directory can be done there.
fn tried(rule: &Rule, root: &Dir) -> Finding {
    const WRITTEN: &str = "the directory can be written to";
    let move_one = || Rehearsal::within(root).and_then(|rehearsal| rehearsal.dir().try_moving());
    let moved = if rule.moves_files() { move_one() } else { Ok(()) };
    match moved {
        Err(error) => {
            let error = FsError { path: root.path().to_owned(), ..error };
            Finding::fix("write", words(&error), "give the rule a directory on another file system")
        }
        Ok(()) if rule.signs_in_place() => publishing(
            "write",
            root,
            Finding::fine("write", format!("{WRITTEN}, and signatures published in it")),
        ),
        Ok(()) => Finding::fine("write", WRITTEN),
    }
}

/// Whether what is whole can be given its name in a directory, as `fine` says.
fn publishing(about: &'static str, dir: &Dir, fine: Finding) -> Finding {
    match Rehearsal::within(dir).and_then(|rehearsal| rehearsal.dir().try_publishing()) {
        Ok(()) => fine,
        Err(error) if error.action == Action::Publish => {
            Finding::fix(about, chain::one_line(&AttachError::cannot_publish(dir)), "")
        }
        Err(error) => Finding::fix(about, words(&error), "find out why files cannot be made there"),
    }
}

fn quarantine(site: &DirectorySite, policy: &Policy) -> Option<Finding> {
    let path = policy.quarantine_dir.as_deref().filter(|_| site.rule.mode.quarantines())?;
    let store = match Dir::open(path) {
        Ok(store) => store,
        Err(error) if error.is_not_found() => {
            return Some(Finding::fine("quarantine", format!("{} will be made", quoted(path))));
        }
        Err(error) => return Some(Finding::unknown("quarantine", words(&error), CHECK_READING)),
    };
    Some(match mounts::reach(&site.folder().root, &store) {
        Err(error) => Finding::unknown("quarantine", words(&error), CHECK_READING),
        Ok(mounts::Reach::Moved) => {
            Finding::fine("quarantine", "on the same mount: bad files are moved there")
        }
        Ok(mounts::Reach::Copied) => {
            Finding::fine("quarantine", "on another file system: bad files are copied there")
        }
        Ok(mounts::Reach::Split(advice)) => Finding::note(
            "quarantine",
            "on another mount of the same disk: bad files are copied there instead of moved",
            advice,
        ),
    })
}

// What the context says of which file a signature is of

/// What a signature does not say: which name its file has, or in which directory it belongs. A
/// genuine pair is as good under any other.
fn binding(rule: &Rule) -> Option<Finding> {
    let Mode::Verify(verify) = &rule.mode else { return None };
    let has = |wanted| rule.context.placeholders().any(|(_, hole)| hole == wanted);
    let (name, stem, path) = (has(Placeholder::Name), has(Placeholder::Stem), has(Placeholder::RelPath));
    let rollback = match verify.rollback {
        Rollback::Deny => {
            "; rollback = \"deny\" goes by names, so whoever keeps an old pair gets it past that by renaming it"
        }
        Rollback::Alert => "; rollback goes by names, and does not see an old pair under another one",
        Rollback::Off => "",
    };
    if !name && !path {
        let what = if stem {
            "of a name, its context has {stem} alone: a genuine pair, also an old one, is valid under any other name \
             that is the same up to its last dot (setup.exe for setup.txt)"
        } else {
            "no value of its context has {relpath} or {name}: a genuine pair, also an old one, is valid under any other \
             name"
        };
        let meant = rule.context.without_braces().map(|(key, hole)| {
            let word = hole.as_str();
            format!(
                " (the value of \"{}\" is the word {word}; a placeholder is {{{word}}})",
                Escaped::text(key)
            )
        });
        return Some(Finding::note(
            "context",
            format!("{what}{}{rollback}", meant.unwrap_or_default()),
            "have {name} in the context, or {relpath} if the rule is recursive, where signed and here",
        ));
    }
    (rule.recursive && !path).then(|| {
        Finding::note(
            "context",
            "the rule is recursive and no value of its context has {relpath}: a genuine pair, also an old one, is valid \
             in any other directory below too, and rollback does not see it there",
            "have {relpath} in the context, where signed and here",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_counts_only_outside_of_user_namespaces() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000010000000\n";
        let all = "         0          0 4294967295\n";
        assert!(has_capability(status, all, CAP_LEASE));
        assert!(!has_capability(status, all, CAP_LEASE - 1));
        assert!(!has_capability(status, "         0       1000          1\n", CAP_LEASE));
        assert!(!has_capability("", all, CAP_LEASE));
    }
}
