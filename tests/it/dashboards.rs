//! The dashboards, held to the form that Grafana imports and to what a running gate shows.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
};

use serde_json::Value;

use crate::{
    alerts::page_of_a_gate_that_has_worked,
    support::promql::promtool,
    tidy::{files, read, root},
};

/// Panels that come with Grafana.
const PANELS: [&str; 4] = ["row", "stat", "timeseries", "heatmap"];

pub fn dashboards() -> Vec<Value> {
    let found = files(&root().join("dashboards"));
    let json = found.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read: Vec<_> = json.map(|path| serde_json::from_str(&read(path)).unwrap()).collect();
    assert!(!read.is_empty());
    read
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {pointer}"))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// The expressions of panels and annotations as they stand there, each with where it stands.
pub fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in list(dashboard, "/panels").iter().filter(|panel| panel["type"] != "row") {
        let targets = list(panel, "/targets");
        assert!(!targets.is_empty(), "{}", text(panel, "/title"));
        found.extend(targets.iter().map(|t| (text(panel, "/title").to_owned(), text(t, "/expr").to_owned())));
    }
    let annotations = list(dashboard, "/annotations/list").iter().filter(|annotation| annotation["builtIn"] != 1);
    found.extend(annotations.map(|a| (text(a, "/name").to_owned(), text(a, "/expr").to_owned())));
    found
}

/// What the variables offer: `label_values(series, label)`, as the label of the series.
fn offers(dashboard: &Value) -> Vec<String> {
    let variables = list(dashboard, "/templating/list").iter().filter(|variable| variable["type"] == "query");
    let offers: Vec<_> = variables
        .map(|variable| {
            let query = text(variable, "/query/query");
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect(query);
            let (series, label) = inner.rsplit_once(',').expect(query);
            format!("sum by ({}) ({series})", label.trim())
        })
        .collect();
    assert!(!offers.is_empty());
    offers
}

#[tokio::test]
async fn every_figure_and_label_that_a_dashboard_names_is_shown_by_a_gate_that_has_worked() {
    let page = page_of_a_gate_that_has_worked().await;
    for dashboard in dashboards() {
        let offers = offers(&dashboard).into_iter().map(|offer| ("a variable".to_owned(), offer));
        for (place, expression) in expressions(&dashboard).into_iter().chain(offers) {
            let missing = page.missing(&expression);
            assert!(missing.is_empty(), "{place} names what no gate shows: {missing:?}");
        }
    }
}

#[test]
fn a_dashboard_can_be_imported_wherever_there_is_a_prometheus() {
    for dashboard in dashboards() {
        assert!(dashboard["id"].is_null(), "Grafana gives the number");
        assert!(!text(&dashboard, "/uid").is_empty() && !text(&dashboard, "/title").is_empty());
        assert!(dashboard["schemaVersion"].as_u64() >= Some(40), "an old form");
        let variables = list(&dashboard, "/templating/list");
        let source =
            variables.iter().find(|variable| variable["name"] == "datasource").expect("a choice of the source");
        assert_eq!((text(source, "/type"), text(source, "/query")), ("datasource", "prometheus"));
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard, "/panels") {
            let title = text(panel, "/title");
            assert!(ids.insert(panel["id"].as_u64().expect(title)), "{title} has the number of another");
            assert!(PANELS.contains(&text(panel, "/type")), "{title}: {} may not be installed", panel["type"]);
            if panel["type"] == "row" {
                continue;
            }
            names.insert(title);
            assert!(text(panel, "/description").ends_with('.'), "{title} does not say what it shows");
            let unit = if panel["type"] == "heatmap" { "/options/yAxis/unit" } else { "/fieldConfig/defaults/unit" };
            assert!(!text(panel, unit).is_empty(), "{title}");
            let sources = list(panel, "/targets").iter().map(|target| text(target, "/datasource/uid"));
            assert!(sources.chain([text(panel, "/datasource/uid")]).all(|uid| uid == "${datasource}"), "{title}");
            let refs: BTreeSet<_> = list(panel, "/targets").iter().map(|target| text(target, "/refId")).collect();
            assert_eq!(refs.len(), list(panel, "/targets").len(), "{title}");
        }
        assert!(names.len() > 20, "{names:?}");
    }
}

#[test]
fn the_panels_of_a_dashboard_lie_side_by_side_and_not_on_each_other() {
    for dashboard in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard, "/panels") {
            let side = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
            assert!(side("x") + side("w") <= 24, "{} is beyond the edge", panel["title"]);
            for place in
                (side("y")..side("y") + side("h")).flat_map(|y| (side("x")..side("x") + side("w")).map(move |x| (x, y)))
            {
                assert!(taken.insert(place), "{} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn promtool_can_read_every_expression_of_a_dashboard() {
    let Some(mut check) = promtool() else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: the expressions of dashboards, for `promtool` is not installed");
        return;
    };
    let dashboards = dashboards();
    let expressions = dashboards.iter().flat_map(expressions);
    // JSON is YAML, and a rule may be named by anything.
    let rules = expressions.enumerate().map(|(number, (_, expression))| {
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        serde_json::json!({ "record": format!("expression:{number}"), "expr": expression })
    });
    let rules = serde_json::json!({ "groups": [{ "name": "dashboards", "rules": rules.collect::<Vec<_>>() }] });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules.to_string()).unwrap();
    let out = check.args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
