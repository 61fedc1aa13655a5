//! The gate reads what Node and Python read: the same bytes through the `strict` dialect and through both of them.
//!
//! Goal: the gate never takes one text for another, and never finds nothing where they find something. Method: the requests
//! of `dialect.rs`, and paths, go to one process a language, whose script prints what its usual readers find. Where the gate
//! says *ambiguous*, they may say anything. What is left are the exceptions, each with its reason and met at least once;
//! none of them takes two payments for one, or one for two. `SEED` in the environment chooses other requests.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use oncegate::{
    provider::extract::{Dialect, Found, Place},
    rule::path::{NormalPath, Template},
};
use serde_json::{Value, json};

use crate::dialect::{Case, Chance, GENERATED, PLACES, agree, by_hand, gate, hex, seed, show};
use crate::tidy::root;

/// Where a reader and the gate may differ, and why that does no harm.
struct Exception {
    readers: &'static [&'static str],
    place: &'static str,
    differ: fn(&Found<'_>, told: &str) -> bool,
    reason: &'static str,
}

const EXCEPTIONS: &[Exception] = &[
    Exception {
        readers: &["Python"],
        place: "json:",
        differ: |found, told| match found {
            Found::One(text) => (text == "true" && told == TRUE) || (text == "false" && told == FALSE),
            _ => false,
        },
        reason: "`true` is `True` as a text: the same two values by other words, and no name of a payment",
    },
    Exception {
        readers: &["Python"],
        place: "cookie:",
        differ: |found, told| matches!((found, told), (Found::One(_), "absent" | "failed")),
        reason: "one odd cookie, and it reads none of the whole line: what it never reads, it never takes for another",
    },
    Exception {
        readers: &["Node", "Python"],
        place: "path:",
        differ: |found, told| *found == Found::Absent && [".", ".."].iter().any(|dots| told == scalar(dots)),
        reason: "a segment of dots is a step and no value; a router that takes it for one has a name that no payment has",
    },
];

/// What stands in recorded callbacks, beside what stands in those that are made up.
const RECORDED: &[(&str, &str)] = &[
    ("json:$.type", r#"["json",["type"]]"#),
    ("json:$.data.id", r#"["json",["data","id"]]"#),
    ("json:$.data.object.id", r#"["json",["data","object","id"]]"#),
    ("json:$.events[0].id", r#"["json",["events",0,"id"]]"#),
    ("json:$.orderId", r#"["json",["orderId"]]"#),
    ("json:$.order.orderId", r#"["json",["order","orderId"]]"#),
    ("json:$.event.data.code", r#"["json",["event","data","code"]]"#),
    ("json:$.transaction_id", r#"["json",["transaction_id"]]"#),
    ("form:trade_no", r#"["form","trade_no"]"#),
    ("form:pf_payment_id", r#"["form","pf_payment_id"]"#),
    ("form:queryId", r#"["form","queryId"]"#),
    ("form:bt_payload", r#"["form","bt_payload"]"#),
    ("query:AccessCode", r#"["query","AccessCode"]"#),
    ("query:data.id", r#"["query","data.id"]"#),
    ("query:txid", r#"["query","txid"]"#),
];

fn asked_for() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    PLACES.iter().chain(RECORDED)
}

/// The fixtures of all providers.
fn collected() -> Vec<Case> {
    let folders = fs::read_dir(root().join("tests/fixtures")).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    paths.sort();
    let case = |path: &PathBuf| {
        let raw = fs::read(path).unwrap();
        let head = raw.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let text = std::str::from_utf8(&raw[..head]).unwrap();
        let (line, fields) = text.split_once("\r\n").unwrap();
        let content_type = fields.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
        });
        let target = line.split(' ').nth(1).unwrap();
        Case {
            get: line.starts_with("GET"),
            query: target.split_once('?').map_or_else(String::new, |(_, query)| query.to_owned()),
            content_type: content_type.unwrap_or_default(),
            cookie: String::new(),
            body: raw[head + 4..].to_vec(),
        }
    };
    let cases: Vec<_> = paths.iter().map(case).collect();
    assert!(cases.len() > 250, "{} fixtures", cases.len());
    cases
}

const TRUE: &str = "scalar 54727565";
const FALSE: &str = "scalar 46616c7365";

fn scalar(text: &str) -> String {
    format!("scalar {}", hex(text.as_bytes()))
}

#[test]
fn the_gate_reads_what_node_and_python_read() {
    let mut chance = Chance::new(seed());
    let generated = (0..2 * GENERATED).map(|_| chance.case());
    let cases: Vec<Case> = by_hand().into_iter().chain(collected()).chain(generated).collect();
    let paths = paths(&mut chance);
    let places: Vec<Place> = asked_for().map(|(place, _)| place.parse().unwrap()).collect();
    let found: Vec<_> = cases.iter().map(|case| gate(case, &places, Dialect::Strict)).collect();
    let mut met = BTreeSet::new();
    let mut asked = 0;
    for (reader, program, args) in [
        ("Node", "node", ["--input-type=module", "-e", include_str!("dialect.mjs")]),
        ("Python", "python3", ["-I", "-c", include_str!("dialect.py")]),
    ] {
        let Some(told) = ask(program, &args, &cases, &paths) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: what {reader} reads, for `{program}` is not installed");
            continue;
        };
        asked += 1;
        assert_eq!(told.len(), cases.len() + paths.len(), "{reader}");
        let mut read = 0;
        let mut differences = Vec::new();
        let mut compare = |place: &str, found: &Found<'_>, told: &str, asked: &dyn Fn() -> String| {
            let known = |known: &&Exception| {
                known.readers.contains(&reader) && place.starts_with(known.place) && (known.differ)(found, told)
            };
            match EXCEPTIONS.iter().find(known) {
                _ if agrees(found, told) => {}
                Some(known) => drop(met.insert(known.reason)),
                None => differences.push(format!("{place}: {found:?}, {reader} {told}\n{}", asked())),
            }
        };
        for ((case, found), told) in cases.iter().zip(&found).zip(&told) {
            for (((place, _), found), told) in asked_for().zip(found).zip(told) {
                read += usize::from(matches!(found, Found::One(_)) && !told.is_empty());
                told.iter().for_each(|told| compare(place, found, told, &|| show(case)));
            }
        }
        for (path, told) in paths.iter().zip(&told[cases.len()..]) {
            compare("path:id", &routed(path), &told[0][0], &|| path.clone());
        }
        let shown = differences.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(differences.is_empty(), "seed {}, {} differences:\n{shown}", seed(), differences.len());
        assert!(read > 500, "{reader}: only {read} values were read");
    }
    if asked == 2 {
        let stale = EXCEPTIONS.iter().find(|known| !met.contains(known.reason));
        assert!(stale.is_none(), "no longer met: {}", stale.map_or("", |known| known.reason));
    }
}

/// Who fails has read nothing, and what is empty names nothing.
fn agrees(found: &Found<'_>, told: &str) -> bool {
    match found {
        Found::Absent => told == "failed" || agree(found, told),
        Found::Empty => matches!(told, "failed" | "absent") || agree(found, told),
        _ => agree(found, told),
    }
}

/// What a program prints of all cases and paths: readers' words, place by place.
fn ask(program: &str, args: &[&str], cases: &[Case], paths: &[String]) -> Option<Vec<Vec<Vec<String>>>> {
    let spawned = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.ok()?;
    let case = |case: &Case| json!({ "query": case.query, "type": case.content_type, "cookie": case.cookie, "body": hex(&case.body) });
    let places: Vec<Value> = asked_for().map(|(_, ask)| serde_json::from_str(ask).unwrap()).collect();
    let question = json!({ "places": places, "cases": cases.iter().map(case).collect::<Vec<_>>(), "paths": paths });
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(question.to_string().as_bytes()));
    let out = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(out.status.success(), "{program} failed");
    Some(String::from_utf8(out.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// What the gate reads from a path.
fn routed(path: &str) -> Found<'static> {
    let template = Template::parse("/hook/{id}", Dialect::Strict).unwrap();
    match template.values(&NormalPath::new(path)) {
        Some(values) => Found::One(values[0].1.clone().into()),
        None => Found::Absent,
    }
}

fn paths(chance: &mut Chance) -> Vec<String> {
    let pieces =
        ["a", "tr_1", "%41", "%2e", "%7E", "%20", "+", "%C3%A9", "-", ".", "%25", "%2B", "%3d", "~", "@", "%c3%a9"];
    let path = |chance: &mut Chance| {
        let pieces: String = (0..=chance.below(4)).map(|_| chance.one(&pieces)).collect();
        format!("/hook/{pieces}")
    };
    (0..300).map(|_| path(chance)).chain(["/hook", "/hook/", "/other/a", "/Hook/a"].map(str::to_owned)).collect()
}
