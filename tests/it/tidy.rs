//! The customs of the house, read from its own source.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The floor on which nothing is done and everything is decided.
const THOUGHT: &[&str] = &["rule", "provider", "transaction", "expression", "callback"];
/// What would be a hand, a clock or a die on it.
const NOT_THOUGHT: &[&str] = &[
    "tokio",
    "hyper",
    "tracing",
    "dashmap",
    "SystemClock",
    "std::fs",
    "std::env",
    "std::thread",
    "TcpStream",
    "random",
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `folder`, sorted; what is built or hidden is left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') && name != ".ci" || name == "target" {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The files of `src` by their path from there, tests left out on demand.
fn sources(with_tests: bool) -> BTreeMap<String, String> {
    let src = root().join("src");
    let sources: BTreeMap<_, _> = files(&src)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.strip_prefix(&src).unwrap().to_string_lossy().into_owned(), read(&path)))
        .filter(|(name, _)| with_tests || !(name.ends_with("tests.rs") || name.ends_with("conformance.rs")))
        .map(|(name, text)| (name, if with_tests { text } else { code(&text) }))
        .collect();
    assert!(sources.len() > 50, "the house has more files than that: {}", sources.len());
    sources
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let ends = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..ends].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The rooms in the order of the map, from the roof to the ground.
pub fn rooms() -> Vec<String> {
    let map = read(&root().join("src/lib.rs"));
    let rooms: Vec<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(ToOwned::to_owned)
        .collect();
    assert!(rooms.len() > 15, "{rooms:?}");
    rooms
}

fn room_of(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// The first names of all paths that begin at `crate::`, those in braces too.
fn arrows(code: &str) -> Vec<String> {
    let ident = |text: &str| text.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut found = Vec::new();
    for (at, here) in code.match_indices("crate::") {
        let rest = &code[at + here.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(ident(rest));
            continue;
        };
        let (mut depth, mut begin) = (1, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 1 || depth == 0 {
                found.push(ident(&list[begin..at]));
                begin = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    // After the last comma stands nothing.
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn each_file_opens_with_one_sentence() {
    for (file, text) in sources(true) {
        let opening: Vec<_> = text.lines().take_while(|line| line.starts_with("//! ")).map(|line| &line[4..]).collect();
        let opening = opening.join(" ");
        assert!(opening.ends_with('.'), "{file} opens with: {opening}");
        assert!(!opening.contains(". "), "{file} opens with more than one sentence: {opening}");
    }
}

#[test]
fn arrows_between_rooms_run_downward_only() {
    let rooms = rooms();
    let floor = |room: &str| rooms.iter().position(|known| known == room);
    let mut seen = 0;
    for (file, code) in sources(false) {
        let Some(from) = floor(room_of(&file)) else {
            assert!(matches!(&*file, "lib.rs" | "main.rs"), "{file} is in no room of src/lib.rs");
            continue;
        };
        for to in arrows(&code) {
            let Some(to) = floor(&to) else { panic!("{file} points to `{to}`, which is no room") };
            seen += usize::from(from != to);
            assert!(from <= to, "{file} points up, to `{}`: the map in src/lib.rs says otherwise", rooms[to]);
        }
    }
    assert!(seen > 60, "hardly any arrow was found: {seen}");
}

#[test]
fn thought_has_no_clock_no_chance_and_no_hands() {
    let sources = sources(false);
    let thought: Vec<_> = sources.iter().filter(|(file, _)| THOUGHT.contains(&room_of(file))).collect();
    assert!(thought.len() > 15);
    for (file, code) in thought {
        for word in NOT_THOUGHT {
            assert!(!code.contains(word), "{file} speaks of {word}");
        }
    }
}

#[test]
fn the_clock_is_read_in_one_file() {
    let readers: Vec<_> =
        sources(true).into_iter().filter(|(_, text)| code(text).contains("SystemTime::now")).map(|(f, _)| f).collect();
    assert_eq!(readers, ["time.rs"]);
    for (file, text) in sources(true) {
        assert!(!text.contains("std::time::Instant"), "{file}: what waits is measured by tokio's Instant");
    }
}

#[test]
fn nothing_speaks_of_the_machine_it_was_written_on() {
    let machines = ["work", "farm", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    for path in files(root()) {
        // What is no text names no path either.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for machine in &machines {
            assert!(!text.contains(machine.as_str()), "{} speaks of {machine}", path.display());
        }
    }
}

#[test]
fn arrows_are_found_wherever_they_stand() {
    let code = "use crate::time::Clock;\nuse crate::{\n    a::{b, c::{d}},\n    e,\n};\nlet x = crate::f::g();";
    assert_eq!(arrows(code), ["time", "a", "e", "f"].map(String::from).to_vec());
}
