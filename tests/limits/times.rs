//! Times of many calls.

use std::fmt;
use std::time::{Duration, Instant};

use testkit::Daemon;

/// How long each call of one kind took.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Makes a call, and remembers how long it took.
    pub(crate) fn of<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = call();
        self.0.push(begin.elapsed());
        result
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this part of the calls did not exceed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((sorted.len() - 1) as f64 * part) as usize;
        sorted[index]
    }

    /// Median, 99 % and the longest, in milliseconds.
    pub(crate) fn row(&self) -> String {
        let ms = |time: Duration| format!("{:9.3}", time.as_secs_f64() * 1e3);
        let count = self.count();
        format!("{count:8} {} {} {}", ms(self.quantile(0.5)), ms(self.quantile(0.99)), ms(self.quantile(1.0)))
    }
}

pub(crate) const HEAD: &str = "   calls    median      99 %   longest   (ms)";

/// The resident memory of the daemon, in MiB.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    /// Its own, without the pages of files that are mapped (RssAnon).
    pub(crate) own: f64,
    /// With these (VmRSS).
    all: f64,
}

impl Resident {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let field = |name: &str| status(daemon, name).trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0;
        Self { own: field("RssAnon:"), all: field("VmRSS:") }
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB ({:.1} with mapped files)", self.own, self.all)
    }
}

/// The threads of the daemon.
pub(crate) fn threads(daemon: &Daemon) -> String {
    status(daemon, "Threads:")
}

fn status(daemon: &Daemon, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
}
