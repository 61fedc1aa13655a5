//! The one line that each callback leaves in the log: what was decided about it, and why.

use std::{
    borrow::Cow,
    fmt::Write,
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tracing::Level;

use crate::{
    callback::{Channel, Key},
    digits::{push_address, push_number},
    telemetry::{
        LogFormat, LogSink,
        escape::{is_treacherous, outside},
    },
    time::{Clock, SystemClock, Timestamp},
};

/// The target of these lines, under which they are switched off where they are too many.
pub const CALLBACK_TARGET: &str = "oncegate::callback";

/// What the line says. There is no place in it for a body, a header or a secret.
#[derive(Clone, Debug)]
pub struct CallbackLine<'a> {
    /// The name of the rule that decided.
    pub rule: &'a str,
    /// The provider.
    pub provider: &'static str,
    /// The way it came.
    pub channel: Channel,
    /// What was decided (see [`DECISIONS`](super::DECISIONS)).
    pub decision: &'static str,
    /// The provider's id of the payment.
    pub reference: Option<&'a str>,
    /// The provider's id of the event.
    pub event_id: Option<&'a str>,
    /// The provider's word for what happened.
    pub event_type: Option<&'a str>,
    /// What makes it the same event as another.
    pub identity: Option<Key>,
    /// Who sent it, as far as the trusted proxies can be believed.
    pub client: Option<IpAddr>,
    /// How long it waited at the gate: held, for its turn, for another's answer.
    pub waited: Duration,
    /// What the app answered, if it was asked.
    pub upstream_status: Option<StatusCode>,
    /// What the caller heard.
    pub answered: Option<StatusCode>,
    /// The reason, in a sentence.
    pub why: &'a str,
}

/// Where these lines go without a detour through the log's machinery, which would cost a third of a whole callback.
static STRAIGHT: OnceLock<(LogSink, LogFormat)> = OnceLock::new();

/// From now on the lines of this process are written straight to `sink`.
pub(super) fn write_straight_to(sink: LogSink, format: LogFormat, shown: bool) {
    show(shown);
    // The log of a process is started once, which its caller has made sure of.
    _ = STRAIGHT.set((sink, format));
}

/// Whether they are written at all.
static SHOWN: AtomicBool = AtomicBool::new(true);

pub(super) fn show(shown: bool) {
    SHOWN.store(shown, Ordering::Relaxed);
}

/// Writes the line, unless nobody wants it: then this costs one comparison.
pub fn log_callback(line: &CallbackLine<'_>) {
    if let Some((sink, format)) = STRAIGHT.get() {
        if SHOWN.load(Ordering::Relaxed) {
            sink.push_line(&line.written(*format, SystemClock.now()));
        }
        return;
    }
    if !tracing::enabled!(target: CALLBACK_TARGET, Level::INFO) {
        return;
    }
    let [reference, event_id, event_type] = [line.reference, line.event_id, line.event_type].map(|o| o.map(outside));
    tracing::info!(
        target: CALLBACK_TARGET,
        rule = line.rule,
        provider = line.provider,
        channel = line.channel.as_str(),
        decision = line.decision,
        reference = text(&reference),
        event_id = text(&event_id),
        event_type = text(&event_type),
        identity = line.identity.map(tracing::field::display),
        client = line.client.map(|client| tracing::field::display(client.to_canonical())),
        waited_ms = u64::try_from(line.waited.as_millis()).unwrap_or(u64::MAX),
        upstream_status = line.upstream_status.map(|status| status.as_u16()),
        answered = line.answered.map(|status| status.as_u16()),
        why = outside(line.why).as_ref(),
        "callback"
    );
}

impl CallbackLine<'_> {
    /// The line as the log's own machinery would write it.
    fn written(&self, format: LogFormat, at: Timestamp) -> String {
        let mut line = Fields { out: String::with_capacity(512), format };
        match format {
            LogFormat::Human => line.raw(format_args!("{at}  INFO {CALLBACK_TARGET}: callback")),
            LogFormat::Json => line.raw(format_args!(
                "{{\"timestamp\":\"{at}\",\"level\":\"INFO\",\"message\":\"callback\",\"target\":\"{CALLBACK_TARGET}\""
            )),
        }
        line.text("rule", self.rule);
        line.text("provider", self.provider);
        line.text("channel", self.channel.as_str());
        line.text("decision", self.decision);
        for (name, value) in
            [("reference", self.reference), ("event_id", self.event_id), ("event_type", self.event_type)]
        {
            if let Some(value) = value {
                line.text(name, &outside(value));
            }
        }
        if let Some(identity) = self.identity {
            line.bare("identity", |out| _ = write!(out, "{identity}"));
        }
        if let Some(client) = self.client {
            line.bare("client", |out| push_address(out, client));
        }
        line.number("waited_ms", u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX));
        if let Some(status) = self.upstream_status {
            line.number("upstream_status", status.as_u16().into());
        }
        if let Some(status) = self.answered {
            line.number("answered", status.as_u16().into());
        }
        line.text("why", &outside(self.why));
        line.out.push_str(if format == LogFormat::Json { "}\n" } else { "\n" });
        line.out
    }
}

/// A line under construction. Writing to a string does not fail.
struct Fields {
    out: String,
    format: LogFormat,
}

impl Fields {
    fn raw(&mut self, arguments: std::fmt::Arguments<'_>) {
        _ = self.out.write_fmt(arguments);
    }

    fn name(&mut self, name: &str) {
        let (before, after) = match self.format {
            LogFormat::Human => (" ", "="),
            LogFormat::Json => (",\"", "\":"),
        };
        for piece in [before, name, after] {
            self.out.push_str(piece);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        push_number(&mut self.out, value);
    }

    /// A value that can't hold anything but letters, digits and a few signs.
    fn bare(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        self.name(name);
        let quote = if self.format == LogFormat::Json { "\"" } else { "" };
        self.out.push_str(quote);
        write(&mut self.out);
        self.out.push_str(quote);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.out.push('"');
        if text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\'))
        {
            self.out.push_str(text);
        } else {
            text.chars().for_each(|c| self.escape(c));
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        match (c, self.format) {
            ('"' | '\\', _) => self.out.extend(['\\', c]),
            (c, _) if !is_treacherous(c) => self.out.push(c),
            (c, LogFormat::Human) => self.out.extend(c.escape_default()),
            (c, LogFormat::Json) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    self.raw(format_args!("\\u{unit:04x}"));
                }
            }
        }
    }
}

fn text<'a>(value: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    value.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reference: &str) -> CallbackLine<'_> {
        CallbackLine {
            rule: "hooks",
            provider: "mollie",
            channel: Channel::Webhook,
            decision: "first",
            reference: Some(reference),
            event_id: None,
            event_type: None,
            identity: Some(Key::of("x").finish()),
            client: Some("::ffff:127.0.0.1".parse().unwrap()),
            waited: Duration::from_millis(12),
            upstream_status: None,
            answered: Some(StatusCode::OK),
            why: "not \"seen\" before",
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let written = line("tr_\r\n\u{1b}[31m\u{202e}\"\\").written(format, Timestamp::EPOCH);
            let (last, rest) = (written.chars().last(), &written[..written.len() - 1]);
            assert!(last == Some('\n') && !rest.chars().any(is_treacherous), "{written}");
        }
    }

    #[test]
    fn the_json_line_is_json_and_says_what_came() {
        let written = line("tr_\r\n\u{202e}\"\\\u{e0001}").written(LogFormat::Json, Timestamp::EPOCH);
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(read["reference"], "tr_\r\n\u{202e}\"\\\u{e0001}");
        assert_eq!((&read["client"], &read["waited_ms"]), (&"127.0.0.1".into(), &12.into()));
        assert_eq!(read["why"], "not \"seen\" before");
    }
}
