//! A real Prometheus that reads a running gate, our rules, and every expression of the dashboards.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    alerts::{a_gate_that_has_worked, alerts, those},
    dashboards::{dashboards, expressions},
    support::{
        backend,
        curl::is_here,
        office::BRACKETS,
        process::Owned,
        promql::named,
        standing::{connect, mollie},
    },
};

/// A server that has just begun to read.
struct Prometheus {
    address: SocketAddr,
    _server: Owned,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Reads this target five times a second, and our rules as often.
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules: Vec<_> = those(".rules.yml").iter().map(|path| path.to_str().unwrap().to_owned()).collect();
        // JSON is YAML.
        let config = serde_json::json!({
            "global": { "scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms" },
            "rule_files": rules,
            "scrape_configs": [{ "job_name": "oncegate", "static_configs": [{ "targets": [target.to_string()] }] }],
        });
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config.to_string()).unwrap();
        let address = backend::free();
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { address, _server: Owned(server), _folder: folder }
    }

    /// What it says to this, as soon as that is as it should be.
    async fn until(&self, path: &str, is_well: impl Fn(&Value) -> bool) -> Value {
        let mut said = Value::Null;
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                said = self.asked(path).await;
                if is_well(&said) {
                    return said;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path}: {said}");
    }

    async fn asked(&self, path: &str) -> Value {
        let mut wire = connect(self.address).await;
        wire.write(format!("GET /api/v1/{path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)).await;
        serde_json::from_str(&wire.answer().await.1).unwrap_or_default()
    }

    /// What an expression comes to.
    async fn comes_to(&self, expression: &str) -> Vec<Value> {
        let query: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let said = self.asked(&format!("query?query={query}")).await;
        assert_eq!(said["status"], "success", "{expression}: {said}");
        said["data"]["result"].as_array().unwrap_or_else(|| panic!("{expression}: {said}")).clone()
    }
}

#[tokio::test]
async fn a_real_prometheus_reads_the_gate_and_every_rule_and_panel_finds_what_it_names() {
    if !is_here("prometheus", "a real Prometheus") {
        return;
    }
    let (gate, office) = a_gate_that_has_worked().await;
    let _seen = office.answer_all(BRACKETS);
    let prometheus = Prometheus::start(gate.running.admin.unwrap());
    let targets = prometheus.until("targets", |said| said["data"]["activeTargets"][0]["health"] == "up").await;
    assert_eq!(targets["data"]["activeTargets"][0]["lastError"], "", "{targets}");
    // Something goes on while it is read, so that there are rates.
    for number in 0..20 {
        gate.ask(mollie(&format!("tr_more{number}"))).await.is_brackets();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let loaded = |said: &Value| -> Vec<Value> {
        said["data"]["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect()
    };
    let evaluated = |said: &Value| {
        let rules = loaded(said);
        rules.len() == alerts().len() && rules.iter().all(|rule| rule["health"] == "ok")
    };
    prometheus.until("rules", evaluated).await;
    for expression in alerts().iter().map(|alert| alert["expr"].clone()) {
        for selector in named(&expression).selectors {
            let found = prometheus.comes_to(&selector.name).await;
            assert!(!found.is_empty(), "{} of {expression}", selector.name);
        }
    }
    for dashboard in dashboards() {
        for (title, expression) in expressions(&dashboard) {
            prometheus.comes_to(&filled(&expression)).await;
            // What shows only what has happened is asked for what could have.
            let could = filled(expression.split(" > 0").next().unwrap());
            assert!(!prometheus.comes_to(&could).await.is_empty(), "{title} shows nothing: {could}");
        }
    }
}

/// An expression as Grafana sends it, with everything chosen.
fn filled(expression: &str) -> String {
    let plain = expression.replace("$__rate_interval", "5s").replace("$__range", "1m");
    let mut parts = plain.split('$');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |all, part| {
        let name = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        all + ".*" + &part[name..]
    })
}
