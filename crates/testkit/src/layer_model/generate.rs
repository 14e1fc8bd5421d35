//! Random layers: few names, so that layers meet; whatever a layer may hold, so that they meet in all ways.

use super::{AUFS, Entries, File, INVALID, Layer, MARKER, NOT_UTF8, OPAQUE, What, join};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Names that mean something elsewhere: in mount options, in a log, as a marker.
const ODD_NAMES: [&str; 10] =
    ["new\nline", "com,ma", "co:lon", "back\\slash", "...", "..a", ".wh", " ", "\u{202e}\u{7f}", NOT_UTF8];
/// The longest name that a marker can delete.
const LONG_NAME: usize = 255 - MARKER.len();
const DIR_MODES: [u32; 8] = [0o755, 0o755, 0o755, 0o700, 0o1777, 0o2755, 0o500, 0];
const FILE_MODES: [u32; 8] = [0o644, 0o644, 0o600, 0o4755, 0o2755, 0o6711, 0o666, 0];
const OWNERS: [u32; 6] = [0, 0, 0, 1, 1000, 65534];

/// Numbers that depend on the seed only (SplitMix64, Steele et al. 2014).
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than a usize")
    }

    /// True so often.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The layers of a case, the lowest first.
pub fn layers(random: &mut Random) -> Vec<Layer> {
    // All published, all local, or a mix, which is where it gets hard.
    let share = *random.pick(&[100, 100, 0, 60, 60, 60]);
    let mut layers: Vec<Layer> = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for _ in 0..2 + random.below(7) {
        let published = random.chance(share);
        let root = match random.below(100) {
            // The same layer again.
            0..15 if !layers.is_empty() => random.pick(&layers).root.clone(),
            // The empty layer.
            15..22 => File { mode: 0o755, uid: 0, gid: 0, mtime: 1, what: What::Dir(Entries::new()) },
            _ => root(random, published, &known),
        };
        // The kernel does not honour the attribute for "opaque" on the root of a layer, and containerd cannot help it; nor
        // does it unpack what no layer may say.
        let is_opaque = root.entries().is_some_and(|entries| entries.contains_key(OPAQUE));
        let published = published || is_opaque || !root.is_valid();
        known.extend(root.paths().into_iter().filter(|path| !path.contains(MARKER)));
        layers.push(Layer { published, root });
    }
    layers
}

fn root(random: &mut Random, published: bool, known: &[String]) -> File {
    let mut root = File { mode: *random.pick(&[0o755, 0o711]), ..directory(random) };
    for _ in 0..random.below(9) {
        let file = file(random);
        put(random, &mut root, known, None, file);
    }
    for _ in 0..random.below(5) {
        marker(random, &mut root, published, known);
    }
    root
}

fn marker(random: &mut Random, root: &mut File, published: bool, known: &[String]) {
    let empty = File { mode: 0o644, uid: 0, gid: 0, mtime: 1, what: What::Regular(String::new()) };
    match random.below(100) {
        0..50 => {
            // Of a name that a lower layer has, that this one has, or that none has; or in what a lower layer has, which
            // may be a link.
            let own = root.paths();
            let path = match random.below(4) {
                0 if !own.is_empty() => random.pick(&own).clone(),
                1 => join(&path(random, known), &name(random)),
                _ => path(random, known),
            };
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if !path.contains(MARKER) {
                put(random, root, known, Some(join(dir, &format!("{MARKER}{name}"))), empty);
            }
        }
        50..51 => {
            let marker = join(&path(random, known), random.pick::<&str>(&INVALID));
            put(random, root, known, Some(marker), empty);
        }
        51..85 => {
            let dir = path(random, known);
            let dir = if published && random.chance(8) { String::new() } else { dir };
            put(random, root, known, Some(join(&dir, OPAQUE)), empty);
        }
        85..95 => {
            let name = format!("{AUFS}{}", random.pick(&["plnk", "aufs"]));
            let dir = path(random, known);
            put(random, root, known, Some(join(&dir, &name)), empty);
        }
        // aufs keeps deleted files in there.
        _ => {
            let orphans = join(&path(random, known), &format!("{AUFS}orph"));
            let inner = file(random);
            let what = What::Dir([("x".to_owned(), inner)].into());
            put(random, root, known, Some(orphans), File { mode: 0o700, what, ..empty });
        }
    }
}

/// Puts a file at a path, or at a random one, with the directories on the way; leaves it out where it cannot be.
fn put(random: &mut Random, root: &mut File, known: &[String], at: Option<String>, file: File) {
    let path = at.unwrap_or_else(|| path(random, known));
    let mut parts: Vec<&str> = path.split('/').collect();
    let Some(name) = parts.pop() else { return };
    let mut here = root;
    for part in parts {
        let new = directory(random);
        let Some(entries) = here.entries_mut() else { return };
        here = entries.entry(part.into()).or_insert(new);
    }
    if let Some(entries) = here.entries_mut() {
        entries.entry(name.into()).or_insert(file);
    }
}

fn path(random: &mut Random, known: &[String]) -> String {
    if !known.is_empty() && random.chance(70) {
        return random.pick(known).clone();
    }
    let names: Vec<String> = (0..1 + random.below(4)).map(|_| name(random)).collect();
    names.join("/")
}

fn name(random: &mut Random) -> String {
    match random.below(100) {
        0..6 => (*random.pick(&ODD_NAMES)).into(),
        6..8 => "n".repeat(LONG_NAME),
        _ => (*random.pick(&NAMES)).into(),
    }
}

fn directory(random: &mut Random) -> File {
    attributes(random, &DIR_MODES, What::Dir(Entries::new()))
}

fn file(random: &mut Random) -> File {
    let what = match random.below(11) {
        0..4 => What::Regular(format!("{:x}", random.below(1 << 32))),
        4..7 => return directory(random),
        7 => What::Link(
            (*random.pick(&["a", "b", "../c", "a/b", "/d", ".", "/", "/etc/passwd", "../../../../../../.."])).into(),
        ),
        8 => What::Fifo,
        9 => What::Char(number(random)),
        _ => What::Block(number(random)),
    };
    attributes(random, &FILE_MODES, what)
}

/// Any device but 0/0, which is a whiteout.
fn number(random: &mut Random) -> u64 {
    let (major, minor) = (*random.pick(&[1, 8]), 1 + random.below(4) as u64);
    nix::sys::stat::makedev(major, minor)
}

fn attributes(random: &mut Random, modes: &[u32], what: What) -> File {
    let mode = if matches!(what, What::Link(_)) { 0o777 } else { *random.pick(modes) };
    let mtime = i64::try_from(1 + random.below(1 << 31)).expect("less than 2^32");
    File { mode, uid: *random.pick(&OWNERS), gid: *random.pick(&OWNERS), mtime, what }
}
