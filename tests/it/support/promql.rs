//! What a `PromQL` expression names: figures, the labels it asks for, the labels it keeps; and what a gate shows of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// Labels that Prometheus itself puts on what it reads.
const SCRAPED: [&str; 2] = ["job", "instance"];
/// Figures of Prometheus itself.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Words before a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Other words that are no figure.
const WORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];

/// A figure with what it is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

/// What stands in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub selectors: Vec<Selector>,
    /// Labels in lists: `by (…)` and the like.
    pub kept: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

/// Takes an expression apart. It need not be sound: that is for promtool to say.
pub fn named(expression: &str) -> Named {
    let tokens = tokens(expression);
    let mut named = Named::default();
    let mut at = 0;
    let is = |at: usize, sign: &str| tokens.get(at) == Some(&Token::Sign(sign.to_owned()));
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        at += 1;
        let aggregates = matches!(tokens.get(at), Some(Token::Word(next)) if matches!(&**next, "by" | "without"));
        if LISTS.contains(&&**word) {
            while is(at, "(") || is(at, ",") || matches!(tokens.get(at), Some(Token::Word(_))) {
                if let Token::Word(label) = &tokens[at] {
                    // A word behind the list is the next figure.
                    if is(at - 1, ")") || !is(at - 1, "(") && !is(at - 1, ",") {
                        break;
                    }
                    named.kept.push(label.clone());
                }
                at += 1;
            }
        } else if !is(at, "(") && !aggregates && !WORDS.contains(&&**word) {
            let mut matchers = Vec::new();
            if is(at, "{") {
                at += 1;
                while !is(at, "}") {
                    if let (Token::Word(label), Token::Sign(sign), Token::Text(value)) =
                        (&tokens[at], &tokens[at + 1], &tokens[at + 2])
                    {
                        matchers.push((label.clone(), sign.clone(), value.clone()));
                        at += 3;
                    } else {
                        at += 1;
                    }
                }
            }
            named.selectors.push(Selector { name: word.clone(), matchers });
        }
    }
    named
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = |taken: fn(char) -> bool| rest.find(|c| !taken(c)).unwrap_or(rest.len());
        let end = match first {
            'a'..='z' | 'A'..='Z' | '_' => length(|c| c.is_alphanumeric() || c == '_' || c == ':'),
            // Numbers and times name nothing, nor does what stands in brackets.
            '0'..='9' | '.' => length(|c| c.is_alphanumeric() || c == '.'),
            '[' => rest.find(']').expect("a bracket that is closed") + 1,
            '"' => rest[1..].find('"').expect("a text that ends") + 2,
            '=' | '!' | '<' | '>' => length(|c| "=!<>~".contains(c)),
            _ => first.len_utf8(),
        };
        let text = &rest[..end];
        match first {
            'a'..='z' | 'A'..='Z' | '_' => tokens.push(Token::Word(text.to_owned())),
            '"' => tokens.push(Token::Text(text[1..end - 1].to_owned())),
            '0'..='9' | '.' | '[' => {}
            _ => tokens.push(Token::Sign(text.to_owned())),
        }
        rest = rest[end..].trim_start();
    }
    tokens
}

/// A page of figures, each series with its labels.
pub struct Page(Vec<(String, BTreeMap<String, String>)>);

impl Page {
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
            let (series, _value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| {
                let (label, value) = pair.split_once("=\"").unwrap();
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), labels.collect())
        });
        Self(series.collect())
    }

    /// What is named in the expression and not shown on the page.
    pub fn missing(&self, expression: &str) -> Vec<String> {
        let mut missing = Vec::new();
        let Named { selectors, kept } = named(expression);
        assert!(!selectors.is_empty(), "it names nothing: {expression}");
        let mut labels: BTreeSet<&str> = SCRAPED.into();
        for Selector { name, matchers } in &selectors {
            let of_it = || self.0.iter().filter(|(shown, _)| shown == name).map(|(_, labels)| labels);
            labels.extend(of_it().flatten().map(|(label, _)| &**label));
            if of_it().next().is_none() && !OF_PROMETHEUS.contains(&&**name) {
                missing.push(name.clone());
                continue;
            }
            for (label, sign, value) in matchers.iter().filter(|(label, ..)| !SCRAPED.contains(&&**label)) {
                // Variables of a dashboard stand for whatever there is.
                let values: Vec<_> = match &**sign {
                    _ if value.contains('$') => Vec::new(),
                    "=~" | "!~" => value.split('|').collect(),
                    _ => vec![&**value],
                };
                let shown = |value: &str| of_it().any(|labels| labels.get(label).is_some_and(|shown| shown == value));
                if !of_it().any(|labels| labels.contains_key(label)) {
                    missing.push(format!("{name}{{{label}}}"));
                }
                missing
                    .extend(values.iter().filter(|value| !shown(value)).map(|v| format!("{name}{{{label}=\"{v}\"}}")));
            }
        }
        missing.extend(kept.iter().filter(|label| !labels.contains(&***label)).map(|label| format!("by ({label})")));
        missing
    }
}

/// Prometheus' own tool, where it is installed.
pub fn promtool() -> Option<Command> {
    let there = Command::new("promtool").arg("--version").output().is_ok_and(|out| out.status.success());
    there.then(|| Command::new("promtool"))
}

#[test]
fn what_an_expression_names_is_found_wherever_it_stands() {
    let said = named(
        "histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{c=\"x\",d=~\"y|z\"}[5m]))) > 5\n\
         and on (job) group_left (v) b_info or b:c / 2 unless time() - sum(d) without (e) > 1e9 offset 5m",
    );
    let names: Vec<_> = said.selectors.iter().map(|selector| &*selector.name).collect();
    assert_eq!(names, ["a_bucket", "b_info", "b:c", "d"]);
    assert_eq!(said.kept, ["job", "le", "job", "v", "e"]);
    let matcher = |label: &str, sign: &str, value: &str| (label.to_owned(), sign.to_owned(), value.to_owned());
    assert_eq!(said.selectors[0].matchers, [matcher("c", "=", "x"), matcher("d", "=~", "y|z")]);
}

#[test]
fn what_a_page_does_not_show_is_missing() {
    let page = Page::parse("# HELP a A.\na_total{k=\"v\",l=\"w,x\"} 1\na_total{k=\"u\",l=\"\"} 0\nb 1.5\n");
    for there in
        ["a_total", "sum by (k, job) (rate(a_total{l=\"w,x\", k=~\"u|v\"}[5m]))", "b{job=\"q\"}", "a_total{k=\"$k\"}"]
    {
        assert!(page.missing(there).is_empty(), "{there}: {:?}", page.missing(there));
    }
    assert_eq!(page.missing("c + b"), ["c"]);
    assert_eq!(page.missing("a_total{m=\"1\"}"), ["a_total{m}", "a_total{m=\"1\"}"]);
    assert_eq!(page.missing("sum by (n) (a_total{k!~\"u|w\"})"), ["a_total{k=\"w\"}", "by (n)"]);
}
