//! Metrics: what the daemon tells, over its socket and over loopback, and that alerts, dashboard
//! and documentation speak of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::metrics::{OPENMETRICS, PLAIN, Page, matchers};
use crate::support::monitoring::{DASHBOARD, alerts, panels, queries};
use crate::support::observed_daemon::{KEY, observed_daemon};
use crate::support::policy::set_policy;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Labels that Prometheus gives by itself.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

#[test]
fn metrics_are_served_over_the_socket_and_loopback_in_the_requested_format() {
    let observed = observed_daemon();
    let answer = observed.over_socket();
    assert_eq!((answer.status, answer.kind.as_str()), (200, OPENMETRICS));
    let over_socket = Page::parse(&answer.body);
    let answer = observed.over_loopback("/metrics", "");
    assert_eq!((answer.status, answer.kind.as_str()), (200, OPENMETRICS));
    assert_eq!(Page::parse(&answer.body).names(), over_socket.names());
    // As Prometheus asks, and as who knows only the older format.
    let prometheus =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5\r\n";
    assert_eq!(observed.over_loopback("/metrics", prometheus).kind, OPENMETRICS);
    let answer = observed.over_loopback("/metrics", "Accept: text/plain\r\n");
    assert_eq!((answer.status, answer.kind.as_str()), (200, PLAIN));
    assert!(!answer.body.contains("# EOF") && answer.body.contains("# TYPE kms_sig_files_total counter\n"));
    // What else there is at the socket is not for everybody on this host.
    for target in ["/status", "/backlog", "/events"] {
        assert_eq!(observed.over_loopback(target, "").status, 404, "{target}");
    }
    assert_eq!(observed.daemon.stop().code(), Some(0));
}

#[test]
fn metrics_count_what_happened() {
    let observed = observed_daemon();
    // A first scan that is still under way has no end yet.
    let has_scanned = || observed.page().value("kms_sig_scans_total", &[("rule", "sign")]) >= 1.0;
    observed.daemon.until("scanned", || {
        has_scanned() && observed.page().value("kms_sig_last_scan_age_seconds", &[("rule", "sign")]) >= 0.0
    });
    let page = observed.page();
    for (rule, outcome) in [("sign", "signed"), ("verify", "delivered"), ("verify", "quarantined")] {
        assert_eq!(page.value("kms_sig_files_total", &[("rule", rule), ("outcome", outcome)]), 1.0);
    }
    assert_eq!(page.value("kms_sig_files_total", &[("rule", "sign"), ("outcome", "invalid")]), 0.0);
    assert_eq!(page.value("kms_sig_hashed_bytes_total", &[("rule", "sign")]), 7.0);
    assert!(page.value("kms_sig_hashed_bytes_total", &[("rule", "verify")]) >= 15.0);
    for (state, is) in [("watched", 1.0), ("scanned", 0.0), ("held", 0.0), ("opening", 0.0)] {
        assert_eq!(page.value("kms_sig_rule_state", &[("rule", "verify"), ("state", state)]), is);
    }
    for name in
        ["kms_sig_oldest_unhandled_seconds", "kms_sig_brake", "kms_sig_no_events", "kms_sig_more_waiting"]
    {
        assert_eq!(page.value(name, &[("rule", "sign")]), 0.0, "{name}");
    }
    assert!(page.value("kms_sig_scans_total", &[("rule", "sign")]) >= 1.0);
    assert!(page.value("kms_sig_last_scan_age_seconds", &[("rule", "sign")]) >= 0.0);
    assert_eq!(page.value("kms_sig_policy_generation", &[]), 1.0);
    assert_eq!(page.value("kms_sig_policy_reload_refused", &[]), 0.0);
    assert_eq!(page.value("kms_sig_silent_loops", &[]), 0.0);
    assert_eq!(page.value("kms_sig_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    // A restart would change it, and nothing else does.
    let start = page.value("kms_sig_start_time_seconds", &[]);
    assert_eq!(observed.page().value("kms_sig_start_time_seconds", &[]), start);
    set_policy(&observed.place, "zzzzzz = 1");
    observed.daemon.hang_up();
    observed.daemon.waits_for("reload refused; the old policy stays");
    observed
        .daemon
        .until("the refusal is told", || observed.now().value("kms_sig_policy_reload_refused", &[]) == 1.0);
}

#[test]
fn metrics_tell_what_kms_answers_and_what_is_held_for_it() {
    let observed = observed_daemon();
    let page = observed.page();
    let held = [("rule", "away"), ("cause", "access-denied")];
    for name in ["kms_sig_held_files", "kms_sig_stuck_files", "kms_sig_waiting_files"] {
        assert_eq!(page.value(name, &held), 1.0, "{name}");
    }
    assert!(page.value("kms_sig_holds_total", &held) >= 1.0);
    assert!(page.value("kms_sig_oldest_unhandled_seconds", &[("rule", "away")]) > 0.0);
    // Every key of the policy has its circuit, from the start.
    for operation in ["Encrypt", "Decrypt"] {
        assert_eq!(page.value("kms_sig_kms_circuit_open", &[("key", KEY), ("operation", operation)]), 0.0);
    }
    let quota = [("account", "111122223333"), ("region", "eu-west-1"), ("keys", "symmetric")];
    assert_eq!(page.value("kms_sig_kms_rate_limit", &quota), 100.0);
    assert_eq!(page.value("kms_sig_kms_rate_limit_ceiling", &quota), 1000.0);
    assert_eq!(page.value("kms_sig_kms_throttled", &quota), 0.0);
    let denied = [("operation", "Encrypt"), ("result", "access-denied")];
    let count = page.value("kms_sig_kms_call_duration_seconds_count", &denied);
    assert!(count >= 1.0);
    let bucket =
        |le| page.value("kms_sig_kms_call_duration_seconds_bucket", &[&denied[..], &[("le", le)]].concat());
    assert_eq!(bucket("+Inf"), count);
    assert!(bucket("0.005") <= bucket("20.0"), "they add up");
    // Over and done with, and still there: an alert on it ends.
    fs::remove_file(observed.place.path("away/f")).unwrap();
    observed.daemon.until("it is no longer held", || {
        let page = observed.now();
        ["kms_sig_held_files", "kms_sig_stuck_files", "kms_sig_waiting_files"]
            .iter()
            .all(|name| page.value(name, &held) == 0.0)
    });
}

/// What a text asks of one metric.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    name: String,
    matchers: Vec<(String, &'static str, String)>,
}

/// The metrics that a text names, and the other labels: those of `by`, `without`, `on` and
/// `ignoring`, of `$labels` in alerts and of legends.
fn uses(text: &str) -> (Vec<Use>, BTreeSet<String>) {
    let mut found = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for (at, _) in text.match_indices("kms_sig_") {
        assert!(!text[..at].ends_with(is_name), "in the middle of a word: {}", &text[at..]);
        let (name, rest) = text[at..].split_at(text[at..].find(|c| !is_name(c)).unwrap_or(text.len() - at));
        let inner = rest.strip_prefix('{').map(|rest| rest.split_once('}').unwrap().0);
        found.push(Use { name: name.to_owned(), matchers: matchers(inner.unwrap_or_default()) });
    }
    let mut labels = BTreeSet::new();
    for word in [" by (", " without (", " on (", " ignoring ("] {
        for rest in text.split(word).skip(1) {
            let inner = rest.split_once(')').unwrap().0;
            labels.extend(inner.split(',').map(|label| label.trim().to_owned()));
        }
    }
    for (word, close) in [("$labels.", " "), ("{{", "}}")] {
        for rest in text.split(word).skip(1) {
            let label = rest.split(close).next().unwrap().trim();
            if label.chars().all(is_name) {
                labels.insert(label.to_owned());
            }
        }
    }
    labels.remove("end");
    labels.remove("else");
    (found, labels)
}

/// Whatever the sources write in quotation marks: causes, outcomes, states.
fn is_a_word_of_the_program(word: &str) -> bool {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if fs::read_to_string(path).unwrap().contains(&format!("\"{word}\"")) {
            return true;
        }
    }
    false
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_labels_and_values_that_there_are() {
    let page = observed_daemon().page();
    let names = page.names();
    let check = |whose: &str, text: &str, used_labels: &str| {
        let (uses, mut labels) = uses(text);
        labels.extend(self::uses(used_labels).1);
        let mut known: BTreeSet<&str> = OF_PROMETHEUS.into();
        for Use { name, matchers } in uses {
            let of = names.get(&name).unwrap_or_else(|| panic!("{whose}: there is no {name}"));
            known.extend(of);
            for (label, operator, value) in matchers {
                let is_known = of.contains(label.as_str()) || OF_PROMETHEUS.contains(&label.as_str());
                assert!(is_known, "{whose}: {name} has no {label}");
                if value.starts_with('$') || OF_PROMETHEUS.contains(&label.as_str()) {
                    continue;
                }
                let words: Vec<_> =
                    if operator.contains('~') { value.split('|').collect() } else { vec![value.as_str()] };
                for word in words {
                    assert!(is_a_word_of_the_program(word), "{whose}: {label} is never {word:?}");
                }
            }
        }
        for label in labels {
            assert!(known.contains(label.as_str()), "{whose}: none of its metrics has {label}");
        }
    };
    assert!(alerts().len() >= 15);
    for (alert, part) in alerts() {
        check(alert, &part, "");
    }
    assert!(queries().len() >= 25);
    for (title, query, legend) in queries() {
        assert!(query.contains("kms_sig_") || query.contains("up{"), "{title} asks nothing of kms-sig");
        check(&title, &query, &legend);
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            check(variable["name"].as_str().unwrap(), query, "");
        }
    }
}

#[test]
fn alerts_say_how_bad_it_is_and_where_to_go_on() {
    let headings: Vec<&str> =
        OPERATIONS.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_matches(['#', ' '])).collect();
    let names: BTreeSet<&str> = alerts().iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), alerts().len(), "each name once");
    for (alert, part) in alerts() {
        assert!(alert.starts_with("KmsSig"), "{alert}");
        let severity = part.split("severity: ").nth(1).and_then(|rest| rest.lines().next());
        assert!(severity.is_some_and(|word| ["critical", "warning"].contains(&word)), "{alert}");
        let description = part.split("description: >-\n").nth(1).unwrap_or_else(|| panic!("{alert}"));
        let description = description.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(part.contains("summary: "), "{alert}");
        let commands = ["kms-sig status", "kms-sig backlog", "journalctl"];
        assert!(commands.iter().any(|command| description.contains(command)), "{alert}: {description}");
        let chapter =
            description.rsplit_once("docs/operations.md, \"").and_then(|(_, rest)| rest.strip_suffix("\"."));
        let chapter = chapter.unwrap_or_else(|| panic!("{alert} ends nowhere: {description}"));
        assert!(headings.contains(&chapter), "{alert}: docs/operations.md has no {chapter:?}");
    }
}

#[test]
fn every_alert_is_shown_to_fire_and_not_to() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts");
    let files = fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let cases: String = files.collect();
    let is_shown = |alert: &str, fires: bool| {
        let mut lines = cases.lines().skip_while(|line| !line.contains(&format!("alertname=\"{alert}\"")));
        while let Some(line) = lines.next() {
            if line.contains("expr:") && line.contains(&format!("alertname=\"{alert}\"")) {
                let value = lines.find_map(|line| line.trim().strip_prefix("value: ").map(str::to_owned));
                if (value.unwrap() != "0") == fires {
                    return true;
                }
            }
        }
        false
    };
    for (alert, _) in alerts() {
        assert!(is_shown(alert, true), "nothing in tests/alerts shows that {alert} fires");
        assert!(is_shown(alert, false), "nothing in tests/alerts shows that {alert} does not always fire");
    }
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(DASHBOARD.ends_with("}\n") && !DASHBOARD.contains('\t'));
    assert!(dashboard["id"].is_null(), "Grafana gives the number");
    assert_eq!(dashboard["uid"], "kms-sig");
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 38, "of Grafana 10");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["DS_PROMETHEUS", "instance", "rule"]);
    let all = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), all.len(), "each number once");
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            panel["description"].as_str().is_some_and(|text| text.len() > 20),
            "{title} explains nothing"
        );
        assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{title}");
        let references: Vec<_> =
            panel["targets"].as_array().unwrap().iter().map(|t| t["refId"].clone()).collect();
        assert!((1..references.len()).all(|i| !references[..i].contains(&references[i])), "{title}");
    }
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
    for (i, panel) in all.iter().enumerate() {
        let [x, y, w, h] = place(panel);
        assert!(x + w <= 24, "{}", panel["title"]);
        for other in &all[..i] {
            let [ox, oy, ow, oh] = place(other);
            let apart = x >= ox + ow || ox >= x + w || y >= oy + oh || oy >= y + h;
            assert!(apart, "{} lies over {}", panel["title"], other["title"]);
        }
    }
}

#[test]
fn the_documentation_explains_every_metric_with_its_labels_and_no_other() {
    let table = OPERATIONS.split("## Metrics\n").nth(1).unwrap().split("\n#").next().unwrap();
    let explained: BTreeMap<String, BTreeSet<String>> = table
        .lines()
        .filter(|line| line.starts_with("| `kms_sig_"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
            let cells = if let [name, meaning] = cells[..] { vec![name, "", meaning] } else { cells };
            assert!(cells.len() == 3 && cells[2].len() > 10, "{line}");
            let quoted = |cell: &str| -> Vec<String> {
                cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
            };
            (quoted(cells[0]).remove(0), quoted(cells[1]).into_iter().collect())
        })
        .collect();
    let page = observed_daemon().page();
    let exposed: BTreeMap<String, BTreeSet<String>> = page
        .0
        .iter()
        .map(|(name, family)| {
            assert!(!family.samples.is_empty(), "{name} is nowhere to be seen");
            let labels = family.labels().into_iter().filter(|label| *label != "le");
            (family.name(name), labels.map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(explained, exposed);
    let names = page.names();
    for Use { name, .. } in uses(OPERATIONS).0 {
        assert!(exposed.contains_key(&name) || names.contains_key(&name), "docs/operations.md names {name}");
    }
}
