//! Sample callbacks of many providers, through `oncegate explain`: what it tells, field by field, is what is expected.
//!
//! They lie beside the project where somebody has put them; without them there is nothing to compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

use oncegate::provider::PROVIDERS;
use serde_json::{Value, json};

use crate::{support::process::oncegate, tidy::root};

fn samples() -> PathBuf {
    root().join("../shared/gateways/samples")
}

/// A configuration with the secrets of a provider's samples.
fn config(name: &str, folder: &Path, expected: &Value) -> String {
    let mut config = format!("log.callbacks = false\n[provider.{name}]\n");
    let values = expected["secrets"].as_object().into_iter().flatten().flat_map(|(_, secret)| {
        let written = |key: &str, kind: &str| Some(format!("{{ value = {}{kind} }}", json!(secret[key].as_str()?)));
        // Two of them have what signs under names of their own.
        let private = written("private_key", "");
        [written("value", ""), private, written("apiv3_key", ", kind = \"api_key\"")].into_iter().flatten()
    });
    let keys = std::fs::read_dir(folder.join("keys")).into_iter().flatten().map(|entry| {
        let path = entry.unwrap().path();
        format!("{{ file = {} }}", json!(path.to_str().unwrap()))
    });
    let secrets: Vec<_> = values.chain(keys).collect();
    let _ = writeln!(config, "secrets = [{}]", secrets.join(", "));
    for key in ["webhook_id", "notification_url"] {
        if let Some(value) = expected["secrets"]["primary"][key].as_str() {
            let _ = writeln!(config, "{key} = {value:?}");
        }
    }
    config
}

/// What is told of each file, line by line; those with one clock in one run.
fn told(name: &str, folder: &Path, expected: &Value) -> BTreeMap<String, Vec<Value>> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), config(name, folder, expected)).unwrap();
    let mut runs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (file, of_file) in expected["files"].as_object().unwrap() {
        let clock = of_file["clock"].as_u64().or(expected["clock"].as_u64()).unwrap_or(1_772_445_602);
        runs.entry(clock).or_default().push(folder.join(file).to_str().unwrap().to_owned());
    }
    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (clock, files) in runs {
        let clock = clock.to_string();
        let mut args = vec!["explain", "--format", "json", "--at", &clock];
        args.extend(files.iter().map(String::as_str));
        let output = oncegate(directory.path(), &args);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let file = Path::new(line["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
            told.entry(file).or_default().push(line);
        }
    }
    told
}

#[test]
fn what_is_told_of_every_sample_is_what_is_expected() {
    if !samples().is_dir() {
        eprintln!("there are no samples beside the project: nothing is compared");
        return;
    }
    let mut differences = Vec::new();
    for provider in PROVIDERS.iter().filter(|provider| provider.name != "generic") {
        let folder = samples().join(provider.name);
        let Ok(expected) = std::fs::read(folder.join("expect.json")) else { continue };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let told = told(provider.name, &folder, &expected);
        let mut differ = |what: String| differences.push(format!("{}/{what}", provider.name));
        for (file, of_file) in expected["files"].as_object().unwrap() {
            let lines = told.get(file).map(Vec::as_slice).unwrap_or_default();
            let events = of_file["events"].as_array().cloned().unwrap_or_else(|| vec![of_file.clone()]);
            if lines.len() != events.len() {
                differ(format!("{file}: {} lines for {} events", lines.len(), events.len()));
            }
            for (line, event) in lines.iter().zip(&events) {
                if line["provider"] != provider.name {
                    differ(format!("{file}: taken for {}'s", line["provider"]));
                }
                for field in ["reference", "event_id", "event_type", "state", "amount", "currency"] {
                    // Of a part of a batch only some fields are noted.
                    if event.get(field).is_some_and(|wanted| *wanted != line[field]) {
                        differ(format!("{file}: {field} is {}, expected {}", line[field], event[field]));
                    }
                }
                let signature = line["signature"].as_str().unwrap();
                let fits = match of_file["signature_valid"].as_bool() {
                    Some(true) => signature == "valid",
                    Some(false) => signature == "invalid",
                    None => matches!(signature, "absent" | "unchecked"),
                };
                if !fits {
                    differ(format!("{file}: the signature is {signature}, expected {}", of_file["signature_valid"]));
                }
            }
        }
        identities(&expected, &told).into_iter().for_each(differ);
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// Two events are the same exactly when their identities are.
fn identities(expected: &Value, told: &BTreeMap<String, Vec<Value>>) -> Vec<String> {
    let identity = |file: &str| told[file][0]["identity"].clone();
    let mut differences = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for group in expected["duplicate_groups"].as_array().unwrap() {
        let files: Vec<_> = group.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        // A forged copy says it is the same, and is refused; what tells nothing of what happened is the same for a while.
        let tells = |file: &&str| {
            let of_file = &expected["files"][file];
            let told =
                ["event_id", "state", "events", "derived_event_key"].iter().any(|field| !of_file[field].is_null());
            of_file["signature_valid"] != false && told
        };
        let told: BTreeSet<_> = files.into_iter().filter(tells).map(|file| identity(file).to_string()).collect();
        if told.len() > 1 {
            differences.push(format!("{group}: one event, {} identities", told.len()));
        }
        if !told.is_disjoint(&seen) && !group[0].as_str().is_some_and(|file| file.contains("batch")) {
            differences.push(format!("{group}: another event has its identity"));
        }
        seen.extend(told);
    }
    differences
}
