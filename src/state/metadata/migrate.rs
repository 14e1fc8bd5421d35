//! From older formats of the file to the one that this version writes.

use redb::{ReadableTable, WriteTransaction};

use super::tables::{FORMAT, META, PLANS, SHAPES};
use crate::overlay::plan::Plan;

/// Brings a file of format 1 to format 2: it gets the shape of each plan.
///
/// A plan that cannot be decoded gets none; it is made again when it is needed.
pub(super) fn migrate(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let plans = transaction.open_table(PLANS)?;
    let mut shapes = transaction.open_table(SHAPES)?;
    for row in plans.iter()? {
        let (layer, stored) = row?;
        if let Some(plan) = Plan::decode(stored.value().1) {
            shapes.insert(layer.value(), plan.shape().bits())?;
        }
    }
    transaction.open_table(META)?.insert("format", FORMAT)?;
    Ok(())
}
