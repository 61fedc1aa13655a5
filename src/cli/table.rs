//! What the gate says of payments, laid out for people.

use std::{borrow::Cow, time::Duration};

use serde_json::Value;

use crate::telemetry::escaped;

/// A value as one word or sentence; `-` where there is none.
pub fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => escaped(text),
        Value::Null => "-".into(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", ").into(),
        other => other.to_string().into(),
    }
}

/// Rows under a head, each column as wide as it has to be.
pub fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(head[column].chars().count())
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut told = line(&mut head.iter().copied());
    rows.iter().for_each(|row| told += &line(&mut row.iter().map(String::as_str)));
    told
}

/// Entries that wait for a person.
pub fn entries(entries: &[Value]) -> String {
    let row = |entry: &Value| {
        let waits = entry["waits_seconds"].as_u64().map_or_else(|| "-".to_owned(), |seconds| span(seconds).to_string());
        let cell = |key: &str| text(&entry[key]).into_owned();
        vec![cell("id"), cell("reason"), waits, cell("provider"), cell("references"), cell("states"), cell("attempts")]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    columns(&["ID", "REASON", "WAITS", "PROVIDER", "REFERENCE", "STATE", "ATTEMPTS"], &rows)
}

fn span(seconds: u64) -> humantime::FormattedDuration {
    // Who waits for days does not count the seconds.
    let step = if seconds < 3600 { 1 } else { 60 };
    humantime::format_duration(Duration::from_secs(seconds / step * step))
}

/// Lines of history, in the order of their times: whoever waited for an answer is noted when it came.
pub fn history(lines: &[Value]) -> String {
    let row = |line: &Value| vec![text(&line["at"]).into_owned(), text(&line["what"]).into_owned(), detail(line)];
    let mut rows: Vec<_> = lines.iter().map(row).collect();
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    columns(&["TIME", "WHAT", ""], &rows)
}

fn detail(line: &Value) -> String {
    let said = |key: &str| text(&line[key]);
    match line["what"].as_str().unwrap_or_default() {
        "arrived" => {
            let state = line["state"].as_str().map_or_else(String::new, |state| format!(", {state}"));
            let (decision, why) = (said("decision"), said("why"));
            format!("{decision}: {why} ({} {}{state}, from {})", said("provider"), said("reference"), said("source"))
        }
        "held" => format!("until {}", said("until")),
        "in_flight" => format!("try {}", said("attempt")),
        "retrying" => format!("again at {}", said("again")),
        "review" => said("reason").into_owned(),
        "ended" => {
            let parts = [("status", "status "), ("why", "")];
            let parts =
                parts.iter().filter(|(key, _)| !line[*key].is_null()).map(|(key, name)| format!("{name}{}", said(key)));
            let parts: Vec<_> = std::iter::once(said("outcome").into_owned()).chain(parts).collect();
            format!("try {}: {}", said("attempt"), parts.join(", "))
        }
        "acted" => format!("{} by {}: {}", said("act"), said("who"), said("why")),
        _ => String::new(),
    }
}

/// A stored request, as it would stand on the wire but for what is hidden.
pub fn request(request: &Value) -> String {
    let mut told = format!("{} {}\n", text(&request["method"]), text(&request["target"]));
    for field in request["headers"].as_array().into_iter().flatten() {
        told += &format!("{}: {}\n", text(&field[0]), text(&field[1]));
    }
    let cut = if request["cut"] == true { " (its beginning)" } else { "" };
    told += &format!("\n{} bytes{cut}:\n", text(&request["body_bytes"]));
    match (request["body"].as_str(), request["body_hex"].as_str()) {
        // Lines stay lines; nothing else may move the cursor.
        (Some(body), _) => body.lines().for_each(|line| told += &format!("{}\n", escaped(line))),
        (None, hex) => told += &format!("{}\n", hex.unwrap_or_default()),
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let rows = [vec!["1".to_owned(), "unknown".to_owned()], vec!["22".to_owned(), "ü".to_owned()]];
        assert_eq!(columns(&["ID", "WHY"], &rows), "ID  WHY\n1   unknown\n22  ü\n");
    }

    #[test]
    fn history_is_told_in_the_order_in_which_it_happened() {
        let line = |at: &str, what: &str| json!({ "at": at, "what": what });
        let told = history(&[line("12:01", "queued"), line("12:01", "in_flight"), line("12:00", "trailing")]);
        let times: Vec<_> = told.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(times, ["trailing", "queued", "in_flight"]);
    }

    #[test]
    fn nothing_that_came_from_outside_moves_the_cursor() {
        let evil = "a\r\n\u{1b}[2J";
        let line = json!({ "at": "t", "what": "acted", "act": "settle", "who": evil, "why": evil });
        let body = json!({ "method": "POST", "target": "/", "headers": [[evil, evil]], "body": evil, "body_bytes": 7 });
        let entry = json!({ "id": "1", "references": [evil], "reason": evil });
        for told in [history(&[line]), request(&body), entries(&[entry])] {
            assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
        }
    }

    #[test]
    fn who_waits_for_days_does_not_count_the_seconds() {
        assert_eq!((span(59).to_string(), span(90_061).to_string()), ("59s".to_owned(), "1day 1h 1m".to_owned()));
    }
}
