//! What the program tells the host that runs it: the service manager ([`notify`]), the journal
//! ([`journal`]), and whoever reads its log ([`human`]).
//!
//! [`SystemdNotifier`] reads the daemon's status and says what a service manager wants to know. It
//! changes nothing about the daemon, and where no service manager listens it does nothing.

pub(crate) mod ending;
pub mod environment;
pub mod human;
pub mod journal;
pub(crate) mod notify;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::status::{Phase, Reading, Root, Status};
use crate::escape::Escaped;
use crate::message::log;
use notify::{Notifier, State};

/// The shortest time between two status lines, and before one that could not be sent is sent again.
const PAUSE: Duration = Duration::from_secs(1);
/// The least time that a loop has for its answer: a machine under load is none that hangs.
const LEAST_ALLOWANCE: Duration = Duration::from_secs(2);

/// Tells the service manager how the daemon stands.
#[derive(Debug)]
pub(crate) struct SystemdNotifier {
    notifier: Notifier,
    status: Arc<Status>,
    /// What the service manager knows.
    sent: Sent,
    /// The loops that were found not to answer.
    silent: BTreeSet<String>,
}

/// How the watchdog is fed.
#[derive(Debug, Clone, Copy)]
struct WatchdogPace {
    /// Time between two looks whether every loop turns.
    every: Duration,
    /// How long a loop may owe its answer.
    allowance: Duration,
}

impl WatchdogPace {
    /// For a watchdog with this limit. Four looks in its time, where sd_watchdog_enabled(3) advises
    /// two: after a meal that was left out there are two more chances before the end, and none of
    /// them on the very last moment.
    fn within(limit: Duration) -> Self {
        Self { every: limit / 4, allowance: (limit / 2).max(LEAST_ALLOWANCE) }
    }
}

#[derive(Debug, Default)]
struct Sent {
    ready: bool,
    reloads: u64,
    /// It was notified of the last reload, and not yet of its end.
    reloading: bool,
    stopping: bool,
    status: String,
}

impl SystemdNotifier {
    /// One that has said nothing yet.
    pub(crate) fn new(notifier: Notifier, status: Arc<Status>) -> Self {
        Self { notifier, status, sent: Sent::default(), silent: BTreeSet::new() }
    }

    /// Says what changes, and feeds the watchdog for as long as every loop of the daemon turns. At
    /// rest it wakes up for the watchdog alone.
    pub(crate) async fn run(&mut self) -> Infallible {
        if !self.notifier.is_listened_to() {
            return std::future::pending().await;
        }
        let clock = self.status.clock;
        let (mut life, mut changes) = (self.status.life(), self.status.changes());
        let watchdog_pace = self.notifier.watchdog().map(WatchdogPace::within);
        let mut next_keepalive: Option<Moment> = watchdog_pace.map(|_| clock.now());
        let mut next_status = clock.now();
        loop {
            life.mark_unchanged();
            let mut all_sent = self.send_phase();
            let now = clock.now();
            if now >= next_status {
                changes.mark_unchanged();
                all_sent &= self.send_status();
                next_status = now + PAUSE;
            }
            if let (Some(at), Some(watchdog_pace)) = (&mut next_keepalive, watchdog_pace)
                && now >= *at
            {
                self.keep_alive(watchdog_pace.allowance);
                *at = now + watchdog_pace.every;
            }
            let may_speak = clock.now() >= next_status;
            let is_due = !all_sent || changes.has_changed().unwrap_or_default();
            let speak = (is_due && !may_speak).then_some(next_status);
            let wake = [speak, next_keepalive].into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = life.changed() => {}
                Ok(()) = changes.changed(), if speak.is_none() => {}
                () = sleep => {}
            }
        }
    }

    /// Says what has not been said yet of starting, reloading and ending.
    pub(crate) fn send_phase(&mut self) -> bool {
        let reading = self.status.read();
        let (life, sent) = (&reading.life, &mut self.sent);
        if life.phase == Phase::Stopping {
            if !sent.stopping {
                sent.stopping =
                    self.notifier.send(&[State::Stopping, State::Status("finishing the files in hand")]);
            }
            return sent.stopping;
        }
        // A reload while it starts is part of the start.
        if sent.ready && sent.reloads < life.reloads {
            let is_sent = self.notifier.send(&[
                State::Reloading { asked: life.reload_asked },
                State::Status("reading the policy anew"),
            ]);
            if !is_sent {
                return false;
            }
            sent.reloads = life.reloads;
            sent.reloading = true;
        }
        if life.phase == Phase::Ready && (!sent.ready || sent.reloading) {
            let status = status_line(&reading);
            if !self.notifier.send(&[State::Ready, State::Status(&status)]) {
                return false;
            }
            *sent = Sent { ready: true, reloads: life.reloads, status, ..Sent::default() };
        }
        true
    }

    fn send_status(&mut self) -> bool {
        let reading = self.status.read();
        let status = match reading.life.phase {
            Phase::Starting => "starting".to_owned(),
            Phase::Ready => status_line(&reading),
            Phase::Reloading | Phase::Stopping => return true, // said with the change
        };
        if status != self.sent.status {
            if !self.notifier.send(&[State::Status(&status)]) {
                return false;
            }
            self.sent.status = status;
        }
        true
    }

    /// Feeds the watchdog if every loop has answered the last question or still has time to, and
    /// asks the next.
    fn keep_alive(&mut self, allowance: Duration) {
        let silent = self.status.watchdog.silent(allowance);
        for one in silent.iter().filter(|one| !self.silent.contains(&one.name)) {
            let part = &one.name;
            if one.at_disk {
                log!(FileSystemUnresponsive, part);
            } else {
                log!(LoopUnresponsive, part);
            }
        }
        let names: BTreeSet<String> = silent.iter().map(|one| one.name.clone()).collect();
        for part in self.silent.difference(&names) {
            log!(LoopResponsive, part);
        }
        self.silent = names;
        if silent.iter().all(|one| one.at_disk) {
            self.notifier.send(&[State::Watchdog]); // the next one is never far
        }
        self.status.watchdog.ask();
    }
}

/// How it stands, on one line for people.
fn status_line(reading: &Reading) -> String {
    let mut parts = vec![match reading.rules.len() {
        1 => "1 rule".to_owned(),
        n => format!("{n} rules"),
    }];
    let sum =
        |count: &dyn Fn(&crate::daemon::status::Figures) -> u64| reading.rules.values().map(count).sum();
    for outcome in ["signed", "adopted", "valid", "delivered", "invalid", "quarantined", "refused"] {
        let n: u64 = sum(&|rule| rule.outcomes.get(outcome).copied().unwrap_or_default());
        if n > 0 {
            parts.push(format!("{n} {outcome}"));
        }
    }
    let mut holds = std::collections::BTreeMap::new();
    let causes = reading.rules.values().flat_map(|rule| &rule.now.causes);
    for (cause, held) in causes.filter(|(_, cause)| cause.is_held) {
        *holds.entry(*cause).or_insert(0) += held.count;
    }
    if !holds.is_empty() {
        let causes: Vec<_> = holds.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
        parts.push(format!("{} held ({})", holds.values().sum::<usize>(), causes.join(", ")));
    }
    let named = |is: &dyn Fn(&Root) -> bool| {
        let rules = reading.rules.iter().filter(|(_, rule)| is(&rule.now.root));
        rules.map(|(name, _)| Escaped::text(name).to_string()).collect::<Vec<_>>().join(" ")
    };
    for (word, rules) in [
        ("cannot work: ", named(&|root| matches!(root, Root::Held(_)))),
        ("waits for its directory: ", named(&|root| *root == Root::Opening)),
    ] {
        if !rules.is_empty() {
            parts.push(format!("{word}{rules}"));
        }
    }
    let keys: BTreeSet<_> = reading.silent_keys.keys().map(|(key, _)| key).collect();
    match keys.len() {
        0 => {}
        1 => parts.push("KMS does not answer under 1 key".to_owned()),
        n => parts.push(format!("KMS does not answer under {n} keys")),
    }
    if let Some(why) = &reading.life.refused {
        parts.push(format!("the last reload was refused: {}", Escaped::text(why)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::{Cause, Now};
    use crate::kms::throttle::Observer;
    use crate::kms::{Operation, Trouble, TroubleKind};
    use crate::state::Outcome;

    #[test]
    fn o4_a_loop_that_turns_again_is_in_time_for_the_watchdog() {
        for limit in [5, 30, 300].map(Duration::from_secs) {
            let WatchdogPace { every, allowance } = WatchdogPace::within(limit);
            assert!(allowance >= limit / 2, "a loop under load has half the time");
            assert!(every * 3 < limit, "one meal left out leaves two chances before the limit");
        }
    }

    #[test]
    fn the_status_line_tells_what_an_operator_asks_first() {
        let status = Status::default();
        status.set_rules(["incoming", "gone"].into_iter());
        assert_eq!(status_line(&status.read()), "2 rules; waits for its directory: gone incoming");
        (0..3).for_each(|_| status.rule("incoming").count(Outcome::Delivered));
        let cause = |count, is_held| Cause {
            count,
            is_held,
            since: Duration::ZERO,
            reason: String::new(),
            hint: String::new(),
            needs_operator: false,
            next_attempt: None,
        };
        status.rule("incoming").show(Now {
            root: Root::Watched,
            causes: [
                ("network", cause(2, true)),
                ("conflict", cause(1, true)),
                ("being-written", cause(5, false)),
            ]
            .into(),
            ..Now::default()
        });
        status.rule("gone").show(Now { root: Root::Held("no such directory".into()), ..Now::default() });
        status.key_fell_silent(
            &"local:key".parse().unwrap(),
            Operation::Decrypt,
            &Trouble::new(TroubleKind::Network, ""),
        );
        status.reload_refused("two\nfaults".into());
        assert_eq!(
            status_line(&status.read()),
            "2 rules; 3 delivered; 3 held (1 conflict, 2 network); cannot work: gone; \
             KMS does not answer under 1 key; the last reload was refused: two\\x0afaults"
        );
    }
}
