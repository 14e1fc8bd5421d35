//! Finding the deletions of an image's upper layers while its lower ones are prepared.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::repositories::Source;
use super::request::Request;
use crate::digest::Digest;
use crate::repository::{Present, Question};

/// Looks ahead in a repository, which one thread does at a time: all images share the one that asks the repository.
struct Ahead(Arc<Source>);

impl Ahead {
    /// Begins, unless somebody does it already.
    fn begin(source: &Arc<Source>) -> Option<Self> {
        (!source.looks_ahead.swap(true, Ordering::Acquire)).then(|| Self(source.clone()))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.looks_ahead.store(false, Ordering::Release);
    }
}

/// Has the deletions of the layers above `layer` found in the background, while that one is worked on.
///
/// `stored`: for each layer the identity of the content whose plan is stored. `limit`: for how long to continue.
pub fn look_ahead(
    source: &Arc<Source>,
    layer: Digest,
    identity: &str,
    request: &Request<'_>,
    stored: impl FnOnce(&[Digest]) -> Vec<Option<String>>,
    limit: Duration,
) {
    // Where this layer's plan is known, an earlier Prepare of the image has looked ahead already.
    if source.plans.known(layer, identity).is_some() && !request.parent.is_empty() {
        return;
    }
    let mut above: Vec<Digest> = request.layers_above().filter(|above| *above != layer).collect();
    above.dedup();
    if above.is_empty() {
        return;
    }
    let Some(ahead) = Ahead::begin(source) else { return };
    let stored = stored(&above);
    let above: Vec<_> = above.into_iter().zip(stored).collect();
    let name = format!("ahead {}", source.repository.name());
    // If it cannot begin, each layer's own Prepare finds its deletions.
    let _ = std::thread::Builder::new().name(name).spawn(move || {
        let source = &ahead.0;
        let deadline = Instant::now() + limit;
        // One by one, so that a request that waits for an answer does not wait for all of these. The lowest is needed
        // first.
        for (layer, stored) in above {
            if Instant::now() > deadline {
                return;
            }
            let question = Question { layer, records: false };
            let Ok(mut answers) = source.repository.ask(vec![question], deadline) else { return };
            let Some(Ok(Some(Present { identity, .. }))) = answers.pop() else { continue };
            if stored.is_none_or(|stored| stored != identity) {
                source.plans.look_ahead(layer, &identity);
            }
        }
    });
}
