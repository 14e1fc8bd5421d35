//! A stand-in for a CernVM-FS client.

fn main() {}
