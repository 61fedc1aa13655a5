//! Every parser of foreign bytes, with changed seeds and the laws that the fuzz targets assert (`fuzz/`). Each run tries some
//! hundreds; `PROPTEST_CASES=100000 cargo nextest run doors` tries more, and `./test.sh --fuzz` lets libFuzzer look for them.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;

use proptest::test_runner::{Config, TestRunner};

use crate::{fuzz::changed, tidy::root};

/// Lets some changed seeds through this door, after each as it is.
fn tries(name: &str) {
    let door = fuzz::door(name);
    let seeds = (door.seeds)();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| (door.try_it)(seed));
    let usual = Config::default();
    // A whole configuration takes its time.
    let few = if name == "configuration" { 300 } else { 1500 };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { few };
    let config = Config { cases, failure_persistence: None, ..usual };
    TestRunner::new(config)
        .run(&changed(seeds), |bytes| {
            (door.try_it)(&bytes);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn every_door_has_its_target_and_its_test() {
    let text = std::fs::read_to_string(root().join("tests/it/doors.rs")).unwrap();
    let targets = std::fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
    let targets: BTreeSet<_> =
        targets.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let doors: BTreeSet<_> = fuzz::DOORS.iter().map(|door| door.name.to_owned()).collect();
    assert_eq!(targets, doors);
    for door in doors {
        assert!(text.contains(&format!("tries(\"{door}\")")), "{door}");
    }
}

#[test]
fn whatever_a_callback_says_it_is_read_in_one_way_and_nothing_signed_is_made_up() {
    tries("callback");
}

#[test]
fn whatever_stands_in_a_place_is_one_text_or_none_and_to_both_dialects_the_same() {
    tries("place");
}

#[test]
fn whatever_comes_under_the_preset_has_the_same_keys_each_time() {
    tries("reading");
}

#[test]
fn whatever_a_provider_answers_is_about_the_payment_that_was_asked_for() {
    tries("answer");
}

#[test]
fn whatever_a_proxy_says_first_ends_at_one_byte() {
    tries("proxy");
}

#[test]
fn whoever_the_client_is_said_to_be_an_app_reads_the_same_from_us() {
    tries("forwarded");
}

#[test]
fn whatever_is_read_as_a_record_is_written_as_the_same() {
    tries("record");
}

#[test]
fn whatever_is_configured_runs_or_says_why_not() {
    tries("configuration");
}

#[test]
fn whatever_the_app_answers_ends_at_one_byte_in_whatever_pieces_it_comes() {
    tries("apps_answer");
}

#[test]
fn whatever_an_answer_teaches_is_of_a_kind_that_was_asked_for_and_comes_back_as_it_was_given() {
    tries("learned");
}

#[test]
fn whatever_was_recorded_is_read_as_it_stands_or_refused_with_a_reason() {
    tries("recording");
}
