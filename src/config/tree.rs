//! A TOML text as a tree of values that know the line they stand on.

use std::{collections::BTreeMap, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A table; its keys in alphabetical order.
pub type Table = BTreeMap<String, Node>;

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Counted from 1.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// What TOML can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// A number as it was written, where it is no such whole number.
    Number(String),
    /// A truth value.
    Bool(bool),
    /// A date or a time.
    Date(String),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// What a text cannot be read for.
pub struct SyntaxError {
    /// Where.
    pub line: Option<usize>,
    /// Why.
    pub message: String,
}

/// Reads as much as can be read, and says what could not.
pub fn parse(text: &str) -> (Table, Vec<SyntaxError>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .into_iter()
        .map(|error| SyntaxError {
            line: error.span().map(|span| lines.at(span.start)),
            message: error.message().replace('\n', ", "),
        })
        .collect();
    (lines.table(table.get_ref()), errors)
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }

    /// A key stands for its value, so that a table of several lines is found where it begins.
    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let line = self.at(key.span().start);
                (key.get_ref().to_string(), Node { line, value: self.value(value) })
            })
            .collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Number(number.to_string()),
            },
            DeValue::Float(number) => Value::Number(number.to_string()),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => Value::List(
                items.iter().map(|item| Node { line: self.at(item.span().start), value: self.value(item) }).collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        }
    }
}

impl Node {
    /// Everything that it says, secrets too, and nothing of where: the same bytes for the same values.
    pub fn tell_all(&self, bytes: &mut Vec<u8>) {
        let mut part = |kind: u8, text: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&text.len().to_be_bytes());
            bytes.extend_from_slice(text);
        };
        match &self.value {
            Value::Text(text) => part(b't', text.as_bytes()),
            Value::Integer(number) => part(b'i', &number.to_be_bytes()),
            Value::Number(text) => part(b'n', text.as_bytes()),
            Value::Bool(truth) => part(b'b', &[u8::from(*truth)]),
            Value::Date(text) => part(b'd', text.as_bytes()),
            Value::List(items) => {
                part(b'[', &items.len().to_be_bytes());
                items.iter().for_each(|item| item.tell_all(bytes));
            }
            Value::Table(table) => {
                part(b'{', &table.len().to_be_bytes());
                for (key, node) in table {
                    bytes.extend_from_slice(&key.len().to_be_bytes());
                    bytes.extend_from_slice(key.as_bytes());
                    node.tell_all(bytes);
                }
            }
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The table, if it is one.
    #[must_use]
    pub const fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// What sort of value it is, in words for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a text",
            Value::Integer(_) | Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Node {
    /// As TOML in one line; a key called `value` holds a secret and is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Number(text) | Value::Date(text) => f.write_str(text),
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Table(table) => {
                f.write_str("{")?;
                for (i, (key, node)) in table.iter().enumerate() {
                    f.write_str(if i == 0 { " " } else { ", " })?;
                    if key == "value" { write!(f, "value = \"***\"")? } else { write!(f, "{key} = {node}")? }
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let (table, errors) = parse("a = 1\n\n[b]\nc = [\n  'x',\n  'y',\n]\n[[d]]\ne = 0x10\n[[d]]\nf = 1.5\n");
        assert!(errors.is_empty());
        assert_eq!(table["a"].line, 1);
        let c = &table["b"].as_table().unwrap()["c"];
        assert_eq!((c.line, c.to_string()), (4, r#"["x", "y"]"#.to_owned()));
        let Value::List(d) = &table["d"].value else { panic!("{:?}", table["d"]) };
        assert_eq!(d[0].as_table().unwrap()["e"], Node { line: 9, value: Value::Integer(16) });
        assert_eq!((d[1].line, d[1].as_table().unwrap()["f"].line), (10, 11));
    }

    #[test]
    fn several_errors_are_all_told() {
        let (table, errors) = parse("a = \nb = 2\nc = 'open\nd = 4\n");
        assert_eq!(table["b"].value, Value::Integer(2));
        let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [Some(1), Some(3)]);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let (table, _) = parse("secrets = [{ value = 'hush', kind = 'hmac' }]");
        assert_eq!(table["secrets"].to_string(), r#"[{ kind = "hmac", value = "***" }]"#);
    }
}
