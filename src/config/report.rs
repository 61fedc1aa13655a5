//! What reading a configuration found: faults, warnings, and where each value came from.

use std::{fmt, sync::Arc};

/// A text that settings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user's file.
    File(Arc<str>),
    /// A preset that comes with the gate.
    Preset(&'static str),
    /// The sample, which is the default.
    Sample,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In which text.
    pub source: Source,
    /// On which line, if that is known.
    pub line: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(name) => f.write_str(name)?,
            Source::Preset(name) => write!(f, "preset {name}")?,
            Source::Sample => return f.write_str("default"),
        }
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Something that a person should know about the configuration, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub origin: Origin,
    /// The key, as a path from the root: `rule[2].hold`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// A value in force and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key, as a path from the root.
    pub path: String,
    /// The value, as it would be written.
    pub value: String,
    /// Where it stands; the default where it stands nowhere.
    pub origin: Origin,
}

/// Collects what is found.
#[derive(Debug, Default)]
pub struct Report {
    /// What keeps the gate from running.
    pub faults: Vec<Finding>,
    /// What it runs with all the same.
    pub warnings: Vec<Finding>,
    /// Every value in force.
    pub effective: Vec<Effective>,
}
