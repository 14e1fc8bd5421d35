//! The filter expressions of the `List` call: containerd's grammar, parsed once, evaluated on records.
//!
//! The reference is containerd 2.4.2, `pkg/filters` for the grammar and `core/snapshots/storage/bolt.go`
//! (`adaptSnapshot`) for the fields. `tests/data/filters.json` holds what containerd's own
//! code answers for some hundred expressions, and `tests/filter.rs` compares.
//!
//! ```text
//! selectors := selector ("," selector)*            all must match
//! selector  := fieldpath [operator value]          without operator: the field is there
//! fieldpath := field ("." field)*
//! field     := "quoted" | [A-Za-z0-9_]+
//! operator  := "==" | "!=" | "~="
//! value     := quoted | a run of graphic characters other than "," (the first one no operator or separator)
//! quoted    := "…"; with ~= also /…/ and |…|
//! ```
//!
//! White space may stand before a field, an operator and a value; before `,` and `.` and at the end it is an error, as it
//! is in containerd. So are NUL and U+FFFD anywhere.
//!
//! # Deliberate differences
//!
//! * A regular expression that does not compile is an error here. containerd logs it and the selector matches nothing.
//! * Regular expressions are those of the `regex` crate, not RE2: `\d`, `\w`, `\s` and `\b` know Unicode, `[a&&b]` and
//!   nested classes are operators, a literal `{` and `\Q…\E` are refused, `a**` is accepted.
//! * `\U` above `\U0010FFFF` is an error. containerd takes it from `\U80000000` on, and yields one odd byte.

mod eval;
mod index;
mod parse;
mod quote;

pub use eval::Fields;
pub use index::IndexKey;
pub use parse::ParseError;

use eval::Selector;

/// One expression: all its selectors must match. Without any, as for the empty string, everything matches.
#[derive(Clone, Debug)]
pub struct Filter {
    selectors: Vec<Selector>,
}

impl Filter {
    /// Parses one expression; the empty string matches everything.
    pub fn parse(expression: &str) -> Result<Self, ParseError> {
        parse::expression(expression).map(|selectors| Self { selectors })
    }

    /// Whether all selectors match the record.
    pub fn matches(&self, record: &impl Fields) -> bool {
        self.selectors.iter().all(|selector| selector.matches(record))
    }
}

/// The filters of one call: one must match. Without any, everything matches.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Parses each expression; the first that is malformed is the error.
    pub fn parse(expressions: &[String]) -> Result<Self, ParseError> {
        expressions.iter().map(|expression| Filter::parse(expression)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is no filter at all, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the filters matches the record.
    pub fn matches(&self, record: &impl Fields) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.matches(record))
    }

    /// For each filter one equality that an index can answer: every record that matches the filters has one of these
    /// keys. `None` when a filter has no such equality, and only a scan of everything finds its records.
    ///
    /// The keys narrow the search, no more: each record found must still pass [`Filters::matches`], and may be found
    /// under several keys.
    pub fn index_keys(&self) -> Option<Vec<IndexKey>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter().map(|filter| index::best(&filter.selectors)).collect()
    }
}
