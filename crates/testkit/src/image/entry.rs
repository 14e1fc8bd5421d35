//! One member of a layer's archive.

/// One member of a layer's archive.
#[derive(Clone, Debug)]
pub struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Kind {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    Char(u32, u32),
    Fifo,
}

impl Entry {
    fn new(path: &str, kind: Kind, mode: u32) -> Self {
        // Any moment but 0, which some programs take for "none".
        Self { path: path.into(), kind, mode, owner: (0, 0), mtime: 1_600_000_000, xattrs: Vec::new() }
    }

    /// A directory, 0755.
    pub fn dir(path: &str) -> Self {
        Self::new(path, Kind::Dir, 0o755)
    }

    /// A regular file, 0644.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(content.into()), 0o644)
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink(target.into()), 0o777)
    }

    /// Another name of a file of this or of a lower layer; the target is relative to the root, without a slash in front.
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Hardlink(target.into()), 0o644)
    }

    /// A character device, 0600.
    pub fn char_device(path: &str, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Char(major, minor), 0o600)
    }

    /// A named pipe, 0644.
    pub fn fifo(path: &str) -> Self {
        Self::new(path, Kind::Fifo, 0o644)
    }

    /// The marker that hides `path` of the layers below.
    pub fn whiteout(path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        Self::file(&marker, "")
    }

    /// The marker that hides all that the layers below have in `dir`.
    pub fn opaque(dir: &str) -> Self {
        Self::file(&format!("{dir}/.wh..wh..opq"), "")
    }

    /// Sets the permissions.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the owner.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Sets the time of the last change, in seconds.
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    /// Adds an extended attribute.
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.xattrs.push((name.into(), value.into()));
        self
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn append(&self, tar: &mut tar::Builder<Vec<u8>>) -> std::io::Result<()> {
        let pax = self.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone()));
        let pax = pax.collect::<Vec<_>>();
        tar.append_pax_extensions(pax.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.mtime);
        header.set_size(0);
        let mut content: &[u8] = &[];
        let mut target = None;
        let kind = match &self.kind {
            Kind::Dir => tar::EntryType::Directory,
            Kind::File(bytes) => {
                content = bytes;
                tar::EntryType::Regular
            }
            Kind::Symlink(to) => {
                target = Some(to);
                tar::EntryType::Symlink
            }
            Kind::Hardlink(to) => {
                target = Some(to);
                tar::EntryType::Link
            }
            Kind::Char(major, minor) => {
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                tar::EntryType::Char
            }
            Kind::Fifo => tar::EntryType::Fifo,
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        match target {
            Some(target) => tar.append_link(&mut header, &self.path, target),
            None => tar.append_data(&mut header, &self.path, content),
        }
    }
}
