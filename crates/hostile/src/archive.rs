//! Tar archives from bytes that know nothing of tar.

use arbitrary::Arbitrary;

const BLOCK: usize = 512;
/// Types whose content follows the header.
const WITH_CONTENT: &[u8] = b"\x0007xgLKS";
/// Few names, so that entries meet; all that could lead out of a layer.
const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    "d",
    ".",
    "..",
    "",
    ".wh.a",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    "outside",
    "file",
    "proc",
    "self",
    "root",
    "etc",
];

/// One entry, in short.
#[derive(Debug, Arbitrary)]
pub struct Entry {
    kind: u8,
    path: Path,
    link: Path,
    /// Permissions, and whether the header is that of the GNU format.
    mode: u16,
    owner: u8,
    device: (u8, u8),
    content: Vec<u8>,
    pax: Vec<Pax>,
    /// A size that is not that of the content.
    size: Option<u32>,
}

#[derive(Debug, Arbitrary)]
struct Path {
    absolute: bool,
    /// Two parts in each byte.
    parts: [u8; 2],
    depth: u8,
    /// In a header of its own.
    long: bool,
    raw: Option<Vec<u8>>,
}

#[derive(Debug, Arbitrary)]
enum Pax {
    Path(Path),
    Link(Path),
    Size(u32),
    Time(i64, u32),
    Owner(u64),
    Xattr(u8, Vec<u8>),
    Sparse(u8, u16),
    Any(Vec<u8>, Vec<u8>),
    Broken(Vec<u8>),
}

impl Path {
    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let parts = self.parts.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        let parts: Vec<&str> =
            parts.take(1 + usize::from(self.depth & 3)).map(|part| PARTS[usize::from(part)]).collect();
        // Some are deeper than a process has descriptors.
        let deep = if self.depth >= 250 { "d/".repeat(usize::from(self.depth) * 8) } else { String::new() };
        format!("{}{deep}{}", if self.absolute { "/" } else { "" }, parts.join("/")).into_bytes()
    }
}

/// An archive with these entries.
pub fn of_entries(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        write(&mut tar, entry);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

fn write(tar: &mut Vec<u8>, entry: &Entry) {
    let kind = b"0123456757xgLKSV0125125"[usize::from(entry.kind % 23)];
    let (path, link) = (entry.path.bytes(), entry.link.bytes());
    for (kind, name, long) in [(b'L', &path, entry.path.long), (b'K', &link, entry.link.long)] {
        if long {
            put(tar, &header(kind, b"././@LongLink", b"", name.len() + 1, entry), &[name, &b"\0"[..]].concat());
        }
    }
    if !entry.pax.is_empty() {
        let records: Vec<u8> = entry.pax.iter().flat_map(Pax::bytes).collect();
        put(tar, &header(b'x', b"PaxHeaders/x", b"", records.len(), entry), &records);
    }
    let size = entry.size.map_or(entry.content.len(), |size| size as usize);
    put(tar, &header(kind, &path, &link, size, entry), &entry.content);
}

fn put(tar: &mut Vec<u8>, header: &[u8; BLOCK], content: &[u8]) {
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

fn header(kind: u8, path: &[u8], link: &[u8], size: usize, entry: &Entry) -> [u8; BLOCK] {
    let mut header = if entry.mode & 1 << 15 == 0 { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
    let bytes = header.as_mut_bytes();
    let cut = |name: &[u8]| name.len().min(100);
    bytes[..cut(path)].copy_from_slice(&path[..cut(path)]);
    bytes[157..157 + cut(link)].copy_from_slice(&link[..cut(link)]);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(u32::from(entry.mode & 0o7777));
    header.set_uid(entry.owner.into());
    header.set_gid(entry.owner.into());
    header.set_mtime(1);
    header.set_size(size as u64);
    // Formats without devices have none.
    let _ = header.set_device_major(entry.device.0.into());
    let _ = header.set_device_minor(entry.device.1.into());
    header.set_cksum();
    *header.as_bytes()
}

impl Pax {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Path(path) => record(b"path", &path.bytes()),
            Self::Link(path) => record(b"linkpath", &path.bytes()),
            Self::Size(size) => record(b"size", size.to_string().as_bytes()),
            Self::Time(seconds, fraction) => record(b"mtime", format!("{seconds}.{fraction}").as_bytes()),
            Self::Owner(id) => {
                [record(b"uid", id.to_string().as_bytes()), record(b"gid", id.to_string().as_bytes())].concat()
            }
            Self::Xattr(name, value) => {
                const NAMES: [&str; 6] = [
                    "user.a",
                    "trusted.overlay.opaque",
                    "security.capability",
                    "system.posix_acl_default",
                    "system.posix_acl_access",
                    "trusted.overlay.redirect",
                ];
                let name = NAMES[usize::from(name % 6)];
                record(format!("SCHILY.xattr.{name}").as_bytes(), value)
            }
            Self::Sparse(version, size) => {
                let minor = version.to_string();
                let records = [("major", "1"), ("minor", &minor), ("realsize", &size.to_string()), ("name", "a")];
                records
                    .iter()
                    .flat_map(|(key, value)| record(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes()))
                    .collect()
            }
            Self::Any(key, value) => record(key, value),
            Self::Broken(bytes) => bytes.clone(),
        }
    }
}

/// A PAX record.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).expect("a length");
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Gives every block that stands where a header is expected the checksum of one.
pub fn repair(tar: &mut [u8]) {
    let mut at = 0usize;
    while let Some(block) = tar.get_mut(at..at.saturating_add(BLOCK)) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        if WITH_CONTENT.contains(&block[156]) {
            let size = header.entry_size().unwrap_or(0);
            at = usize::try_from(size)
                .map_or(tar.len(), |size| at.saturating_add(size.div_ceil(512).saturating_mul(512)));
        }
    }
}
