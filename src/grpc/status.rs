//! The gRPC code of every error.

use containerd_snapshots::tonic::{Code, Status};

use crate::snapshotter::Error;
use crate::state::{directories, metadata};

/// Whether an operator should look at it.
pub(super) fn is_fault(error: &Error) -> bool {
    match status(error).code() {
        Code::NotFound | Code::AlreadyExists | Code::InvalidArgument => false,
        Code::FailedPrecondition => matches!(error, Error::Rebase(_)),
        _ => true,
    }
}

/// The code that containerd expects for each error. Without a wildcard, so that a new error needs a decision.
pub(super) fn status(error: &Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Labels(_) | Error::Invalid(_) => Status::invalid_argument(message),
        Error::Committed(_) | Error::Rebase(_) | Error::TooLarge { .. } => Status::failed_precondition(message),
        Error::Unavailable(_) => Status::unavailable(message),
        Error::Metadata(error) => match error {
            metadata::Error::NotFound(_) | metadata::Error::ParentNotFound(_) => Status::not_found(message),
            metadata::Error::Exists(_) => Status::already_exists(message),
            metadata::Error::ParentNotCommitted(_) | metadata::Error::Labels(_) => Status::invalid_argument(message),
            metadata::Error::NotActive { .. } | metadata::Error::HasChildren(_) => Status::failed_precondition(message),
            metadata::Error::Damaged(_) => Status::data_loss(message),
            metadata::Error::Database(_) if error.is_full() => Status::resource_exhausted(message),
            metadata::Error::Database(_) => Status::internal(message),
        },
        Error::Directories(error) => match error {
            directories::Error::Lost(_) | directories::Error::Unwritten(_) => Status::data_loss(message),
            directories::Error::Io { .. } if error.is_full() => Status::resource_exhausted(message),
            directories::Error::Io { .. } | directories::Error::Open { .. } | directories::Error::Mounted(_) => {
                Status::internal(message)
            }
        },
    }
}

/// The answer to a Prepare whose result exists. containerd takes it for success and extracts nothing (docs/contract.md,
/// rule 4).
pub(super) fn existing(target: &str) -> Status {
    Status::already_exists(format!("target snapshot {target:?} exists already"))
}
