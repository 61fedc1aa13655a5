//! README.md and ARCHITECTURE.md, held to the code they speak of.

use std::{collections::BTreeSet, sync::Arc};

use oncegate::{
    callback::Channel,
    provider,
    telemetry::{CONFIRMATIONS, DECISIONS, Exposition, INQUIRIES, JOINED_BY, LOOKUPS, MISSING, Metrics, OUTCOMES},
    time::Timestamp,
};

use crate::tidy::{files, read, rooms, root};

fn paper(name: &str) -> String {
    read(&root().join(name))
}

/// The lines between `<!-- name -->` and `<!-- /name -->`.
fn block<'t>(text: &'t str, name: &str) -> &'t str {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let begin = text.find(&open).unwrap_or_else(|| panic!("no {open}")) + open.len();
    let end = text[begin..].find(&close).unwrap_or_else(|| panic!("no {close}"));
    text[begin..begin + end].trim_matches('\n')
}

/// What stands in the first cell of each row of the tables in `text`, in backticks.
fn first_cells(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_readme_shows_the_providers_as_they_are() {
    assert_eq!(block(&paper("README.md"), "providers"), provider::docs_table().trim_end());
}

#[test]
fn the_readme_tells_every_decision() {
    let told = first_cells(block(&paper("README.md"), "decisions"));
    assert_eq!(told, DECISIONS.map(str::to_owned).into_iter().collect());
}

#[test]
fn the_readme_tells_every_metric() {
    let metrics = Metrics::new();
    // What has labels shows itself when it is first counted.
    metrics.callback_counters(&Arc::from("rule"), "mollie", Channel::Webhook).count(DECISIONS[0]);
    metrics.count_delivery("mollie", OUTCOMES[0]);
    metrics.count_inquiry("mollie", INQUIRIES[0]);
    metrics.count_missing("mollie", MISSING[0]);
    metrics.count_lookup(LOOKUPS[0]);
    metrics.count_confirmation(CONFIRMATIONS[0]);
    metrics.count_joined(JOINED_BY[0]);
    metrics.set_certificate_expiry(&Arc::from("pay.example"), Timestamp::EPOCH);
    let page = metrics.exposed(Exposition::Text);
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let shown: BTreeSet<_> = names.map(|(name, _)| name.to_owned()).collect();
    assert!(shown.len() > 10);
    assert_eq!(first_cells(block(&paper("README.md"), "metrics")), shown);
}

#[test]
fn the_map_of_the_architecture_names_every_room() {
    assert_eq!(first_cells(block(&paper("ARCHITECTURE.md"), "map")), rooms().into_iter().collect());
}

#[test]
fn the_architecture_gives_a_reason_for_every_dependency() {
    let manifest: toml::Table = paper("Cargo.toml").parse().unwrap();
    let sections = ["dependencies", "dev-dependencies"];
    let used: BTreeSet<_> = sections.iter().flat_map(|s| manifest[*s].as_table().unwrap().keys().cloned()).collect();
    assert_eq!(first_cells(block(&paper("ARCHITECTURE.md"), "dependencies")), used);
}

#[test]
fn the_tests_that_the_architecture_names_exist() {
    let code: String = ["src", "tests"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| read(&path))
        .collect();
    let text = paper("ARCHITECTURE.md");
    let rows: Vec<_> = block(&text, "invariants").lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15, "{}", rows.len());
    for row in rows {
        let held = row.rsplit(" | ").next().unwrap();
        let names: Vec<_> = held.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing holds: {row}");
        for name in names {
            let exists = match name.strip_suffix(".rs") {
                Some(_) => root().join(name).is_file(),
                None => ["(", "<"].iter().any(|next| code.contains(&format!("fn {name}{next}"))),
            };
            assert!(exists, "there is no {name}");
        }
    }
}
