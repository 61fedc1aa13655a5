//! A CEL expression of the configuration, compiled once: `when` over a request and its event, `success` over an answer.

use std::fmt;

/// A compiled CEL expression with its source text.
pub struct Expression {
    source: String,
    program: cel::Program,
}

impl Expression {
    /// The text as written in the configuration.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?}, {:?})", self.source, self.program)
    }
}
