//! The tables of the file.

use redb::TableDefinition;

/// The format that this version writes.
pub(super) const FORMAT: u64 = 2;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
pub(super) const NAMES: TableDefinition<'_, u64, &str> = TableDefinition::new("names");
pub(super) const CHILDREN: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("children");
pub(super) const TARGETS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("targets");
pub(super) const LAYERS: TableDefinition<'_, (&[u8; 32], u64), ()> = TableDefinition::new("layers");
pub(super) const PLANS: TableDefinition<'_, &[u8; 32], (&str, &[u8])> = TableDefinition::new("plans");
pub(super) const SHAPES: TableDefinition<'_, &[u8; 32], u8> = TableDefinition::new("shapes");

/// The id that stands for "no parent"; ids begin at 1.
pub(super) const NO_PARENT: u64 = 0;
