//! The alert rules and the dashboard of `config/`, taken apart.

use serde_json::Value;

pub(crate) const ALERTS: &str = include_str!("../../../config/alerts.yml");
pub(crate) const DASHBOARD: &str = include_str!("../../../config/grafana.json");

/// Each alert's name and its part of the file, without comments.
pub(crate) fn alerts() -> Vec<(&'static str, String)> {
    let parts = ALERTS.split("- alert: ").skip(1);
    let without_comments = |part: &str| -> String {
        part.lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    parts.map(|part| (part.lines().next().unwrap(), without_comments(part))).collect()
}

/// The panels of the dashboard, rows left out.
pub(crate) fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// The queries of the dashboard, each with its title and legend.
pub(crate) fn queries() -> Vec<(String, String, String)> {
    let of = |panel: &Value| -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().unwrap();
        let each =
            |target: &Value| (text(&panel["title"]), text(&target["expr"]), text(&target["legendFormat"]));
        targets.iter().map(each).collect()
    };
    panels().iter().flat_map(of).collect()
}
