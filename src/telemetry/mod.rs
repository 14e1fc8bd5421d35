//! The log: to journald with its fields under systemd, else to standard error.

mod journal;

use libsystemd::logging::connected_to_journal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::TRACE,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Info => Self::INFO,
            LogLevel::Warn => Self::WARN,
            LogLevel::Error => Self::ERROR,
        }
    }
}

/// Changes the level of a log that has started.
#[derive(Clone)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// From now on, only messages of at least this severity are logged.
    pub fn set(&self, level: LogLevel) {
        // It fails only when the log itself is gone.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts logging; to be called once.
pub fn start(level: LogLevel, format: LogFormat) -> Level {
    let (filter, handle) = reload::Layer::new(targets(level));
    let text = |ansi| fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(ansi);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = match format {
        LogFormat::Json => text(false).json().flatten_event(true).boxed(),
        LogFormat::Auto if connected_to_journal() => journal::Journal.boxed(),
        LogFormat::Auto | LogFormat::Text => text(is_terminal).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Level(handle)
}

fn targets(level: LogLevel) -> Targets {
    // Libraries are not part of the story below "trace".
    let others = if level == LogLevel::Trace { LevelFilter::TRACE } else { LevelFilter::WARN };
    Targets::new().with_default(others).with_target(env!("CARGO_CRATE_NAME"), LevelFilter::from(level))
}
