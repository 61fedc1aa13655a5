//! The page for people: what the gate has done since it was started, as HTML that needs no script and nothing from elsewhere.

use std::fmt::Write;

use crate::{
    telemetry::{Figures, escaped},
    time::Timestamp,
};

/// What may be loaded: nothing but the style that stands in the page.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// How often the page may be asked to come anew by itself, in seconds.
const REFRESH: u32 = 5;

const CALLBACKS: &str = "oncegate_callbacks_total";
const DELIVERIES: &str = "oncegate_deliveries_total";
const EXPIRY: &str = "oncegate_certificate_expiry_timestamp_seconds";
/// Less than this is left of a certificate that should have been renewed, in seconds.
const SOON: f64 = 14.0 * 86_400.0;

/// Each decision with what it means, in the order in which they are shown.
const DECISIONS: [(&str, &str); 12] = [
    ("first", "not seen before: forwarded"),
    ("new_state", "a known payment told something new: forwarded"),
    ("returned", "a payer came back"),
    ("joined", "a duplicate: it heard the answer of the one that was held or in the app"),
    ("replayed", "a duplicate: it heard the answer of one that was settled before"),
    ("repeated", "an old event in a batch that brought a new one"),
    ("stale", "an older state than one that was delivered"),
    ("second_payment", "another payment of an order that is paid: forwarded, and one of them is to be given back"),
    ("conflict", "a known event id told another state: forwarded, to be looked at"),
    ("unverified", "the signature is wrong, too old, or missing where it is required"),
    ("unrecognised", "no one payment could be read"),
    ("overflow", "turned away: a bound was reached, or the store can't be used"),
];
const OUTCOMES: [&str; 4] = ["accepted", "rejected", "not_sent", "unknown"];

/// A title, a histogram, and the labels of the part of it that is shown.
type Took = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// How long things took.
const TIMES: [Took; 6] = [
    ("The app over a callback", "oncegate_delivery_seconds", &[]),
    ("Holds of webhooks", "oncegate_hold_seconds", &[]),
    ("Webhooks waiting for their turn", "oncegate_lock_wait_seconds", &[("channel", "webhook")]),
    ("Payers waiting for their turn", "oncegate_lock_wait_seconds", &[("channel", "return")]),
    ("The gate itself, with hold and turn", "oncegate_added_latency_seconds", &[]),
    ("Commits of the store", "oncegate_store_commit_seconds", &[]),
];

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1f24;--dim:#57606a;--paper:#fff;--card:#f4f6f8;--line:#d5dbe1;--good:#116329;--bad:#b3261e;--bar:#2f6fb5}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaee;--dim:#9aa5b0;--paper:#12161a;--card:#1b2127;--line:#333c45;--good:#5fce7b;--bad:#ff8f87;--bar:#6aa9ea}}
body{margin:0 auto;max-width:66rem;padding:1.5rem 1rem 3rem;font:1rem/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:baseline;justify-content:space-between}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}p{margin:.25rem 0}a{color:inherit}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}.dim{color:var(--dim)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 0}
dl div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--dim);font-size:.9rem}dd{margin:0;font-size:1.5rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}caption{text-align:left;color:var(--dim);padding-bottom:.35rem}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}thead th{color:var(--dim);font-weight:500}
th[scope=row]{font-weight:500}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td svg{display:block;width:9rem;height:.7rem;margin-top:.4rem}rect{fill:var(--bar)}
@media(max-width:42rem){td svg{display:none}td.dim{min-width:12rem}}
";

/// Writes the page.
pub(super) fn html(figures: &Figures, reasons: &[(&str, String)], now: Timestamp, refresh: bool) -> String {
    let mut page = String::with_capacity(12 * 1024);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
    let now = now.as_millis() as f64 / 1000.0;
    // Writing to a string does not fail.
    _ = write(&mut page, figures, reasons, now, refresh);
    page
}

fn write(
    page: &mut String,
    figures: &Figures,
    reasons: &[(&str, String)],
    now: f64,
    refresh: bool,
) -> std::fmt::Result {
    let state = if reasons.is_empty() { "ready" } else { "not ready" };
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Oncegate: {state}</title>\n"
    )?;
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n");
    if refresh {
        writeln!(page, "<meta http-equiv=\"refresh\" content=\"{REFRESH}\">")?;
    }
    write!(page, "<style>\n{STYLE}</style>\n</head>\n<body>\n")?;
    head(page, figures, reasons, now, refresh)?;
    page.push_str("<main>\n");
    tiles(page, figures)?;
    decisions(page, figures)?;
    deliveries(page, figures)?;
    times(page, figures)?;
    certificates(page, figures, now)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn head(page: &mut String, figures: &Figures, reasons: &[(&str, String)], now: f64, refresh: bool) -> std::fmt::Result {
    page.push_str("<header>\n<h1>Oncegate</h1>\n<p>");
    page.push_str(if reasons.is_empty() {
        "<span class=\"good\">The gate is ready.</span> "
    } else {
        "<span class=\"bad\">The gate is not ready.</span> "
    });
    page.push_str(match figures.sum("oncegate_upstream_up", &[]) {
        None => "<span class=\"dim\">Nobody has tried to reach the app yet.</span>",
        Some(up) if up > 0.0 => "<span class=\"good\">The app can be reached.</span>",
        Some(_) => "<span class=\"bad\">The app can't be reached.</span>",
    });
    page.push_str("</p>\n</header>\n");
    for (part, why) in reasons {
        writeln!(page, "<p class=\"bad\">{}: {}</p>", html_text(part), html_text(&escaped(why)))?;
    }
    page.push_str("<p class=\"dim\">");
    for version in figures.values("oncegate_build_info", "version") {
        write!(page, "Version {}. ", html_text(version))?;
    }
    if let Some(started) = figures.sum("process_start_time_seconds", &[]) {
        write!(page, "Counted since it was started, {} ago. ", span((now - started).max(0.0)))?;
    }
    let (link, word) = if refresh { ("/", "Stand still") } else { ("/?refresh", "Keep up to date") };
    writeln!(
        page,
        "<a href=\"{link}\">{word}</a> · <a href=\"/metrics\">/metrics</a> · <a href=\"/readyz\">/readyz</a></p>"
    )
}

fn tiles(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let sum = |name: &str| figures.sum(name, &[]).unwrap_or_default();
    let of = |decision| figures.sum(CALLBACKS, &[("decision", decision)]).unwrap_or_default();
    page.push_str("<dl>\n");
    for (title, value, bad) in [
        ("Duplicates stopped", count(of("joined") + of("replayed")), false),
        ("Callbacks", count(sum(CALLBACKS)), false),
        ("In the app now", count(sum("oncegate_in_flight")), false),
        ("Callers waiting", count(sum("oncegate_waiters")), false),
        ("Wait for a person", count(sum("oncegate_review_entries")), sum("oncegate_review_entries") > 0.0),
        ("Work overdue for", span(sum("oncegate_oldest_due_seconds")), sum("oncegate_oldest_due_seconds") > 60.0),
    ] {
        let class = if bad { " class=\"bad\"" } else { "" };
        writeln!(page, "<div><dt>{title}</dt><dd{class}>{value}</dd></div>")?;
    }
    page.push_str("</dl>\n");
    Ok(())
}

fn decisions(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let of = |decision| figures.sum(CALLBACKS, &[("decision", decision)]).unwrap_or_default();
    let most = DECISIONS.iter().map(|(decision, _)| of(decision)).fold(1.0, f64::max);
    table(page, "Callbacks by decision", "What was decided about each event.", &["Decision", "Events", "", "Meaning"])?;
    for (decision, meaning) in DECISIONS {
        let events = of(decision);
        // The number beside it says the same.
        let bar = format!(
            "<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{:.1}\" height=\"10\"/></svg>",
            100.0 * events / most
        );
        let number = count(events);
        writeln!(
            page,
            "<tr><th scope=\"row\">{decision}</th><td class=\"n\">{number}</td><td>{bar}</td><td class=\"dim\">{meaning}</td></tr>"
        )?;
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn deliveries(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let heads = ["Provider", "accepted", "rejected", "not_sent", "unknown"];
    table(page, "Deliveries", "What came of the attempts to bring them to the app.", &heads)?;
    for provider in figures.values(DELIVERIES, "provider") {
        let of = |outcome| figures.sum(DELIVERIES, &[("provider", provider), ("outcome", outcome)]).unwrap_or_default();
        if OUTCOMES.iter().all(|outcome| of(outcome) == 0.0) {
            continue;
        }
        write!(page, "<tr><th scope=\"row\">{}</th>", html_text(provider))?;
        for outcome in OUTCOMES {
            let class = if outcome != "accepted" && of(outcome) > 0.0 { "n bad" } else { "n" };
            write!(page, "<td class=\"{class}\">{}</td>", count(of(outcome)))?;
        }
        page.push_str("</tr>\n");
    }
    if figures.sum(DELIVERIES, &[]).unwrap_or_default() == 0.0 {
        page.push_str("<tr><td colspan=\"5\" class=\"dim\">Nothing has been brought to the app yet.</td></tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn times(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let heads = ["", "Half took at most", "95 of 100", "99 of 100", "Counted"];
    table(page, "Times", "Each is the bound below which that many lie.", &heads)?;
    for (title, name, labels) in TIMES {
        let counted = figures.sum(&format!("{name}_count"), labels).unwrap_or_default();
        write!(page, "<tr><th scope=\"row\">{title}</th>")?;
        for share in [0.5, 0.95, 0.99] {
            let below = match figures.quantile(name, labels, share) {
                None => "–".to_owned(),
                Some(bound) if bound.is_finite() => span(bound),
                Some(_) => "longer than all bounds".to_owned(),
            };
            write!(page, "<td class=\"n\">{below}</td>")?;
        }
        writeln!(page, "<td class=\"n\">{}</td></tr>", count(counted))?;
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

fn certificates(page: &mut String, figures: &Figures, now: f64) -> std::fmt::Result {
    let names = figures.values(EXPIRY, "name");
    if names.is_empty() {
        return Ok(());
    }
    table(page, "Certificates", "Renew them in time: the gate takes changed files by itself.", &["Name", "Ends in"])?;
    for name in names {
        let left = figures.sum(EXPIRY, &[("name", name)]).unwrap_or_default() - now;
        let class = if left < SOON { "n bad" } else { "n" };
        let left = if left > 0.0 { span(left) } else { "it has ended".to_owned() };
        writeln!(page, "<tr><th scope=\"row\">{}</th><td class=\"{class}\">{left}</td></tr>", html_text(name))?;
    }
    page.push_str("</tbody></table></div>\n");
    Ok(())
}

/// The beginning of a table; the columns of numbers are those between the first and one of text.
fn table(page: &mut String, title: &str, caption: &str, heads: &[&str]) -> std::fmt::Result {
    write!(page, "<h2>{title}</h2>\n<div class=\"scroll\"><table><caption>{caption}</caption>\n<thead><tr>")?;
    for (column, head) in heads.iter().enumerate() {
        let class = if column > 0 && *head != "Meaning" { " class=\"n\"" } else { "" };
        match *head {
            "" => write!(page, "<td></td>")?,
            head => write!(page, "<th scope=\"col\"{class}>{head}</th>")?,
        }
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    Ok(())
}

/// A text as HTML shows it.
fn html_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A whole number, its thousands apart.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut apart = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            apart.push('\u{202f}');
        }
        apart.push(digit);
    }
    apart
}

/// A time in the unit that suits it.
fn span(seconds: f64) -> String {
    let (value, unit) = match seconds {
        0.0 => (0.0, "s"),
        ..0.001 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        ..120.0 => (seconds, "s"),
        ..7200.0 => (seconds / 60.0, "min"),
        ..172_800.0 => (seconds / 3600.0, "h"),
        _ => (seconds / 86_400.0, "days"),
    };
    let digits = usize::from(value < 10.0 && value.fract() > 0.05);
    format!("{value:.digits$}\u{a0}{unit}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        callback::Channel,
        telemetry::{self, Metrics},
    };

    fn shown(metrics: &Metrics, reasons: &[(&str, String)]) -> String {
        html(&Figures::of(metrics), reasons, Timestamp::from_millis(4_000_000_000_000), false)
    }

    #[test]
    fn every_decision_and_outcome_is_explained() {
        let mut explained = DECISIONS.map(|(decision, _)| decision);
        let mut known = telemetry::DECISIONS;
        explained.sort_unstable();
        known.sort_unstable();
        assert_eq!(explained, known);
        assert_eq!(OUTCOMES, telemetry::OUTCOMES);
    }

    #[test]
    fn the_page_tells_what_was_counted() {
        let metrics = Metrics::new();
        let counters = metrics.callback_counters(&Arc::from("ninja"), "mollie", Channel::Webhook);
        (0..1234).for_each(|_| counters.count("joined"));
        counters.count("replayed");
        metrics.count_delivery("mollie", "unknown");
        metrics.hold_seconds.observe(1.2);
        metrics.set_upstream_up(Some(false));
        let page = shown(&metrics, &[]);
        for part in [
            "<dt>Duplicates stopped</dt><dd>1\u{202f}235</dd>",
            "<th scope=\"row\">joined</th><td class=\"n\">1\u{202f}234</td>",
            "<th scope=\"row\">mollie</th><td class=\"n\">0</td><td class=\"n\">0</td><td class=\"n\">0</td><td class=\"n bad\">1</td>",
            "<th scope=\"row\">Holds of webhooks</th><td class=\"n\">1.5\u{a0}s</td>",
            "The gate is ready.",
            "The app can't be reached.",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn no_text_breaks_out_of_the_page() {
        let metrics = Metrics::new();
        metrics.count_delivery("<script>", "accepted");
        let page = shown(&metrics, &[("gate", "<b onclick=\"x\">&\u{1b}".to_owned())]);
        assert!(!page.contains("<script") && !page.contains("<b ") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("The gate is not ready."), "{page}");
    }

    #[test]
    fn a_page_of_nothing_is_whole() {
        let page = shown(&Metrics::new(), &[]);
        assert!(page.contains("Nothing has been brought to the app yet.") && page.ends_with("</html>\n"));
        assert!(page.contains("Nobody has tried to reach the app yet."));
    }

    #[test]
    fn numbers_and_times_are_written_for_people() {
        let numbers = [0.0, 999.0, 1000.0, 1_234_567.0].map(count);
        assert_eq!(numbers, ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
        let times = [0.0, 0.000_25, 0.0025, 1.0, 2.5, 90.0, 300.0, 90_000.0, 864_000.0].map(span);
        let told = ["0 s", "250 µs", "2.5 ms", "1 s", "2.5 s", "90 s", "5 min", "25 h", "10 days"];
        assert_eq!(times, told.map(|time| time.replace(' ', "\u{a0}")));
    }
}
