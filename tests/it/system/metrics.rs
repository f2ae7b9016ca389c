//! Metrics, alerts and dashboard as Prometheus itself takes them: its checker, its tests of rules,
//! and a server that scrapes the daemon.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::support::metrics::{PLAIN, ask, free_port};
use crate::support::monitoring::{alerts, queries};
use crate::support::observed_daemon::observed_daemon;
use crate::support::wait::PATIENCE;

const INSTALL: &str = "it comes with Debian's package prometheus: apt-get install prometheus";

/// A file of the sources.
fn source(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs `promtool`, which must find nothing to say against it.
#[track_caller]
fn promtool(arguments: &[&str], stdin: Stdio) -> Output {
    let output = Command::new("promtool").args(arguments).stdin(stdin).output();
    let output = output.unwrap_or_else(|error| panic!("promtool cannot be run: {error}; {INSTALL}"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{out}\n{err}", output.status);
    output
}

#[test]
fn promtool_finds_no_fault_with_the_alert_rules() {
    let output = promtool(&["check", "rules", source("config/alerts.yml").to_str().unwrap()], Stdio::null());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("SUCCESS: {} rules found", alerts().len())), "{said}");
}

#[test]
fn promtool_shows_each_alert_to_fire_and_not_to() {
    for entry in fs::read_dir(source("tests/alerts")).unwrap() {
        promtool(&["test", "rules", entry.unwrap().path().to_str().unwrap()], Stdio::null());
    }
}

#[test]
fn promtool_finds_no_fault_with_what_the_daemon_tells() {
    let observed = observed_daemon();
    let answer = observed.over_loopback("/metrics", "Accept: text/plain\r\n");
    assert_eq!(answer.kind, PLAIN);
    observed.place.write("metrics", answer.body);
    let output = promtool(&["check", "metrics"], File::open(observed.place.path("metrics")).unwrap().into());
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8(said).unwrap(), "", "it lints");
}

/// A Prometheus server. Ends when dropped.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Starts one that asks the daemon at this port every second, and knows the alert rules.
    fn start(dir: &Path, daemon: u16) -> Self {
        let port = free_port();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs: [{{job_name: kms-sig, static_configs: [{{targets: [\"127.0.0.1:{daemon}\"]}}]}}]\n",
            source("config/alerts.yml")
        );
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus cannot be run: {error}; {INSTALL}"));
        Self { child, port }
    }

    /// What its API answers, if it answers.
    fn get(&self, target: &str) -> Option<Value> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        serde_json::from_str(&ask(stream, target, "").body).ok()
    }

    /// What a query comes to; fails if Prometheus calls it wrong.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        let answer = answer.unwrap_or_else(|| panic!("no answer to {query}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Waits until something is so.
    #[track_caller]
    fn until<T>(&self, what: &str, dir: &Path, look: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "never {what}; its log is\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(50)); // between looks, not in place of one
        }
    }
}

#[test]
fn prometheus_takes_what_the_daemon_tells_and_answers_every_question_about_it() {
    let observed = observed_daemon();
    let dir = observed.place.path("prometheus");
    let prometheus = Prometheus::start(&dir, observed.port);
    prometheus.until("up", &dir, || {
        let targets = prometheus.get("/api/v1/targets")?;
        let target = targets["data"]["activeTargets"].as_array()?.first()?.clone();
        assert_eq!(target["lastError"], "", "it refuses what the daemon tells");
        (target["health"] == "up").then_some(())
    });
    let up = prometheus.until("asked", &dir, || prometheus.query("up{job=\"kms-sig\"}").into_iter().next());
    assert_eq!(up["value"][1], "1");
    let instance = format!("127.0.0.1:{}", observed.port);
    let files = prometheus.until("stored", &dir, || {
        let query =
            format!("kms_sig_files_total{{instance=\"{instance}\",rule=\"verify\",outcome=\"quarantined\"}}");
        prometheus.query(&query).into_iter().next()
    });
    assert_eq!(files["value"][1], "1");
    // What it makes of the types: metadata is there for every metric.
    let metadata = prometheus.get("/api/v1/metadata?metric=kms_sig_kms_call_duration_seconds").unwrap();
    assert_eq!(metadata["data"]["kms_sig_kms_call_duration_seconds"][0]["type"], "histogram");

    let rules = prometheus.until("evaluated", &dir, || {
        let rules = prometheus.get("/api/v1/rules?type=alert")?;
        let rules = rules["data"]["groups"].as_array()?.first()?["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    assert_eq!(rules.len(), alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        prometheus.query(rule["query"].as_str().unwrap());
    }
    // What is always there is: those queries do come to something, with what an alert needs to say.
    for (query, labels) in [
        ("kms_sig_stuck_files > 0", vec!["rule", "cause", "instance"]),
        ("kms_sig_kms_circuit_open == 0", vec!["key", "operation", "instance"]),
        ("kms_sig_rule_state{state=\"watched\"} == 1", vec!["rule", "state", "instance"]),
    ] {
        let found = prometheus.query(query);
        assert!(!found.is_empty(), "{query}");
        for label in labels {
            assert!(found.iter().all(|series| series["metric"][label].is_string()), "{query}: {label}");
        }
    }
    // An alert that is on its way says what it should.
    let alert = prometheus.until("pending", &dir, || {
        let alerts = prometheus.get("/api/v1/alerts")?;
        let alerts = alerts["data"]["alerts"].as_array()?.clone();
        alerts.into_iter().find(|alert| alert["labels"]["alertname"] == "KmsSigRuleBlocked")
    });
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert_eq!(summary, format!("1 files of rule away on {instance} are held: access-denied"));

    for (title, query, _) in queries() {
        let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$rule", ".*");
        // "$1" is what label_replace found, and no variable of the dashboard.
        assert!(!query.replace("\"$1\"", "").contains('$'), "{title}: {query}");
        prometheus.query(&query);
    }
}
