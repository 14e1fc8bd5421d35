//! The filter expressions of the `List` call.
