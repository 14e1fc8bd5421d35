//! The records of PAX headers.

use tar_core::PaxExtensions;

use super::entry::{ReadError, Time, malformed};

/// What [`check_pax`] finds besides what the parser gives.
pub(super) struct Pax {
    pub(super) mtime: Option<Time>,
    pub(super) size: bool,
    pub(super) sparse_1: bool,
}

/// Checks that every record is well-formed, which the parser does not tell, and every number a number.
pub(super) fn check_pax(pax: &[u8]) -> Result<Pax, ReadError> {
    let mut found = Pax { mtime: None, size: false, sparse_1: false };
    let mut length = 0;
    for record in PaxExtensions::new(pax) {
        let Ok(record) = record else { return malformed("a PAX record is malformed") };
        let (key, value) = (record.key_bytes(), record.value_bytes());
        length += record_length(key.len() + value.len());
        if value.is_empty() {
            continue;
        }
        let number = || std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
        let valid = match key {
            b"mtime" => {
                found.mtime = parse_time(value);
                found.mtime.is_some()
            }
            b"uid"
            | b"gid"
            | b"GNU.sparse.realsize"
            | b"GNU.sparse.offset"
            | b"GNU.sparse.numbytes"
            | b"GNU.sparse.numblocks"
            | b"GNU.sparse.minor" => number().is_some_and(|v| v.parse::<u64>().is_ok()),
            b"size" | b"GNU.sparse.size" => {
                found.size |= key == b"size";
                number().is_some_and(|v| v.parse::<u64>().is_ok())
            }
            b"GNU.sparse.major" => {
                found.sparse_1 = value == b"1";
                number().is_some_and(|v| v.parse::<u64>().is_ok())
            }
            // A NUL would cut the name short in every system call.
            b"path" | b"linkpath" | b"GNU.sparse.name" => !value.contains(&0),
            _ => true,
        };
        if !valid {
            return malformed(format_args!(
                "the PAX record {} has the invalid value {}",
                super::error::quote(key),
                super::error::quote(&value[..value.len().min(256)])
            ));
        }
    }
    if length == pax.len() { Ok(found) } else { malformed("a PAX record is malformed") }
}

/// Bytes of a record whose key and value have `n` bytes: "<length> <key>=<value>\n", the length counting itself.
fn record_length(n: usize) -> usize {
    let rest = n + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    length
}

/// A PAX time: decimal seconds with an optional fraction, possibly negative.
fn parse_time(value: &[u8]) -> Option<Time> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    // Digits beyond nanoseconds are cut off, as Go does.
    let nanos: u32 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()?;
    if nanos > 0 && whole.starts_with('-') {
        Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos })
    } else {
        Some(Time { seconds, nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let time = |seconds, nanos| Some(Time { seconds, nanos });
        for (text, expected) in [
            ("0", time(0, 0)),
            ("1700000000", time(1_700_000_000, 0)),
            ("1700000000.5", time(1_700_000_000, 500_000_000)),
            ("1.1234567899", time(1, 123_456_789)),
            ("1.", time(1, 0)),
            ("-1", time(-1, 0)),
            ("-1.25", time(-2, 750_000_000)),
            ("-0.25", time(-1, 750_000_000)),
            ("-9223372036854775808.5", None),
            ("", None),
            (".5", None),
            ("1.-5", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for (key_and_value, length) in [(2, 6), (5, 9 + 1 - 1), (6, 11), (94, 99), (95, 101), (993, 1000 - 1 + 1)] {
            let record = record_length(key_and_value);
            assert_eq!(record, key_and_value + 3 + record.to_string().len(), "{key_and_value}");
            assert!(record.abs_diff(length) <= 1);
        }
    }

    #[test]
    fn malformed_pax_records_are_not_passed_over() {
        let good = b"12 path=abc\n".to_vec();
        assert!(check_pax(&good).is_ok());
        for bad in [&b"12 path=abc\nx"[..], b"x2 path=abc\n", b"99 path=abc\n", b"0012 path=ab\n", b"12 path=a\0c\n"] {
            assert!(check_pax(bad).is_err(), "{}", bad.escape_ascii());
        }
        for bad in ["11 size=-1\n", "10 uid=+1\n", "12 mtime=xy\n", "12 gid=0x10\n"] {
            assert!(check_pax(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
