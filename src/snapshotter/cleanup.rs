//! Cleanup: deletes what removals and crashes left on the disk.

use std::collections::HashSet;
use std::fmt::Display;

use super::error::Error;
use super::in_flight::InFlight;
use crate::state::State;

/// What is to be done with the directory of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directory {
    /// A snapshot has it: only what was left half-made in it goes.
    Stored,
    /// Nobody has it.
    Orphan,
    /// A snapshot is being made, or nothing is known of it: it is left alone.
    Kept,
}

/// Deletes what removals and crashes left on the disk, and waits for it. Goes on after an error, and returns the first.
pub(super) fn cleanup(state: &State, in_flight: &InFlight) -> Result<(), Error> {
    let State { metadata, directories } = state;
    // In this order: an id that is listed is in flight until it is in the store, and the store is read last.
    let ids = directories.ids()?;
    let in_flight = in_flight.ids();
    let reader = metadata.read()?;
    let mut first_error = None;
    for id in ids {
        let discarded = match directory(id, &in_flight, reader.has_id(id), &mut first_error) {
            Directory::Stored => directories.discard_unfinished(id),
            Directory::Kept => Ok(()),
            Directory::Orphan => {
                tracing::info!(snapshot = id, "deleting a directory that belongs to no snapshot");
                directories.discard(id)
            }
        };
        if let Err(error) = discarded {
            first_error.get_or_insert(error.into());
        }
    }
    drop(reader);
    let emptied = directories.empty_trash();
    metadata.refill();
    first_error.map_or_else(|| Ok(emptied?), Err)
}

/// `is_stored`: what the store says. An error of it is kept as the first one, and the directory too.
fn directory<E: Display + Into<Error>>(
    id: u64,
    in_flight: &HashSet<u64>,
    is_stored: Result<bool, E>,
    first_error: &mut Option<Error>,
) -> Directory {
    match is_stored {
        Ok(true) => Directory::Stored,
        Ok(false) if in_flight.contains(&id) => Directory::Kept,
        Ok(false) => Directory::Orphan,
        Err(error) => {
            tracing::warn!(snapshot = id, %error, "cannot tell whether a directory is a snapshot's; leaving it alone");
            first_error.get_or_insert(error.into());
            Directory::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::metadata;

    #[test]
    fn an_error_of_the_store_deletes_nothing_and_does_not_end_the_clean_up() {
        let in_flight = HashSet::from([3]);
        let mut first_error = None;
        let damaged = || Err(metadata::Error::Damaged("id 2".to_owned()));
        assert_eq!(directory(2, &in_flight, damaged(), &mut first_error), Directory::Kept);
        assert!(matches!(&first_error, Some(Error::Metadata(metadata::Error::Damaged(_)))));
        let known = |stored| Ok::<_, metadata::Error>(stored);
        assert_eq!(directory(1, &in_flight, known(true), &mut first_error), Directory::Stored);
        assert_eq!(directory(3, &in_flight, known(false), &mut first_error), Directory::Kept);
        assert_eq!(directory(4, &in_flight, known(false), &mut first_error), Directory::Orphan);
    }
}
