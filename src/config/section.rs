//! One section seen through its layers: the user's file over the preset over the sample.

use super::{
    keys,
    report::{Effective, Finding, Origin, Report, Source},
    setting::{Problem, Setting},
    tree::{Node, Table, Value},
};

/// A whole text with its name.
pub struct Document {
    /// Where it comes from.
    pub source: Source,
    /// What stands in it.
    pub root: Table,
}

/// A section of the configuration and the report that reading it fills.
pub struct Section<'a> {
    name: &'static str,
    path: String,
    layers: Vec<(&'a Source, &'a Table)>,
    report: &'a mut Report,
}

impl<'a> Section<'a> {
    /// The section `name` of these documents, the first of which goes before the others.
    pub fn open(name: &'static str, documents: &'a [Document], report: &'a mut Report) -> Self {
        let mut layers = Vec::new();
        for document in documents {
            let Some(node) = document.root.get(name) else { continue };
            match node.as_table() {
                Some(table) => layers.push((&document.source, table)),
                None => report.faults.push(misplaced(&document.source, node, name, &format!("[{name}]"))),
            }
        }
        Self::over(name, name.to_owned(), layers, report)
    }

    /// One table that has no layers under it: a rule, a provider.
    pub fn single(
        name: &'static str,
        path: String,
        source: &'a Source,
        table: &'a Table,
        report: &'a mut Report,
    ) -> Self {
        Self::over(name, path, vec![(source, table)], report)
    }

    /// The keys before the first section.
    pub fn root(documents: &'a [Document], report: &'a mut Report) -> Self {
        let layers = documents.iter().map(|document| (&document.source, &document.root)).collect();
        Self::over("", String::new(), layers, report)
    }

    fn over(name: &'static str, path: String, layers: Vec<(&'a Source, &'a Table)>, report: &'a mut Report) -> Self {
        let mut section = Self { name, path, layers, report };
        section.refuse_unknown_keys();
        section
    }

    /// The value of a key, or its default; the report learns where it came from.
    pub fn get<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.get_with(key, default, T::read)
    }

    /// The value of a key that not every value of its kind will do for, or its default.
    pub fn get_with<T: Setting>(&mut self, key: &str, default: T, read: impl Fn(&Node) -> Result<T, Problem>) -> T {
        self.find_with(key, read).unwrap_or_else(|| {
            self.note(key, default.show(), Origin { source: Source::Sample, line: None });
            default
        })
    }

    /// The value of a key, if it is set.
    pub fn find<T: Setting>(&mut self, key: &str) -> Option<T> {
        self.find_with(key, T::read)
    }

    /// The value of a key, if it is set and `read` can read it; a layer with a fault gives way to the next.
    pub fn find_with<T>(&mut self, key: &str, read: impl Fn(&Node) -> Result<T, Problem>) -> Option<T> {
        debug_assert!(keys::of(self.name).contains(&key), "{}.{key} is not declared", self.name);
        for (source, table) in self.layers.clone() {
            let Some(node) = table.get(key) else { continue };
            let origin = Origin { source: source.clone(), line: Some(node.line) };
            match read(node) {
                Ok(value) => {
                    self.note(key, node.to_string(), origin);
                    return Some(value);
                }
                Err(problem) => {
                    let path = self.path_of(key);
                    self.report.faults.push(finding(origin, path, problem));
                }
            }
        }
        None
    }

    /// A fault at a key.
    pub fn fault(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let (origin, path) = (self.origin(key), self.path_of(key));
        self.report.faults.push(finding(origin, path, Problem::new(message, remedy)));
    }

    /// A warning at a key.
    pub fn warn(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let (origin, path) = (self.origin(key), self.path_of(key));
        self.report.warnings.push(finding(origin, path, Problem::new(message, remedy)));
    }

    /// Where a key stands, or the first key of the section when it stands nowhere.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        let set = self.layers.iter().find_map(|(source, table)| Some((*source, table.get(key)?.line)));
        let first = || {
            let (source, table) = self.layers.first()?;
            Some((*source, table.values().map(|node| node.line).min()?))
        };
        set.or_else(first).map_or(Origin { source: Source::Sample, line: None }, |(source, line)| Origin {
            source: source.clone(),
            line: Some(line),
        })
    }

    /// Whether a key stands anywhere.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.layers.iter().any(|(_, table)| table.contains_key(key))
    }

    /// The path of a key from the root.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn note(&mut self, key: &str, value: String, origin: Origin) {
        let path = self.path_of(key);
        self.report.effective.push(Effective { path, value, origin });
    }

    fn refuse_unknown_keys(&mut self) {
        let known = keys::of(self.name);
        for (source, table) in self.layers.clone() {
            for (key, node) in table.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
                let path = self.path_of(key);
                let origin = Origin { source: source.clone(), line: Some(node.line) };
                self.report.faults.push(finding(origin, path, unknown_key(key, self.name)));
            }
        }
    }
}

/// A wrong key, and the section it belongs to if it was only put in the wrong place.
fn unknown_key(key: &str, section: &str) -> Problem {
    let message = format!("there is no key `{key}` here");
    if let Some(near) = keys::nearest(key, keys::of(section).iter().copied()) {
        return Problem::new(message, format!("did you mean `{near}`?"));
    }
    let home = keys::SECTIONS.iter().find(|s| s.section != section && s.keys.contains(&key));
    let remedy = home.map_or_else(
        || format!("known here: {}", keys::of(section).join(", ")),
        |home| format!("it belongs to [{}]", home.section),
    );
    Problem::new(message, remedy)
}

/// What stands where a table should.
pub fn misplaced(source: &Source, node: &Node, path: &str, form: &str) -> Finding {
    let origin = Origin { source: source.clone(), line: Some(node.line) };
    finding(origin, path.to_owned(), Problem::new(format!("{} stands here", node.kind()), format!("write {form}")))
}

fn finding(origin: Origin, path: String, problem: Problem) -> Finding {
    Finding { origin, path, message: problem.message, remedy: problem.remedy }
}

/// A table of an array of tables.
pub struct Row<'a> {
    /// The text it stands in.
    pub source: &'a Source,
    /// Its path from the root: `rule[2]`; a preset's are told apart from the user's.
    pub path: String,
    /// The table.
    pub table: &'a Table,
}

impl Row<'_> {
    /// Where it begins.
    pub fn origin(&self) -> Origin {
        Origin { source: self.source.clone(), line: self.table.values().map(|node| node.line).min() }
    }
}

/// The tables of an array of tables; anything else is a fault.
pub fn rows<'a>(document: &'a Document, key: &str, report: &mut Report) -> Vec<Row<'a>> {
    let Some(node) = document.root.get(key) else { return Vec::new() };
    let form = format!("[[{key}]]");
    let prefix = if matches!(document.source, Source::Preset(_)) { "preset." } else { "" };
    let Value::List(items) = &node.value else {
        report.faults.push(misplaced(&document.source, node, key, &form));
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{prefix}{key}[{i}]");
        match item.as_table() {
            Some(table) => rows.push(Row { source: &document.source, path, table }),
            None => report.faults.push(misplaced(&document.source, item, &path, &form)),
        }
    }
    rows
}
