//! The plan of a layer as it is stored.

use crate::overlay::plan::{Plan, Shape};

/// The plan of a layer, encoded, with what has to be known of it without decoding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// What identifies the content that the plan was made of.
    pub identity: String,
    /// Which directories it calls for.
    pub shape: Shape,
    bytes: Vec<u8>,
}

impl StoredPlan {
    /// The plan of the content with this identity.
    pub fn new(identity: String, plan: &Plan) -> Self {
        Self { identity, shape: plan.shape(), bytes: plan.encode() }
    }

    pub(super) fn from_stored(identity: String, shape: Shape, bytes: Vec<u8>) -> Self {
        Self { identity, shape, bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The plan; `None` if the bytes are not one.
    pub fn decode(&self) -> Option<Plan> {
        Plan::decode(&self.bytes)
    }
}
