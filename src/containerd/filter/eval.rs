//! What a selector means on a record.

use regex::Regex;

/// A record as filters see it.
pub trait Fields {
    /// The snapshot's key or name.
    fn name(&self) -> &str;
    /// The parent's name; empty without one.
    fn parent(&self) -> &str;
    /// `active`, `view` or `committed`.
    fn kind(&self) -> &str;
    /// The value of a label, `None` if the snapshot does not have it.
    fn label(&self, key: &str) -> Option<&str>;
}

/// What a field path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
    /// Absent from every record.
    Unknown,
}

impl Field {
    /// As `adaptSnapshot`: after `name`, `parent` and `kind` the rest of the path is ignored, after `labels` it is joined
    /// with dots. A path that is not UTF-8 (`\xff`) names no label, since labels arrive as UTF-8.
    pub(super) fn from_path(path: &[Vec<u8>]) -> Self {
        let Some((first, rest)) = path.split_first() else { return Self::Unknown };
        match first.as_slice() {
            b"name" => Self::Name,
            b"parent" => Self::Parent,
            b"kind" => Self::Kind,
            b"labels" => String::from_utf8(rest.join(&b'.')).map_or(Self::Unknown, Self::Label),
            _ => Self::Unknown,
        }
    }

    fn of<'r>(&self, record: &'r impl Fields) -> Option<&'r str> {
        match self {
            Self::Name => Some(record.name()),
            Self::Parent => Some(record.parent()),
            Self::Kind => Some(record.kind()),
            Self::Label(key) => record.label(key),
            Self::Unknown => None,
        }
    }
}

/// What is asked of a field. Values are bytes: the escape `\xff` makes some that are no UTF-8, and equal nothing.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
}

#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) field: Field,
    pub(super) test: Test,
}

impl Selector {
    /// An absent field equals nothing, not even the empty string; to `!=` and `~=` it is the empty string.
    pub(super) fn matches(&self, record: &impl Fields) -> bool {
        let value = self.field.of(record);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value.as_bytes() == wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default().as_bytes() != unwanted,
            Test::Matches(pattern) => pattern.is_match(value.unwrap_or_default()),
        }
    }
}
