//! Snapshots that were read but not decoded.

use super::error::Error;
use super::record::Snapshot;

/// Snapshots one behind the other, decoded as they are taken out.
///
/// A listing of 100 000 snapshots has some hundred MB. It lies in few pieces of memory, which the system gets back as they
/// are freed; of many small ones, mixed with those of other requests, most would stay with the process.
#[derive(Debug, Default)]
pub struct EncodedSnapshots {
    names: String,
    records: Vec<u8>,
    /// Where the name and the record of each end.
    ends: Vec<(usize, usize)>,
    taken: usize,
}

impl EncodedSnapshots {
    pub(super) fn push(&mut self, name: &str, record: &[u8]) {
        self.names.push_str(name);
        self.records.extend_from_slice(record);
        self.ends.push((self.names.len(), self.records.len()));
    }
}

impl Iterator for EncodedSnapshots {
    type Item = Result<Snapshot, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let (name_end, record_end) = *self.ends.get(self.taken)?;
        let (name, record) = self.taken.checked_sub(1).map_or((0, 0), |before| self.ends[before]);
        self.taken += 1;
        Some(Snapshot::decode(&self.names[name..name_end], &self.records[record..record_end]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.len() - self.taken;
        (left, Some(left))
    }
}

impl ExactSizeIterator for EncodedSnapshots {}
