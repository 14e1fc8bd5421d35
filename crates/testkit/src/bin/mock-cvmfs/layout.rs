//! The layout of a repository: which layer a path belongs to.

use std::path::Path;

/// Where in the repository a path, relative to its root, lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'p> {
    /// The root, `.flat` and whatever else has nothing to do with layers.
    Outside,
    /// `.layers/<xx>`.
    Fan,
    /// `.layers/<xx>/<digest>` or its `layerfs`: entries of a catalog above the layer's own.
    Layer(&'p str),
    /// Below `layerfs`.
    Inside(&'p str),
}

impl<'p> Place<'p> {
    pub(crate) fn of(path: &'p Path) -> Self {
        let mut parts = path.iter();
        if parts.next().is_none_or(|first| first != ".layers") {
            return Self::Outside;
        }
        let (fan, digest) = (parts.next(), parts.next().and_then(|digest| digest.to_str()));
        match (fan, digest, parts.next(), parts.next()) {
            (None, ..) => Self::Outside,
            (Some(_), None, ..) => Self::Fan,
            (Some(_), Some(digest), Some(top), Some(_)) if top == "layerfs" => Self::Inside(digest),
            (Some(_), Some(digest), ..) => Self::Layer(digest),
        }
    }

    pub(crate) fn digest(self) -> Option<&'p str> {
        match self {
            Self::Outside | Self::Fan => None,
            Self::Layer(digest) | Self::Inside(digest) => Some(digest),
        }
    }
}

/// Whether the path is the root of a layer, `.layers/<xx>/<digest>/layerfs`.
pub(crate) fn is_layer_root(path: &Path) -> bool {
    matches!(Place::of(path), Place::Layer(_)) && path.iter().count() == 4 && path.ends_with("layerfs")
}
