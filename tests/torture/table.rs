//! What was done, for the report.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// Counts; prints as a table.
pub(crate) struct Table {
    what: &'static str,
    start: Instant,
    /// Requests: answered, and without an answer.
    requests: BTreeMap<&'static str, (u64, u64)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Table {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, start: Instant::now(), requests: BTreeMap::new(), counts: BTreeMap::new() }
    }

    pub(crate) fn answered(&mut self, request: &'static str) {
        self.requests.entry(request).or_default().0 += 1;
    }

    /// How many requests were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.requests.values().map(|(answered, _)| answered).sum()
    }

    pub(crate) fn cut_off(&mut self, request: &'static str) {
        self.requests.entry(request).or_default().1 += 1;
    }

    pub(crate) fn count(&mut self, what: &'static str, number: u64) {
        *self.counts.entry(what).or_default() += number;
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>10} {:>10}", "request", "answered", "cut off")?;
        for (request, (answered, cut_off)) in &self.requests {
            writeln!(f, "{request:<24} {answered:>10} {cut_off:>10}")?;
        }
        let (answered, cut_off) = self.requests.values().fold((0, 0), |sum, (a, c)| (sum.0 + a, sum.1 + c));
        writeln!(f, "{:<24} {answered:>10} {cut_off:>10}", "all")?;
        for (what, number) in &self.counts {
            writeln!(f, "{what:<46} {number:>10}")?;
        }
        // Whatever is lost ends the run before.
        write!(f, "{}: lost=0, {:.1} s", self.what, self.start.elapsed().as_secs_f64())
    }
}
