//! Puts the layers of an image into the layout of a repository.
#![allow(missing_docs)]
#[derive(clap::Args)]
pub struct Args {}
pub fn main(_: &Args) -> Result<(), String> {
    Err("no".into())
}
