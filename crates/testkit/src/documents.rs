//! The fenced blocks of a document, each after a comment that says how it is tested: `<!-- run: KIND -->`.

use std::fs;

use crate::programs::sources;

/// A fenced block, and the comment before it.
pub struct Block {
    /// How it is tested.
    pub run: String,
    /// What is between the fences.
    pub text: String,
}

/// Reads a document of the sources, such as `README.md`.
pub fn read(document: &str) -> String {
    fs::read_to_string(sources().join(document)).unwrap_or_else(|_| panic!("{document}"))
}

/// All blocks of a document. Each must have its comment.
pub fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut run = None;
    let mut block: Option<String> = None;
    for line in read(document).lines() {
        match &mut block {
            Some(_) if line == "```" => {
                let run = run.take().expect("a comment before each block says how it is tested");
                blocks.push(Block { run, text: block.take().unwrap_or_default() });
            }
            Some(block) => *block += &format!("{line}\n"),
            None if line.starts_with("```") => block = Some(String::new()),
            None => {
                if let Some(comment) = line.strip_prefix("<!-- run: ") {
                    run = comment.strip_suffix(" -->").map(str::to_owned);
                }
            }
        }
    }
    assert!(block.is_none() && run.is_none(), "a block does not end, or a comment has no block");
    blocks
}

/// The blocks that are tested in one way; there must be one.
pub fn blocks_of(document: &str, kind: &str) -> Vec<String> {
    let found = blocks(document).into_iter().filter(|block| block.run == kind).map(|block| block.text);
    let found = found.collect::<Vec<_>>();
    assert!(!found.is_empty(), "no block for {kind:?}");
    found
}
