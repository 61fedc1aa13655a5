//! The log: lines that nothing from outside can break, written by a thread of their own, so that whoever reads them
//! slowly never slows the gate.

use std::{
    io::{self, Write},
    str::FromStr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing::{Dispatch, level_filters::LevelFilter, subscriber::SetGlobalDefaultError};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::{Filter, SubscriberExt},
    reload,
};

use crate::telemetry::{escape::is_treacherous, line::CALLBACK_TARGET};

/// How much may wait to be written; what comes beyond that is dropped and counted.
const BACKLOG: usize = 1024 * 1024;
/// How long one line for people may be.
const LINE: usize = 16 * 1024;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(10);
/// How long the end of the program waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The text names no format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no log format: `human` or `json`")]
pub struct NoLogFormat(String);

impl FromStr for LogFormat {
    type Err = NoLogFormat;

    fn from_str(text: &str) -> Result<Self, NoLogFormat> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(NoLogFormat(other.to_owned())),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// How it looks.
    pub format: LogFormat,
    /// How much of our own is shown; of the libraries, no more than warnings.
    pub level: LevelFilter,
    /// Whether each callback leaves a line.
    pub callbacks: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: LevelFilter::INFO, callbacks: true }
    }
}

impl LogOptions {
    fn shows_callbacks(self) -> bool {
        self.callbacks && self.level >= LevelFilter::INFO
    }

    fn targets(self) -> Targets {
        Targets::new()
            .with_default(self.level.min(LevelFilter::WARN))
            .with_target(env!("CARGO_CRATE_NAME"), self.level)
            .with_target(CALLBACK_TARGET, if self.callbacks { self.level } else { LevelFilter::OFF })
    }
}

/// Starts the log of this process, on standard error. Lines are lost once the guard is gone.
///
/// # Errors
///
/// When a log has been started before.
pub fn start_logging(options: LogOptions, dropped: &Counter) -> Result<(LogControl, LogGuard), SetGlobalDefaultError> {
    let (sink, guard) = LogSink::new(io::stderr(), dropped.clone());
    let (filter, handle) = reload::Layer::new(options.targets());
    tracing::dispatcher::set_global_default(filtered(options.format, sink.clone(), filter))?;
    super::line::write_straight_to(sink, options.format, options.shows_callbacks());
    Ok((LogControl(handle), guard))
}

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// From now on so much is logged. How it looks stays as it was.
    pub fn change(&self, options: LogOptions) {
        // It fails only where the log is gone already.
        let _ = self.0.reload(options.targets());
        super::line::show(options.shows_callbacks());
    }
}

/// A log of its own that ends in `sink`.
#[must_use]
pub fn dispatcher(options: LogOptions, sink: LogSink) -> Dispatch {
    filtered(options.format, sink, options.targets())
}

fn filtered(format: LogFormat, sink: LogSink, filter: impl Filter<Registry> + Send + Sync + 'static) -> Dispatch {
    let lines = MakeLine { sink, format };
    let layer = fmt::layer().with_ansi(false).with_writer(lines);
    let layer = match format {
        LogFormat::Human => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    Dispatch::new(tracing_subscriber::registry().with(layer.with_filter(filter)))
}

/// Where lines go: into a bounded buffer that a thread writes out.
#[derive(Clone, Debug)]
pub struct LogSink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    backlog: Mutex<Backlog>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: Vec<u8>,
    lost: u64,
    closed: bool,
    finished: bool,
}

impl LogSink {
    /// Starts the thread that writes to `out`; `dropped` counts what it could not keep up with.
    #[must_use]
    pub fn new(out: impl Write + Send + 'static, dropped: Counter) -> (Self, LogGuard) {
        let shared = Arc::new(Shared { backlog: Mutex::default(), changed: Condvar::new(), dropped });
        let writer = Arc::clone(&shared);
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_out(out));
        if started.is_err() {
            shared.lock().finished = true;
        }
        (Self(Arc::clone(&shared)), LogGuard(shared))
    }

    fn push(&self, line: &[u8]) {
        let mut backlog = self.0.lock();
        if backlog.finished || backlog.waiting.len() + line.len() > BACKLOG {
            backlog.lost += 1;
            self.0.dropped.inc();
            return;
        }
        // A writer that has something to write already will come by itself.
        let asleep = backlog.waiting.is_empty();
        backlog.waiting.extend_from_slice(line);
        drop(backlog);
        if asleep {
            self.0.changed.notify_all();
        }
    }

    /// Takes one whole line that is known to be one, and safe to show.
    pub(super) fn push_line(&self, line: &str) {
        self.push(line.as_bytes());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        while let Some(lost) = self.take(&mut batch) {
            // A log that nobody can read any more is no reason to stop the gate.
            let _ = out.write_all(&batch);
            let _ = out.flush();
            batch.clear();
            if lost > 0 {
                tracing::warn!(lines = lost, "log lines dropped: whoever reads the log is too slow");
            }
        }
        self.lock().finished = true;
        self.changed.notify_all();
    }

    /// Waits for lines and takes them; `None` once the log is closed and empty.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let idle = |backlog: &mut Backlog| backlog.waiting.is_empty() && backlog.lost == 0 && !backlog.closed;
        let mut backlog = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if backlog.waiting.is_empty() && backlog.lost == 0 {
            return None;
        }
        if !backlog.closed {
            // Lets lines gather: to be woken for each of them costs more than to write it.
            let closed = |backlog: &mut Backlog| !backlog.closed;
            let gathered = self.changed.wait_timeout_while(backlog, GATHER, closed);
            backlog = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut backlog.waiting, batch);
        Some(std::mem::take(&mut backlog.lost))
    }
}

/// Keeps the log going; its end writes the last lines, for at most a second.
#[derive(Debug)]
pub struct LogGuard(Arc<Shared>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let mut backlog = self.0.lock();
        backlog.closed = true;
        self.0.changed.notify_all();
        drop(self.0.changed.wait_timeout_while(backlog, FAREWELL, |backlog| !backlog.finished));
    }
}

#[derive(Clone, Debug)]
struct MakeLine {
    sink: LogSink,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for MakeLine {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: &self.sink, format: self.format }
    }
}

/// Takes one event, which the formatter hands over in one piece, and makes sure that it is one line.
struct Line<'a> {
    sink: &'a LogSink,
    format: LogFormat,
}

impl Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if (self.format == LogFormat::Json || text.len() < LINE) && !text.chars().any(is_treacherous) {
            self.sink.push(event);
        } else {
            self.sink.push(one_line(text, self.format).as_bytes());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one_line(text: &str, format: LogFormat) -> String {
    let mut line = String::with_capacity(text.len().min(LINE) + 64);
    for c in text.chars() {
        // A cut line is still a line, but no longer JSON: that one has only the backlog's bound.
        if format == LogFormat::Human && line.len() >= LINE {
            line.push('…');
            break;
        }
        match (is_treacherous(c), format) {
            (false, _) => line.push(c),
            (true, LogFormat::Human) => line.extend(c.escape_default()),
            // Such a character can stand only inside a JSON string, where this is how it is written.
            (true, LogFormat::Json) => {
                let mut units = [0; 2];
                line.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    line.push('\n');
    line
}
