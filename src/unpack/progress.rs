//! Telling a person how far it is: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use super::image::Layer;
use crate::digest::Digest;

/// How a layer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Unpacked and published by this run.
    New,
    /// There before, or published by another run in the meantime.
    Present,
}

/// Is told what a run does. Called from several threads.
pub trait Progress: Sync {
    /// A layer is being unpacked.
    fn started(&self, _layer: &Layer) {}
    /// So many more bytes of its blob are read.
    fn advanced(&self, _layer: &Layer, _bytes: u64) {}
    /// It is there.
    fn finished(&self, _layer: &Layer, _outcome: Outcome) {}
    /// It failed; the run ends with the error.
    fn failed(&self, _layer: &Layer) {}
    /// Something that a person should know, and no error.
    fn warning(&self, _message: &str) {}
}

/// Says nothing but warnings, which go to standard error.
pub struct Quiet;

impl Progress for Quiet {
    fn warning(&self, message: &str) {
        eprintln!("warning: {message}");
    }
}

/// A line on standard error for each layer.
pub struct Lines;

impl Progress for Lines {
    fn started(&self, layer: &Layer) {
        eprintln!("{}: unpacking {}", layer.digest, HumanBytes(layer.size));
    }

    fn finished(&self, layer: &Layer, outcome: Outcome) {
        match outcome {
            Outcome::New => eprintln!("{}: unpacked", layer.digest),
            Outcome::Present => eprintln!("{}: is there already", layer.digest),
        }
    }

    fn failed(&self, layer: &Layer) {
        eprintln!("{}: failed", layer.digest);
    }

    fn warning(&self, message: &str) {
        eprintln!("warning: {message}");
    }
}

/// A bar for each layer in work, and one for all.
pub struct Bars {
    bars: MultiProgress,
    total: ProgressBar,
    layers: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    /// Bars for an image whose layers have `bytes` bytes together.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(bytes).with_style(style()).with_prefix("total"));
        Self { bars, total, layers: Mutex::new(HashMap::new()) }
    }

    /// Removes the layer's bar; false if it has none.
    fn remove(&self, layer: &Layer) -> bool {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.remove(&layer.digest).inspect(ProgressBar::finish_and_clear).is_some()
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:12} {wide_bar} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Bars {
    fn started(&self, layer: &Layer) {
        let bar = ProgressBar::new(layer.size).with_style(style()).with_prefix(layer.digest.hex()[..12].to_owned());
        let bar = self.bars.insert_before(&self.total, bar);
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.digest, bar);
    }

    fn advanced(&self, layer: &Layer, bytes: u64) {
        if let Some(bar) = self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(&layer.digest) {
            bar.inc(bytes);
        }
        self.total.inc(bytes);
    }

    fn finished(&self, layer: &Layer, _outcome: Outcome) {
        if !self.remove(layer) {
            // It was there: nothing was read.
            self.total.inc(layer.size);
        }
    }

    fn failed(&self, layer: &Layer) {
        self.remove(layer);
    }

    fn warning(&self, message: &str) {
        self.bars.suspend(|| eprintln!("warning: {message}"));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.total.finish_and_clear();
    }
}

/// Whether there is a person at a terminal to draw bars for.
pub(super) fn interactive() -> bool {
    std::io::stderr().is_terminal()
}
