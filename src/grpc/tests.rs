use std::path::PathBuf;

use containerd_snapshots::tonic::Code;

use super::convert::mounts;
use super::status::{existing, status};
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::in_place::{Cause, Rebase, Unavailable};
use crate::overlay::mount::{Mount, TooLarge};
use crate::repository::Fault;
use crate::snapshotter::Error;
use crate::state::metadata::Kind;
use crate::state::{directories, metadata};

fn shown(error: impl Into<Error>) -> String {
    let status = status(&error.into());
    format!("{:?}: {}", status.code(), status.message())
}

/// What a client sees of each error.
#[test]
fn every_error_has_the_code_that_containerd_expects() {
    let name = || "default/1/x".to_owned();
    let layer = Digest::from_bytes([0xab; 32]);
    let path = || PathBuf::from("/cvmfs/unpacked.cern.ch");
    let unavailable = |causes| Error::Unavailable(Box::new(Unavailable { layer, causes }));
    let causes = vec![
        ("unpacked".to_owned(), path(), Cause::Fault(Fault::Disconnected)),
        ("nfs".to_owned(), PathBuf::from("/nfs"), Cause::Missing),
    ];
    let io = |kind: std::io::ErrorKind| directories::Error::Io { what: "make", path: path(), source: kind.into() };
    let database = |kind: std::io::ErrorKind| metadata::Error::Database(Box::new(redb::Error::Io(kind.into())));
    let errors = [
        shown(metadata::Error::NotFound(name())),
        shown(metadata::Error::Exists(name())),
        shown(metadata::Error::ParentNotFound(name())),
        shown(metadata::Error::ParentNotCommitted(name())),
        shown(metadata::Error::NotActive { name: name(), kind: Kind::View }),
        shown(metadata::Error::HasChildren(name())),
        shown(metadata::Error::Labels(label::check(&Labels::from([("k".into(), "v".repeat(200_000))])).unwrap_err())),
        shown(metadata::Error::Damaged(name())),
        shown(database(std::io::ErrorKind::StorageFull)),
        shown(database(std::io::ErrorKind::PermissionDenied)),
        shown(io(std::io::ErrorKind::StorageFull)),
        shown(io(std::io::ErrorKind::PermissionDenied)),
        shown(io(std::io::ErrorKind::ReadOnlyFilesystem)),
        shown(directories::Error::Lost(path())),
        shown(directories::Error::Unwritten(path())),
        shown(directories::Error::Mounted(path())),
        shown(Error::Committed(name())),
        shown(Rebase(layer)),
        shown(Error::Invalid("a snapshot needs a key".to_owned())),
        shown(Error::TooLarge { name: name(), cause: TooLarge::Lowers(501) }),
        shown(unavailable(causes)),
        shown(unavailable(vec![("unpacked".to_owned(), path(), Cause::Missing)])),
        shown(unavailable(Vec::new())),
    ];
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn rule_04_what_exists_is_told_by_its_own_code() {
    let status = existing("sha256:ab");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.message(), "target snapshot \"sha256:ab\" exists already");
}

#[test]
fn rule_12_exactly_one_mount_with_separate_options() {
    let options = vec!["workdir=/w".to_owned(), "lowerdir=/a:/b".to_owned()];
    let mounts = mounts(Mount { kind: "overlay", source: "overlay".to_owned(), options: options.clone() });
    assert_eq!(mounts.len(), 1);
    assert_eq!((mounts[0].r#type.as_str(), mounts[0].target.as_str(), &mounts[0].options), ("overlay", "", &options));
}
