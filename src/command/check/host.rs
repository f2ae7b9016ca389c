//! What a policy needs of this host's kernel, and what it has.

use std::fmt::Display;

use rustix::process::{Resource, getrlimit};

use crate::diagnose::inspect::{Finding, copies_waiting};
use crate::policy::Policy;

/// Where the kernel shows its limits of inotify (inotify(7), "/proc interfaces").
const INOTIFY: &str = "/proc/sys/fs/inotify";

/// Events in a queue below which a burst of files is likely to overflow it. The kernel's default is
/// 16,384.
const FEW_EVENTS: u64 = 4096;

/// Descriptors that a daemon has open in any case, with a margin.
const BASE_DESCRIPTORS: u64 = 64;
/// Descriptors for a rule's directories, watcher and lock.
const RULE_DESCRIPTORS: u64 = 8;
/// Descriptors of a file in hand, at worst: its directory, its copy, its signature's copy and their
/// directories, and what is opened for a moment; with a margin.
const FILE_DESCRIPTORS: u64 = 10;
/// Descriptors of a file that waits for its batch to be signed, of a rule that delivers: its copy
/// and that one's directory.
const WAITING_DESCRIPTORS: u64 = 2;

/// What a policy needs of inotify.
#[derive(Debug, Clone, Copy)]
struct Needs {
    watches: u64,
    instances: u64,
}

/// What the kernel allows a user. `None`: it does not say.
#[derive(Debug, Clone, Copy)]
struct Limits {
    watches: Option<u64>,
    instances: Option<u64>,
    events: Option<u64>,
}

/// Inspects the host. `directories` is how many all rules together watch.
pub(super) fn inspect(policy: &Policy, directories: usize) -> Vec<Finding> {
    let rules = policy.rules.len() as u64;
    // Each rule's watcher has one more watch, by which it proves that it hears.
    let needs = Needs { watches: directories as u64 + rules, instances: rules };
    let limits = Limits {
        watches: limit("max_user_watches"),
        instances: limit("max_user_instances"),
        events: limit("max_queued_events"),
    };
    let mut findings = inotify(needs, limits);
    findings.push(descriptors(policy, getrlimit(Resource::Nofile).maximum));
    findings
}

fn limit(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("{INOTIFY}/{name}")).ok()?.trim().parse().ok()
}

fn inotify(needs: Needs, limits: Limits) -> Vec<Finding> {
    let enough = |what: &str, name: &str, need: u64, limit: Option<u64>| match limit {
        None => untold(name),
        Some(limit) if limit < need => Finding::fix(
            "inotify",
            format!(
                "the policy needs {need} {what}, and {name} is {limit}: what is not watched is scanned often"
            ),
            sysctl(name, (need * 2).next_power_of_two()),
        ),
        Some(limit) => Finding::fine(
            "inotify",
            format!("{need} of {limit} {what} ({name}, which all programs of the user share)"),
        ),
    };
    let events = match limits.events {
        None => untold("max_queued_events"),
        Some(events) if events < FEW_EVENTS => Finding::note(
            "inotify",
            format!("max_queued_events is {events}: a burst of files overflows it, and causes a scan"),
            sysctl("max_queued_events", 16_384),
        ),
        Some(events) => {
            Finding::fine("inotify", format!("{events} events can be queued (max_queued_events)"))
        }
    };
    vec![
        enough("watches", "max_user_watches", needs.watches, limits.watches),
        enough("instances", "max_user_instances", needs.instances, limits.instances),
        events,
    ]
}

fn untold(name: &str) -> Finding {
    Finding::unknown(
        "inotify",
        format!("{name} cannot be told: {INOTIFY} is hidden"),
        "run this outside of a unit with ProcSubset=pid, and where /proc is mounted",
    )
}

fn sysctl(name: &str, value: impl Display) -> String {
    format!(
        "write \"fs.inotify.{name} = {value}\" to /etc/sysctl.d/60-kms-sig.conf, then run sysctl --system"
    )
}

/// `limit` is the hard one, which the daemon uses; `None` is no limit.
fn descriptors(policy: &Policy, limit: Option<u64>) -> Finding {
    let in_hand = policy.limits.in_hand() as u64;
    let waiting = |rule| copies_waiting(rule, limit) * WAITING_DESCRIPTORS;
    let of_rules =
        policy.rules.iter().map(|rule| RULE_DESCRIPTORS + in_hand * FILE_DESCRIPTORS + waiting(rule));
    let worst = BASE_DESCRIPTORS + of_rules.sum::<u64>();
    match limit {
        Some(limit) if limit < worst => Finding::note(
            "descriptors",
            format!(
                "{limit} files may be open at the same time, and at worst the daemon has {worst} open; what finds \
                 none free is held and tried again"
            ),
            format!("raise it (LimitNOFILE={} in the unit)", worst.next_power_of_two()),
        ),
        Some(limit) => Finding::fine("descriptors", format!("at worst {worst} of {limit} open files")),
        None => Finding::fine("descriptors", "any number of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::inspect::Level;

    #[test]
    fn limits_that_do_not_suffice_are_told_with_the_line_to_write() {
        let needs = Needs { watches: 10_000, instances: 3 };
        let limits = Limits { watches: Some(9_999), instances: Some(3), events: Some(100) };
        let found = inotify(needs, limits);
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fix, Level::Fine, Level::Note]);
        assert_eq!(
            found[0].hint.as_deref(),
            Some(
                "write \"fs.inotify.max_user_watches = 32768\" to /etc/sysctl.d/60-kms-sig.conf, then run sysctl --system"
            )
        );
        let found = inotify(needs, Limits { watches: Some(10_000), instances: Some(2), events: Some(4096) });
        let levels: Vec<_> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fine, Level::Fix, Level::Fine]);
    }

    #[test]
    fn hidden_limits_are_not_taken_for_good_ones() {
        let found = inotify(
            Needs { watches: 1, instances: 1 },
            Limits { watches: None, instances: None, events: None },
        );
        assert!(
            found.iter().all(|finding| finding.level == Level::Unknown && finding.says.contains("hidden"))
        );
    }

    #[test]
    fn files_that_wait_for_their_batch_count_as_open_where_they_are_copied() {
        let temp = tempfile::tempdir().unwrap();
        let worst = |lines: &str, limit| {
            let text = format!(
                "state.dir = \"s\"\n[[watch]]\nname = \"r\"\nmode = \"sign\"\npath = \"in\"\nkey = \
                 \"arn:aws:kms:eu-west-1:111122223333:key/a\"\n{lines}\n"
            );
            let file = temp.path().join("policy.toml");
            std::fs::write(&file, text).unwrap();
            let found = descriptors(&Policy::load(&file).unwrap(), Some(limit));
            let digits = found.says.trim_start_matches("at worst ").split(' ').next().unwrap();
            digits.parse::<u64>().unwrap()
        };
        let (batch, deliver) = ("batch = { window = \"1s\", max_files = 5000 }", "deliver_to = \"out\"");
        let many = 1 << 20;
        assert_eq!(worst(batch, many), worst("", many), "only digests wait");
        assert_eq!(worst(deliver, many), worst("", many));
        let both = format!("{batch}\n{deliver}");
        assert_eq!(worst(&both, many), worst("", many) + 2 * 5000);
        assert_eq!(worst(&both, 1 << 14), worst("", many) + 2 * 1024, "a batch has no more than its share");
    }
}
