//! The two ways in which figures are written: `OpenMetrics` for who asks for it, the text that everything reads for the rest.

use std::fmt::Write;

/// How figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Text,
}

impl Exposition {
    /// What a field `Accept` asks for: `OpenMetrics` if it is named there, as Prometheus does.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let named = |offer: &str| offer.split(';').next().is_some_and(|t| t.trim() == "application/openmetrics-text");
        if accept.split(',').any(named) { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes a page of `OpenMetrics` in this way.
    #[must_use]
    pub fn write(self, page: String) -> String {
        match self {
            Self::OpenMetrics => page,
            Self::Text => text(&page),
        }
    }
}

/// In the older format a counter is called as its samples are, there is no type for information, units are a part of the
/// name only, and a page just ends.
fn text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some(help) = help.take() {
                _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_names_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Exposition::wanted(prometheus), Exposition::OpenMetrics);
        for other in ["", "*/*", "text/html, text/plain;q=0.9", "application/openmetrics-textual"] {
            assert_eq!(Exposition::wanted(other), Exposition::Text, "{other}");
        }
    }

    #[test]
    fn the_older_text_names_counters_as_their_samples_and_knows_no_information() {
        let page = "# HELP a_build What runs.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n# HELP a_done Done.\n\
                    # TYPE a_done counter\n# UNIT a_done s\na_done_total 3\n# HELP a_on On.\n# TYPE a_on gauge\na_on 1\n# EOF\n";
        let text = "# HELP a_build_info What runs.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n\
                    # HELP a_done_total Done.\n# TYPE a_done_total counter\na_done_total 3\n\
                    # HELP a_on On.\n# TYPE a_on gauge\na_on 1\n";
        assert_eq!(Exposition::Text.write(page.to_owned()), text);
        assert_eq!(Exposition::OpenMetrics.write(page.to_owned()), page);
    }
}
