//! What the gate tells those who run it: figures, and a line in the log for each callback.

mod escape;
mod exposition;
mod figures;
mod line;
mod log;
mod metrics;
mod process;
mod reloads;

pub use self::{
    escape::{cardless, escaped, outside},
    exposition::Exposition,
    figures::Figures,
    line::{CALLBACK_TARGET, CallbackLine, log_callback},
    log::{LogControl, LogFormat, LogGuard, LogOptions, LogSink, dispatcher, start_logging},
    metrics::{
        CONFIRMATIONS, CallbackCounters, Channels, DECISIONS, Handshake, Handshakes, INQUIRIES, JOINED_BY, LOOKUPS,
        MISSING, Metrics, OUTCOMES, RequestKind,
    },
    reloads::{Reloaded, Reloads},
};
