//! SHA-256 digests as images name them, and the chain IDs made of them.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256:";

/// A SHA-256 digest, written `sha256:<64 lower-case hexadecimal digits>`.
///
/// Used for the digest of a layer's compressed blob (which names its directory in a repository), for diff IDs and for
/// chain IDs. Nothing but this exact form is a digest: a digest becomes part of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text is not a SHA-256 digest in its one accepted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 lower-case hexadecimal digits>")]
pub struct InvalidDigest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The chain ID of the layer with the diff ID `self` on top of the layers of `parent` (OCI image-spec, config.md,
    /// "Layer ChainID").
    pub fn chain(self, parent: Option<Digest>) -> Digest {
        match parent {
            None => self,
            Some(parent) => Digest::of(format!("{parent} {self}").as_bytes()),
        }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDigest(text.chars().take(80).collect());
        let digits = text.strip_prefix(PREFIX).ok_or_else(invalid)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_form_is_a_digest() {
        let good = format!("sha256:{}", "0af".repeat(21) + "0");
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        let upper = format!("sha256:{}", "0AF".repeat(21) + "0");
        let long = format!("{good}0");
        let path = format!("sha256:../../{}", "0".repeat(58));
        for bad in ["", "sha256", "sha256:", "sha256:0", "sha512:00", &upper, &long, &path, &good[7..], " "] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    /// The chain ID of two layers, computed with `printf '%s %s' A B | sha256sum`.
    #[test]
    fn chain_ids_are_those_of_the_image_specification() {
        let a = Digest::from_bytes([0; 32]);
        let b = Digest::from_bytes([0x11; 32]);
        assert_eq!(a.chain(None), a);
        let expected = Digest::of(format!("sha256:{} sha256:{}", "0".repeat(64), "1".repeat(64)).as_bytes());
        assert_eq!(b.chain(Some(a)), expected);
    }
}
