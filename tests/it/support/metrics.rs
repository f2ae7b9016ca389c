//! A page of metrics, as the daemon tells them and as Prometheus reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(crate) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

/// Asks by hand, in HTTP/1.0, so that the answer comes in one piece and then ends.
pub(crate) fn ask(mut stream: impl Read + Write, target: &str, headers: &str) -> Answer {
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    });
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, kind: kind.unwrap_or_default(), body: body.to_owned() }
}

/// A port of loopback that nobody has, below those that the kernel gives to whoever connects
/// somewhere: it stays free until it is used.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let tries = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take(1_000);
    // Test processes at the same time begin elsewhere.
    let mut ports =
        tries.map(|n| u16::try_from(12_000 + (std::process::id().wrapping_mul(97) + n) % 20_000).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("loopback has a free port")
}

/// A metric as the daemon tells it.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Each with what follows the family's name, its labels, and its value.
    pub(crate) samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Family {
    /// What a sample may be called, after the family's name (OpenMetrics, "Metric Types").
    fn suffixes(&self) -> &'static [&'static str] {
        match self.kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            other => panic!("a type that nobody expects: {other}"),
        }
    }

    /// As people and queries name it.
    pub(crate) fn name(&self, family: &str) -> String {
        if self.kind == "histogram" { family.to_owned() } else { format!("{family}{}", self.suffixes()[0]) }
    }

    pub(crate) fn labels(&self) -> BTreeSet<&str> {
        self.samples.iter().flat_map(|(_, labels, _)| labels.keys().map(String::as_str)).collect()
    }
}

/// What one scrape tells.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) BTreeMap<String, Family>);

impl Page {
    /// Reads OpenMetrics text, and fails where it is none.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut last = String::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let (what, rest) = comment.split_once(' ').unwrap();
                let (name, value) = rest.split_once(' ').unwrap();
                let family = families.entry(name.to_owned()).or_default();
                assert!(family.samples.is_empty(), "told before its samples: {line}");
                match what {
                    "HELP" => value.clone_into(&mut family.help),
                    "TYPE" => {
                        assert!(family.kind.is_empty(), "twice: {line}");
                        value.clone_into(&mut family.kind);
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                    other => panic!("{other} in {line}"),
                }
                name.clone_into(&mut last);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = families.get_mut(&last).unwrap();
            let suffix = name.strip_prefix(&last).unwrap_or_else(|| panic!("{line} is not of {last}"));
            assert!(family.suffixes().contains(&suffix), "a {} called {name}", family.kind);
            let labels: BTreeMap<String, String> = matchers(labels.strip_suffix('}').unwrap())
                .into_iter()
                .map(|(label, _, value)| (label, value))
                .collect();
            let same = |(s, l, _): &&(String, BTreeMap<String, String>, f64)| s == suffix && *l == labels;
            assert!(family.samples.iter().find(same).is_none(), "twice: {line}");
            family.samples.push((suffix.to_owned(), labels, value.parse().unwrap()));
        }
        for (name, family) in &families {
            assert!(!family.kind.is_empty() && !family.help.is_empty(), "{name} without type or help");
        }
        Self(families)
    }

    /// The value of the one sample that has these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let family = |name: &str| self.0.iter().rfind(|(family, _)| name.starts_with(family.as_str()));
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in {:?}", family(name)))
    }

    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is_meant = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| of.get(*label).is_some_and(|is| is == value))
        };
        let samples = self.0.iter().flat_map(|(family, of)| of.samples.iter().map(move |s| (family, s)));
        let mut found = samples
            .filter(|(family, (suffix, of, _))| format!("{family}{suffix}") == name && is_meant(of))
            .map(|(_, (.., value))| *value);
        let value = found.next();
        assert!(found.next().is_none(), "several {name} {labels:?}");
        value
    }

    /// Every name that a query may use, with the labels of its samples.
    pub(crate) fn names(&self) -> BTreeMap<String, BTreeSet<&str>> {
        let all = self.0.iter().flat_map(|(name, family)| {
            family.suffixes().iter().map(move |suffix| (format!("{name}{suffix}"), family.labels()))
        });
        all.collect()
    }
}

/// `label="value"`, with any of the four operators, separated by commas. Values have no escapes
/// here.
pub(crate) fn matchers(text: &str) -> Vec<(String, &'static str, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (head, tail) = rest.split_once('"').unwrap_or_else(|| panic!("no value: {rest}"));
        let (value, tail) = tail.split_once('"').unwrap_or_else(|| panic!("no end: {rest}"));
        let head = head.trim();
        let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| head.ends_with(operator)).unwrap();
        let label = head.strip_suffix(operator).unwrap().trim();
        found.push((label.to_owned(), operator, value.to_owned()));
        rest = tail.trim_start().trim_start_matches(',').trim_start();
    }
    found
}
