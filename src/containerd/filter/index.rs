//! Which selector of a filter an index can answer.

use super::eval::{Field, Selector, Test};
use crate::containerd::label::TARGET;

/// A look-up that narrows a search; see [`super::Filters::index_keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexKey {
    /// The snapshot with this name: at most one.
    Name(String),
    /// The snapshots with this parent; the empty string means those without parent.
    Parent(String),
    /// The snapshots whose label has this value; the only key so far is [`TARGET`](crate::containerd::label::TARGET).
    Label {
        /// The label.
        key: String,
        /// Its value.
        value: String,
    },
}

/// The best answerable equality: a name is unique, a target has few snapshots, a parent may have thousands.
pub(super) fn best(selectors: &[Selector]) -> Option<IndexKey> {
    selectors.iter().filter_map(key).min_by_key(|(rank, _)| *rank).map(|(_, key)| key)
}

fn key(selector: &Selector) -> Option<(u8, IndexKey)> {
    let Test::Equal(value) = &selector.test else { return None };
    let value = String::from_utf8(value.clone()).ok()?;
    match &selector.field {
        Field::Name => Some((0, IndexKey::Name(value))),
        Field::Label(key) if key == TARGET => Some((1, IndexKey::Label { key: key.clone(), value })),
        Field::Parent => Some((2, IndexKey::Parent(value))),
        _ => None,
    }
}
