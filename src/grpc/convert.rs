//! Between the messages of containerd's API and our own types.

use std::collections::HashMap;

use containerd_snapshots::api::types::Mount as ApiMount;
use containerd_snapshots::tonic::Status;
use containerd_snapshots::{Info, Kind as ApiKind};

use super::status::status;
use crate::containerd::label::{self, Labels};
use crate::overlay::mount::Mount;
use crate::state::metadata::{EncodedSnapshots, Kind, Snapshot};

/// Labels as the client sent them.
#[allow(clippy::result_large_err, reason = "the type is tonic's")]
pub(super) fn accept(labels: HashMap<String, String>) -> Result<Labels, Status> {
    label::accept(labels).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) fn mounts(mount: Mount) -> Vec<ApiMount> {
    let Mount { kind, source, options } = mount;
    vec![ApiMount { r#type: kind.to_owned(), source, target: String::new(), options }]
}

pub(super) fn info(snapshot: Snapshot) -> Info {
    Info {
        kind: match snapshot.kind {
            Kind::View => ApiKind::View,
            Kind::Active => ApiKind::Active,
            Kind::Committed => ApiKind::Committed,
        },
        name: snapshot.name,
        parent: snapshot.parent,
        labels: snapshot.labels.into_iter().collect(),
        created_at: snapshot.created,
        updated_at: snapshot.updated,
    }
}

/// The result of a listing: taken as a whole first, so that a slow reader holds nothing back.
pub(super) enum Listing {
    /// Everything; decoded one by one, so that a long listing stays small.
    All(EncodedSnapshots),
    /// What a filter matched.
    Some(std::vec::IntoIter<Snapshot>),
}

#[allow(clippy::result_large_err, reason = "the type is tonic's")]
impl Iterator for Listing {
    type Item = Result<Info, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::All(snapshots) => Some(snapshots.next()?.map(info).map_err(|error| status(&error.into()))),
            Self::Some(snapshots) => snapshots.next().map(|snapshot| Ok(info(snapshot))),
        }
    }
}
