//! Names of entries. None leads out of the layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A name within the layer: components without `.`, `..` and slashes, joined by slashes; empty for the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub(super) Vec<u8>);

impl Name {
    /// Checks a name of an archive. The error is the reason why it is refused.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        if raw.starts_with(b"/") {
            return Err("its name is absolute, so that it would leave the layer");
        }
        if raw.contains(&0) {
            return Err("its name contains a NUL byte");
        }
        let parts: Vec<&[u8]> = raw.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        if parts.contains(&&b".."[..]) {
            return Err("its name contains `..`, so that it could leave the layer");
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// Whether it is the layer's root itself.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Parent and last component.
    pub(super) fn split(&self) -> (&[u8], &OsStr) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&self.0[..slash], OsStr::from_bytes(&self.0[slash + 1..])),
            None => (b"", OsStr::from_bytes(&self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (raw, clean) in [
            ("a", "a"),
            ("./a/b/", "a/b"),
            ("a//b/./c", "a/b/c"),
            ("./", ""),
            ("", ""),
            ("..a/b..", "..a/b.."),
            (".wh..wh..opq", ".wh..wh..opq"),
        ] {
            assert_eq!(Name::parse(raw.as_bytes()), Ok(Name(clean.into())), "{raw:?}");
        }
        for raw in ["/a", "//", "..", "a/..", "a/../b", "./../b", "a\0b"] {
            assert!(Name::parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn names_split_at_the_last_slash() {
        let split = |raw: &str| {
            let name = Name::parse(raw.as_bytes()).unwrap();
            let (parent, last) = name.split();
            (String::from_utf8(parent.to_vec()).unwrap(), last.to_str().unwrap().to_owned())
        };
        assert_eq!(split("a"), (String::new(), "a".into()));
        assert_eq!(split("a/b/c"), ("a/b".into(), "c".into()));
    }
}
