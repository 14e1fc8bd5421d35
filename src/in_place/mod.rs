//! Is a layer used where it lies, or downloaded?
//!
//! A download is always right, so every doubt ends in one. [`Request`] is what the client asks, [`ExpectedChain`] what the
//! image says that the layer is, [`Repositories`] where it is looked for, and [`Refusal`] names every reason for a
//! download. [`decision`] puts them together; what it finds is committed by the snapshotter.

mod decision;
mod expected_chain;
mod lookahead;
mod refusal;
mod repositories;
mod request;
mod unavailable;

pub use decision::{examine, prove};
pub use expected_chain::{ExpectedChain, Mismatch};
pub use lookahead::look_ahead;
pub use refusal::{Refusal, Refusals};
pub use repositories::{Current, LayerLocation, LayerQuery, Repositories, Source};
pub use request::{Rebase, Request};
pub use unavailable::{Cause, Unavailable};
