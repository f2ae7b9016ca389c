//! Metrics in the OpenMetrics text format (github.com/prometheus/OpenMetrics), made of the status
//! when somebody asks.
//!
//! Nothing is counted here, and nothing is kept between two scrapes. Names of rules and keys are
//! labels; names of files are not, for senders choose them. `config/alerts.yml` and
//! `config/grafana.json` use these names; a test keeps them together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::report::NOT_TURNING;
use crate::clock;
use crate::daemon::kms_metrics::{BOUNDS_MS, Calls};
use crate::daemon::status::{Cause, Figures, Plan, Reading, Root, Status};
use crate::daemon::waits;
use crate::key::{KeyArn, KeyId, Provider};
use crate::kms::Operation;
use crate::kms::throttle::{Quota, QuotaPlace, RateNow};
use crate::log_queue;
use crate::policy::{Mode, Rule};
use crate::state::Outcome;
use crate::state::reason::RefusalReason;

/// The format: its content type.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older one of Prometheus, for who takes that alone.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a rule's directory may be found to be, as the label `state`.
const ROOTS: [&str; 4] = ["opening", "watched", "scanned", "held"];

/// For how long a call that was throttled counts as of late: longer than what is between two
/// scrapes.
const OF_LATE: Duration = Duration::from_secs(60);

/// All metrics, now, with their content type. `accept` is what who asks would take (RFC 9110,
/// section 12.5.1).
///
/// # Errors
/// None that can be brought about from outside.
pub(super) fn text(status: &Arc<Status>, accept: &str) -> Result<(&'static str, String), fmt::Error> {
    let mut registry = Registry::with_prefix("kms_sig");
    registry.register_collector(Box::new(Scrape(Arc::clone(status))));
    let mut text = String::new();
    if accept.contains("text/plain") && !accept.contains("application/openmetrics-text") {
        prometheus_text::encode(&mut text, &registry)?;
        return Ok((PLAIN, text));
    }
    text::encode(&mut text, &registry)?;
    Ok((OPENMETRICS, text))
}

/// The status as a collector.
#[derive(Debug)]
struct Scrape(Arc<Status>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page(encoder);
        let (status, reading) = (&*self.0, self.0.read());
        of_daemon(&mut page, status, &reading)?;
        of_rules(&mut page, status, &reading)?;
        of_kms(&mut page, status, &reading)
    }
}

/// The text under way.
struct Page<'a>(DescriptorEncoder<'a>);

/// A figure with the labels that say whose it is.
type Labelled<const N: usize, T> = ([(&'static str, String); N], T);

impl Page<'_> {
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = Labelled<N, f64>>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = Labelled<N, f64>>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn of_daemon(page: &mut Page<'_>, status: &Status, reading: &Reading) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.0.encode_descriptor("build", "The program", None, MetricType::Info)?.encode_info(&version)?;
    page.gauges(
        "start_time",
        "When the daemon started, since the epoch",
        Some(Unit::Seconds),
        [([], status.started.as_secs_f64())],
    )?;
    let plan = reading.plan.as_deref();
    let generation = plan.map_or(0, |plan| plan.generation);
    page.gauges(
        "policy_generation",
        "Which policy is in force since the start, from 1",
        None,
        [([], float(generation))],
    )?;
    let refused = truth(reading.life.refused.is_some());
    page.gauges("policy_reload_refused", "1 if the last reload was refused", None, [([], refused)])?;
    page.counters(
        "log_lines_dropped",
        "Log lines that nobody took in time, or that could not be written",
        None,
        [([], float(log_queue::dropped()))],
    )?;
    page.gauges(
        "silent_loops",
        "Loops of the daemon that have not turned for ten seconds: of rules, or of state",
        None,
        [([], count(status.watchdog.silent(NOT_TURNING).len()))],
    )
}

fn of_rules(page: &mut Page<'_>, status: &Status, reading: &Reading) -> fmt::Result {
    let rules = &reading.rules;
    let each = |of: &dyn Fn(&Figures) -> f64| -> Vec<Labelled<1, f64>> {
        rules.iter().map(|(rule, figures)| ([("rule", rule.clone())], of(figures))).collect()
    };
    let outcomes = rules.iter().flat_map(|(rule, figures)| {
        Outcome::ended().map(|word| {
            let n = figures.outcomes.get(word).copied().unwrap_or_default();
            ([("rule", rule.clone()), ("outcome", word.to_owned())], float(n))
        })
    });
    page.counters("files", "Files dealt with, by outcome", None, outcomes)?;
    let by_cause = |counts: &dyn Fn(&Figures) -> BTreeMap<&'static str, f64>| -> Vec<Labelled<2, f64>> {
        let of = |(rule, figures): (&String, &Figures)| {
            let labels = |cause: &str| [("rule", rule.clone()), ("cause", cause.to_owned())];
            counts(figures).into_iter().map(move |(cause, n)| (labels(cause), n)).collect::<Vec<_>>()
        };
        rules.iter().flat_map(of).collect()
    };
    let holds = by_cause(&|figures| figures.holds.iter().map(|(cause, n)| (*cause, float(*n))).collect());
    page.counters("holds", "Tries that ended in a hold, by cause", None, holds)?;
    // A cause that was, and is no more, is zero and not absent.
    let once_held = |figures: &Figures| -> BTreeMap<&'static str, f64> {
        figures.holds.keys().map(|cause| (*cause, 0.0)).collect()
    };
    let now_waiting = |figures: &Figures, which: &dyn Fn(&Cause) -> bool| {
        let causes = figures.now.causes.iter().filter(|(_, of)| which(of));
        causes.map(|(cause, of)| (*cause, count(of.count))).collect::<BTreeMap<_, _>>()
    };
    let all_waiting = |figures: &Figures| {
        let mut all: BTreeMap<_, _> = waits().map(|cause| (cause, 0.0)).collect();
        all.extend(once_held(figures));
        all.extend(now_waiting(figures, &|_| true));
        all
    };
    page.gauges(
        "waiting_files",
        "Files in memory that something is still to be done about, by what they wait for; those held included",
        None,
        by_cause(&all_waiting),
    )?;
    let held = |figures: &Figures| {
        let mut held = once_held(figures);
        held.extend(now_waiting(figures, &|of| of.is_held));
        held
    };
    page.gauges("held_files", "Files that are held now, by cause", None, by_cause(&held))?;
    let stuck = |figures: &Figures| {
        let mut stuck: BTreeMap<_, _> = all_waiting(figures).into_keys().map(|cause| (cause, 0.0)).collect();
        stuck.extend(now_waiting(figures, &|of| of.needs_operator));
        stuck
    };
    page.gauges(
        "stuck_files",
        "Files that wait for what only a person can end, by cause",
        None,
        by_cause(&stuck),
    )?;
    let refused = rules.iter().flat_map(|(rule, figures)| {
        RefusalReason::CODES.map(|code| {
            let n = figures.now.refused.get(code).map_or(0, |of| of.count);
            ([("rule", rule.clone()), ("reason", code.to_owned())], count(n))
        })
    });
    page.gauges("refused_files", "Files that are refused as they are, by reason", None, refused)?;
    page.gauges(
        "running_attempts",
        "Attempts that are running now",
        None,
        each(&|f| count(f.now.running_attempts)),
    )?;
    page.gauges(
        "more_waiting",
        "1 if more files lie in the directory than there is room for in memory",
        None,
        each(&|f| truth(f.now.more)),
    )?;
    let wall = clock::since_epoch();
    let age = |figures: &Figures| {
        let oldest = figures.now.oldest.as_ref();
        oldest.map_or(0.0, |oldest| wall.saturating_sub(oldest.since).as_secs_f64())
    };
    page.gauges(
        "oldest_unhandled",
        "How long the file that waits longest has been there; 0 if none waits",
        Some(Unit::Seconds),
        each(&age),
    )?;
    page.counters("hashed", "Bytes of files hashed", Some(Unit::Bytes), each(&|f| float(f.hashed)))?;
    page.counters(
        "watcher_rebuilds",
        "Watchers built anew, because events were lost or no longer came",
        None,
        each(&|f| float(f.rebuilds)),
    )?;
    page.counters("scans", "Scans of the directory", None, each(&|f| float(f.scans)))?;
    page.counters("scan", "How long scans took", Some(Unit::Seconds), each(&|f| f.scanning.as_secs_f64()))?;
    page.gauges(
        "last_scan_duration",
        "How long the last scan took",
        Some(Unit::Seconds),
        each(&|f| f.now.last_scan_took.as_secs_f64()),
    )?;
    let now = status.clock.now();
    let ago =
        |figures: &Figures| figures.now.last_scan.map_or(f64::NAN, |at| now.saturating_sub(at).as_secs_f64());
    page.gauges(
        "last_scan_age",
        "How long ago the last scan ended; NaN before the first",
        Some(Unit::Seconds),
        each(&ago),
    )?;
    page.gauges("brake", "1 if the mass-failure brake is on", None, each(&|f| truth(f.now.braked)))?;
    let roots = rules.iter().flat_map(|(rule, figures)| {
        let is = figures.now.root.as_str();
        ROOTS.map(|state| ([("rule", rule.clone()), ("state", state.to_owned())], truth(state == is)))
    });
    page.gauges(
        "rule_state",
        "1 for how it stands with the rule's directory, 0 for the others",
        None,
        roots,
    )?;
    page.gauges(
        "no_events",
        "1 if events should arrive from the rule's directory and do not",
        None,
        each(&|f| truth(matches!(&f.now.root, Root::Scanned(why) if why.is_a_fault()))),
    )
}

fn of_kms(page: &mut Page<'_>, status: &Status, reading: &Reading) -> fmt::Result {
    let kms_metrics = &status.kms_metrics;
    page.gauges(
        "kms_calls_in_flight",
        "Calls of KMS under way",
        None,
        [([], count(kms_metrics.in_flight()))],
    )?;
    let (rates, now) = (kms_metrics.rates(), status.clock.now());
    let of_quotas = |figure: &dyn Fn(&RateNow) -> f64| -> Vec<_> {
        rates.iter().map(|(quota, rate)| (quota_labels(quota), figure(rate))).collect()
    };
    page.gauges(
        "kms_rate_limit",
        "Calls of KMS that may start in a second; rises while it limits, and falls while KMS throttles",
        None,
        of_quotas(&|rate| rate.per_second),
    )?;
    page.gauges(
        "kms_rate_limit_ceiling",
        "The most calls of KMS that will ever start in a second",
        None,
        of_quotas(&|rate| rate.ceiling),
    )?;
    let is_throttled =
        |rate: &RateNow| rate.last_throttled.is_some_and(|at| now.saturating_sub(at) < OF_LATE);
    page.gauges(
        "kms_throttled",
        "1 if KMS throttled a call within the last minute",
        None,
        of_quotas(&|rate| truth(is_throttled(rate))),
    )?;
    let of_policy = reading.plan.as_deref().map(circuits).unwrap_or_default();
    let silent: BTreeSet<_> = reading.silent_keys.keys().cloned().collect();
    let circuits = of_policy.union(&silent).map(|circuit| {
        let (key, operation) = circuit;
        let labels = [("key", key.clone()), ("operation", operation.as_str().to_owned())];
        (labels, truth(silent.contains(circuit)))
    });
    page.gauges(
        "kms_circuit_open",
        "1 for a key of the policy under which KMS does not answer, so that it is only probed; 0 for the others",
        None,
        circuits,
    )?;
    let help = "How long calls of KMS took, by operation and result";
    let mut metric =
        page.0.encode_descriptor("kms_call_duration", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for ((operation, result), calls) in kms_metrics.calls() {
        let labels = [("operation", operation.as_str().to_owned()), ("result", result.to_owned())];
        let buckets = buckets(&calls);
        metric.encode_family(&labels)?.encode_histogram::<[(&str, &str); 0]>(
            calls.time.as_secs_f64(),
            calls.count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}

/// Which quota a figure is of.
fn quota_labels(quota: &Quota) -> [(&'static str, String); 3] {
    let place =
        quota.place.clone().unwrap_or_else(|| QuotaPlace { account: String::new(), region: String::new() });
    [("account", place.account), ("region", place.region), ("keys", quota.class.as_str().to_owned())]
}

/// What the policy may have KMS do, by key. Local keys have no circuit.
fn circuits(plan: &Plan) -> BTreeSet<(String, Operation)> {
    let of_rule = |rule: &Arc<Rule>| -> Vec<(KeyId, Operation)> {
        match &rule.mode {
            // Decrypt tells whose the signature beside a file is.
            Mode::Sign(sign) => {
                [Operation::Encrypt, Operation::Decrypt].map(|operation| (sign.key.clone(), operation)).into()
            }
            Mode::Verify(verify) => {
                let keys = verify.trusted_keys.iter().map(KeyArn::to_key_id);
                keys.map(|key| (key, Operation::Decrypt)).collect()
            }
        }
    };
    let seal = plan.policy.record.seal.as_ref().map(|seal| (seal.key.clone(), Operation::Encrypt));
    let all = plan.policy.rules.iter().flat_map(of_rule).chain(seal);
    let of_kms = all.filter(|(key, _)| key.provider() == Provider::Aws);
    of_kms.map(|(key, operation)| (key.as_str().to_owned(), operation)).collect()
}

/// The classes of a histogram, each with its upper bound in seconds; the last has none.
fn buckets(calls: &Calls) -> Vec<(f64, u64)> {
    let bounds = BOUNDS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64());
    bounds.chain([f64::INFINITY]).zip(calls.classes).collect()
}

const fn truth(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "figures above 2^53 are told to sixteen digits")]
const fn float(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    float(n as u64)
}
