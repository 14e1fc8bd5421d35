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

/// Looks for a layer in one repository: what identifies its content, if it may be used as far as the repository tells.
/// What it deletes is still to be found.
///
/// Blocks, within the repository's limits and at most until `deadline`. `is_lowest`: whether the layer is the lowest one of
/// its image.
pub fn examine(
    source: &Source,
    layer: Digest,
    expected: &ExpectedChain,
    is_lowest: bool,
    deadline: Instant,
) -> Result<String, Refusal> {
    let Present { identity, diff_id, leaves_out_directories } =
        ask(source, layer, deadline)?.ok_or(Refusal::Missing)?;
    expected.verify(source.repository.verify(), diff_id)?;
    if leaves_out_directories && !is_lowest {
        return Err(Refusal::UnlistedDirectories);
    }
    Ok(identity)
}

/// Whether the layer that is in place for a chain ID already can be used now for a client that names `asked`.
///
/// Under another digest it has to be proved that it is what the chain ID names. Else an image could claim the diff IDs of
/// another one for its own layer, and everybody who pulls that other image would get it. The proof is also wanted where
/// the configuration requires it, since that may have changed.
///
/// `layer`: the layer in place; `link`: where its snapshot leads to.
pub fn prove(
    layer: Digest,
    link: Option<PathBuf>,
    asked: Digest,
    expected: ExpectedChain,
    repositories: &Repositories,
    deadline: Instant,
) -> Result<(), Refusal> {
    let query = LayerQuery { layer, link, expected };
    let located = repositories.locate(&[query], deadline).map_err(|e| Refusal::ExistingUnavailable(Arc::new(*e)))?;
    let source = located[&layer].source;
    let verify = source.repository.verify();
    if layer == asked && verify != Verify::Required {
        return Ok(());
    }
    let proof = || {
        let present = ask(source, layer, deadline)?.ok_or(Refusal::NoProof)?;
        let diff_id = present.diff_id.ok().flatten().filter(|_| verify != Verify::Off).ok_or(Refusal::NoProof)?;
        Ok(expected.verify(Verify::Required, Ok(Some(diff_id)))?)
    };
    let repository = || source.repository.name().to_owned();
    proof().map_err(|why| Refusal::ExistingUnproved { layer, repository: repository(), why: Box::new(why) })
}

fn ask(source: &Source, layer: Digest, deadline: Instant) -> Result<Option<Present>, Refusal> {
    let answers = source.repository.ask(vec![Question { layer, records: true }], deadline);
    answers.and_then(|mut answers| answers.pop().unwrap_or(Ok(None))).map_err(Refusal::Repository)
}
