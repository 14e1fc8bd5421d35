//! Cleanup: deletes what removals and crashes left on the disk.

use std::collections::HashSet;

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
}

/// Deletes what removals and crashes left on the disk, and waits for it. Goes on after an error, and returns the first.
pub(super) fn cleanup(state: &State, in_flight: &InFlight) -> Result<(), Error> {
    let State { metadata, directories } = state;
    // In this order: an id that is listed is in flight until it is in the store, and the store is read last. What is
    // decided stays right: no id is ever used twice.
    let ids = directories.ids()?;
    let in_flight = in_flight.ids();
    let mut reader = metadata.read()?;
    let (decided, mut first_error) = decide(ids, &in_flight, |id| match reader.has_id(id) {
        // The store was opened again after an error of somebody else's request, which ends every view of it.
        Err(_) => {
            reader = metadata.read()?;
            Ok(reader.has_id(id)?)
        }
        stored => Ok(stored?),
    });
    drop(reader);
    if let Some(error) = &first_error {
        tracing::warn!(%error, "cannot tell which directories are snapshots': the rest of them are left alone");
    }
    for (id, directory) in decided {
        let discarded = match directory {
            Directory::Stored => directories.discard_unfinished(id),
            Directory::Orphan => {
                tracing::info!(snapshot = id, "deleting a directory that belongs to no snapshot");
                directories.discard(id)
            }
        };
        if let Err(error) = discarded {
            first_error.get_or_insert(error.into());
        }
    }
    let emptied = directories.empty_trash();
    metadata.refill();
    first_error.map_or_else(|| Ok(emptied?), Err)
}

/// What to do with each directory, but for those of snapshots that are being made; up to the first error of the store.
fn decide(
    ids: Vec<u64>,
    in_flight: &HashSet<u64>,
    mut is_stored: impl FnMut(u64) -> Result<bool, Error>,
) -> (Vec<(u64, Directory)>, Option<Error>) {
    let mut decided = Vec::new();
    for id in ids {
        match is_stored(id) {
            Ok(true) => decided.push((id, Directory::Stored)),
            Ok(false) if in_flight.contains(&id) => {}
            Ok(false) => decided.push((id, Directory::Orphan)),
            Err(error) => return (decided, Some(error)),
        }
    }
    (decided, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::metadata;

    #[test]
    fn a_directory_is_deleted_only_if_the_store_says_that_it_is_nobodys() {
        let in_flight = HashSet::from([3]);
        let (decided, error) = decide(vec![1, 2, 3, 4], &in_flight, |id| Ok(id == 1));
        assert_eq!(decided, [(1, Directory::Stored), (2, Directory::Orphan), (4, Directory::Orphan)]);
        assert!(error.is_none());
    }

    #[test]
    fn an_error_of_the_store_decides_nothing_and_is_told() {
        let (decided, error) = decide(vec![1, 2, 3], &HashSet::new(), |id| match id {
            1 => Ok(false),
            _ => Err(metadata::Error::Damaged(format!("id {id}")).into()),
        });
        assert_eq!(decided, [(1, Directory::Orphan)]);
        assert!(matches!(error, Some(Error::Metadata(metadata::Error::Damaged(id))) if id == "id 2"));
    }
}
