//! Messages to systemd's journal: the details both in the text, for people who read it, and as fields, for queries.

use std::fmt::{self, Write as _};

use libsystemd::logging::{Priority, journal_send};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Sends every event to journald.
pub(super) struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        let priority = match *event.metadata().level() {
            Level::ERROR => Priority::Error,
            Level::WARN => Priority::Warning,
            Level::INFO => Priority::Info,
            Level::DEBUG | Level::TRACE => Priority::Debug,
        };
        let identifier = ("SYSLOG_IDENTIFIER".to_owned(), env!("CARGO_PKG_NAME").to_owned());
        let fields = entry.fields.iter().map(|(name, value)| (name.to_ascii_uppercase(), value.clone()));
        let text = entry.text();
        if journal_send(priority, &text, fields.chain([identifier])).is_err() {
            // journald reads standard error as well.
            eprintln!("{text}");
        }
    }
}

/// One event: its message and the other fields in their order.
#[derive(Default)]
struct Entry {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }

    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in self.fields.iter().filter(|(_, value)| !value.is_empty()) {
            // A reader would take a newline for the begin of another entry.
            let _ = write!(text, " {name}={}", value.replace('\n', "\\n"));
        }
        text
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_everything() {
        let entry = Entry {
            message: "layer is downloaded".into(),
            fields: vec![("layer", "sha256:1".into()), ("image", String::new()), ("reason", "two\nlines".into())],
        };
        assert_eq!(entry.text(), "layer is downloaded layer=sha256:1 reason=two\\nlines");
    }
}
