//! Whether a repository's layer may be used for a request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::expected_chain::ExpectedChain;
use super::refusal::Refusal;
use super::repositories::{LayerQuery, Repositories, Source};
use crate::config::Verify;
use crate::digest::Digest;
use crate::repository::{Present, Question};
use crate::state::metadata::Snapshot;

/// A layer that may be used, as far as the repository tells. What it deletes is still to be found.
pub struct Candidate {
    /// What identifies its content.
    pub identity: String,
}

/// Looks for a layer in one repository. Blocks, within the repository's limits and at most until `deadline`.
///
/// `is_lowest`: whether the layer is the lowest one of its image.
pub fn examine(
    source: &Source,
    layer: Digest,
    expected: &ExpectedChain,
    is_lowest: bool,
    deadline: Instant,
) -> Result<Candidate, Refusal> {
    let Present { identity, diff_id, leaves_out_directories } =
        ask(source, layer, deadline)?.ok_or(Refusal::Missing)?;
    expected.verify(source.repository.verify(), diff_id)?;
    if leaves_out_directories && !is_lowest {
        return Err(Refusal::UnlistedDirectories);
    }
    Ok(Candidate { identity })
}

/// Whether the layer that is in place for a chain ID already can be used now for a client that names `asked`.
///
/// Under another digest it has to be proved that it is what the chain ID names. Else an image could claim the diff IDs of
/// another one for its own layer, and everybody who pulls that other image would get it. The proof is also wanted where
/// the configuration requires it, since that may have changed.
///
/// `link`: where the existing snapshot leads to; `expected`: makes what the image says, once for each use.
pub fn prove(
    existing: &Snapshot,
    link: Option<PathBuf>,
    asked: Digest,
    expected: impl Fn() -> ExpectedChain,
    repositories: &Repositories,
    deadline: Instant,
) -> Result<(), Refusal> {
    let Some(layer) = existing.remote_layer() else { return Err(Refusal::NoProof) };
    let query = LayerQuery { layer, link, expected: expected() };
    let located = repositories.locate(&[query], deadline).map_err(|e| Refusal::ExistingUnavailable(Arc::new(*e)))?;
    let source = located[&layer].source;
    let verify = source.repository.verify();
    if layer == asked && verify != Verify::Required {
        return Ok(());
    }
    let proof = || {
        let present = ask(source, layer, deadline)?.ok_or(Refusal::NoProof)?;
        let diff_id = present.diff_id.ok().flatten().filter(|_| verify != Verify::Off);
        let diff_id = diff_id.ok_or(Refusal::NoProof)?;
        Ok(expected().verify(Verify::Required, Ok(Some(diff_id)))?)
    };
    let repository = || source.repository.name().to_owned();
    proof().map_err(|why| Refusal::ExistingUnproved { layer, repository: repository(), why: Box::new(why) })
}

fn ask(source: &Source, layer: Digest, deadline: Instant) -> Result<Option<Present>, Refusal> {
    let answers = source.repository.ask(vec![Question { layer, records: true }], deadline);
    answers.and_then(|mut answers| answers.pop().unwrap_or(Ok(None))).map_err(Refusal::Repository)
}
