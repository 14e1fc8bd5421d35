//! Archives, header by header, since a builder would refuse what is hostile.

pub(crate) fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn file(name: &str, content: &str) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"", content.as_bytes())
}

pub(crate) fn directory(name: &str) -> Vec<u8> {
    entry(b'5', name.as_bytes(), b"", b"")
}

pub(crate) fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(b'2', name.as_bytes(), target.as_bytes(), b"")
}

pub(crate) fn hard_link(name: &str, target: &str) -> Vec<u8> {
    entry(b'1', name.as_bytes(), target.as_bytes(), b"")
}

/// A PAX header for the next entry. Its values may hold anything.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|n| *n == rest + n.to_string().len()).unwrap();
        content.extend(format!("{length} {key}=").into_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    let mut bytes = entry(b'x', b"PaxHeaders/x", b"", &content);
    // PAX headers belong to ustar archives.
    bytes[257..265].copy_from_slice(b"ustar\x0000");
    checksum(&mut bytes);
    bytes
}

pub(crate) fn checksum(bytes: &mut [u8]) {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
}

pub(crate) fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A sparse file of the GNU format, whose map has blocks without a piece that only say that another one follows.
pub(crate) fn endless_sparse_map() -> Vec<Vec<u8>> {
    let mut header = entry(b'S', b"f", b"", b"");
    header[482] = 1;
    checksum(&mut header);
    let mut block = vec![0; 512];
    block[504] = 1;
    vec![header, block.repeat(8192)]
}
