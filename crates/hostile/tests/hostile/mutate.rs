//! Inputs made of kept ones, the same for the same seed.

use fastrand::Rng;

/// Longer ones show nothing that shorter ones do not.
const MAX: usize = 16 * 1024;
const BYTES: &[u8] = &[0, 1, 0x7f, 0x80, 0xff, b'/', b'.', b'\n', b'"', b'\\', b',', b'=', b' ', b'0', b'5'];

/// The input of a seed.
pub(crate) fn input(seed: u64, corpus: &[&[u8]]) -> Vec<u8> {
    let mut random = Rng::with_seed(seed);
    let mut data = corpus[random.usize(..corpus.len())].to_vec();
    for _ in 0..1 + random.usize(..6) {
        change(&mut random, &mut data, corpus);
    }
    data.truncate(MAX);
    data
}

fn change(random: &mut Rng, data: &mut Vec<u8>, corpus: &[&[u8]]) {
    let at = random.usize(..=data.len());
    let end = at + random.usize(..=(data.len() - at).min(64));
    match random.u8(..8) {
        0 if at < data.len() => data[at] ^= 1 << random.u8(..8),
        1 if at < data.len() => data[at] = random.u8(..),
        2 if at < data.len() => data[at] = BYTES[random.usize(..BYTES.len())],
        3 => data.insert(at, BYTES[random.usize(..BYTES.len())]),
        4 => drop(data.drain(at..end)),
        // Twice or more often.
        5 => {
            let piece = data[at..end].repeat(1 + random.usize(..4));
            data.splice(at..at, piece);
        }
        // A piece of this one or of another.
        6 => {
            let other = corpus[random.usize(..corpus.len())];
            let from = random.usize(..=other.len());
            let to = from + random.usize(..=(other.len() - from).min(512));
            data.splice(at..end, other[from..to].iter().copied());
        }
        _ => data.truncate(at),
    }
}
