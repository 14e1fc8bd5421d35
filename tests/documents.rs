//! Whether the documents agree with each other, with the code and with the tests. Needs no root and starts no daemon.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// More is a manual, which belongs into `docs`.
const MAX_README_LINES: usize = 130;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory of this repository that have this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    // What builds make, and what Git keeps.
    let foreign = ["target", "build", ".git"];
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(directory)
        .into_iter()
        .filter_entry(|entry| entry.depth() != 1 || !foreign.contains(&entry.file_name().to_string_lossy().as_ref()))
    {
        let entry = entry.expect("a readable directory");
        if entry.path().extension().is_some_and(|found| found == extension) {
            found.push(entry.into_path());
        }
    }
    found
}

/// The lines of a document that are not in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The anchors that GitHub gives the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("a pattern");
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = link.replace_all(heading.trim_start_matches('#').trim(), "$1").to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug = kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>();
        let count = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_default();
        if *count == 0 { slug } else { format!("{slug}-{count}") }
    };
    headings.map(anchor).collect()
}

/// Where the links of a document lead to.
fn links(text: &str) -> Vec<String> {
    let code = Regex::new("`[^`]*`").expect("a pattern");
    let link = Regex::new(r"\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s+(\S+)").expect("a pattern");
    let mut found = Vec::new();
    for line in prose(text) {
        // Code may look like a link. Text of a link may be code, so only what is in it goes.
        let plain = code.replace_all(line, "``");
        found.extend(link.captures_iter(&plain).filter_map(|c| c.get(1).or(c.get(2))).map(|m| m.as_str().to_owned()));
    }
    found
}

/// What is wrong with a link in a document, if anything.
fn fault(document: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = match path {
        "" => document.to_owned(),
        path => document.parent().expect("a directory").join(path),
    };
    if !target.exists() {
        return Some(format!("there is no {}", target.display()));
    }
    let anchor = anchor?;
    let there = if path.is_empty() { anchors(text) } else { anchors(&read(&target)) };
    (!there.contains(anchor)).then(|| format!("{} has no heading for #{anchor}: {there:?}", target.display()))
}

#[test]
fn every_relative_link_resolves() {
    let mut faults = Vec::new();
    let mut count = 0;
    for document in files(root(), "md") {
        let text = read(&document);
        for link in links(&text) {
            count += 1;
            faults
                .extend(fault(&document, &text, &link).map(|fault| format!("{}: {link}: {fault}", document.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn a_wrong_link_is_noticed() {
    let document = root().join("README.md");
    let text = "# One title\n\n```\n# none\n[no](link)\n```\n## `a.b`, [c](d): e\n## One title\n";
    let there = ["one-title", "ab-c-e", "one-title-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(there));
    assert_eq!(links("see [`a`](b.md#c), `[x](y)`\n```\n[no](link)\n```\n[ref]: other.md"), ["b.md#c", "other.md"]);
    let is_wrong = |link: &str| fault(&document, text, link).is_some();
    assert!(is_wrong("docs/missing.md") && is_wrong("#none") && is_wrong("LICENSE#none"));
    assert!(!is_wrong("docs") && !is_wrong("#one-title") && !is_wrong("https://example.org/x"));
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines: move something to docs");
}

#[test]
fn every_rule_of_the_contract_has_a_test_and_the_other_way_round() {
    let row = Regex::new(r"(?m)^\| (\d+) \| ").expect("a pattern");
    let documented: BTreeSet<u32> = row
        .captures_iter(&read(&root().join("docs/contract.md")))
        .map(|row| row[1].parse().expect("a number"))
        .collect();
    // One name may speak of two rules: rule_04_and_06_hold, rule_11_views_and_rule_12_one_mount.
    let name = Regex::new(r"fn (rule_\d\d\w*)\(").expect("a pattern");
    let number = Regex::new(r"(?:rule|and)_(\d\d)(?:_|$)").expect("a pattern");
    let mut tested = BTreeSet::new();
    for directory in ["src", "tests"] {
        for file in files(&root().join(directory), "rs") {
            for function in name.captures_iter(&read(&file)) {
                tested.extend(number.captures_iter(&function[1]).map(|rule| rule[1].parse::<u32>().expect("a number")));
            }
        }
    }
    assert_eq!(documented, (1..=20).collect(), "docs/contract.md");
    assert_eq!(tested, documented, "the tests");
}

/// The string literals of the code, with their escapes resolved as far as messages have any.
fn code() -> String {
    let continued = Regex::new(r"\\\n\s*").expect("a pattern");
    let all = files(&root().join("src"), "rs").iter().map(|file| read(file)).collect::<String>();
    continued.replace_all(&all, "").replace("\\\"", "\"")
}

#[test]
fn the_short_names_of_refusals_are_documented() {
    let page = read(&root().join("docs/troubleshooting.md"));
    let name = Regex::new(r#"=> "([a-z]+(?:-[a-z]+)*)""#).expect("a pattern");
    let files = ["in_place/refusal.rs", "in_place/expected_chain.rs", "markers/error.rs", "repository/fault.rs"];
    let code: String = files.iter().map(|file| read(&root().join("src").join(file))).collect();
    let names: BTreeSet<&str> = name.captures_iter(&code).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    assert!(names.len() > 15, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md does not name {missing:?}");
}

#[test]
fn the_messages_of_the_troubleshooting_page_are_those_of_the_code() {
    let code = code();
    let page = read(&root().join("docs/troubleshooting.md"));
    let message = Regex::new(r"^\| `([^`]+)`").expect("a pattern");
    let (mut ours, mut count, mut wrong) = (false, 0, Vec::new());
    for line in page.lines() {
        if line.starts_with("| the daemon says") || line.starts_with("| the program says") {
            ours = true;
        } else if !line.starts_with('|') {
            ours = false;
        }
        let Some(message) = message.captures(line).filter(|_| ours) else { continue };
        count += 1;
        wrong.extend(message[1].split("...").filter(|part| !code.contains(*part)).map(str::to_owned));
    }
    assert!(wrong.is_empty(), "no message of the program contains {wrong:#?}: correct the page");
    assert!(count > 50, "only {count} messages were found");
}

/// The names of functions and modules in a test program, or `None` if cargo finds no such program in these packages.
fn names(packages: &[PathBuf], program: &str) -> Option<String> {
    let mut found = Vec::new();
    for tests in packages.iter().map(|package| package.join("tests")) {
        let (one, folder) = (tests.join(format!("{program}.rs")), tests.join(program));
        if one.exists() {
            found.push(one);
        } else if folder.join("main.rs").exists() {
            found.extend(files(&folder, "rs"));
        }
    }
    let name = Regex::new(r"(?m)^\s*(?:fn|mod) (\w+)").expect("a pattern");
    let code = found.iter().map(|file| read(file)).collect::<String>();
    (!found.is_empty()).then(|| name.captures_iter(&code).map(|name| format!("{} ", &name[1])).collect())
}

/// The packages that cargo looks for tests in: the one named, with `--workspace` all, else the one of the root.
fn packages(workspace: bool, package: Option<&str>) -> Vec<PathBuf> {
    let crates = root().join("crates");
    if let Some(name) = package {
        return vec![crates.join(name)];
    }
    let mut packages = vec![root().to_owned()];
    if workspace {
        packages.extend(fs::read_dir(crates).expect("a folder").map(|entry| entry.expect("an entry").path()));
    }
    packages
}

#[test]
fn the_tests_that_documents_name_exist() {
    let command = Regex::new(concat!(
        r"cargo test(?: --locked)?( --workspace)?(?: -p (?<package>\w+))?",
        r"(?: --test (?<program>\w+)(?<filters>(?: [\w-]+)*))?"
    ))
    .expect("a pattern");
    let mut count = 0;
    for document in files(root(), "md") {
        // A command may be broken over two lines.
        let text = read(&document).replace("\n  ", " ");
        for found in command.captures_iter(&text) {
            let packages = packages(found.get(1).is_some(), found.name("package").map(|name| name.as_str()));
            for package in &packages {
                assert!(package.exists(), "{}: {}: no package {}", document.display(), &found[0], package.display());
            }
            let (Some(program), Some(filters)) = (found.name("program"), found.name("filters")) else { continue };
            let names = names(&packages, program.as_str())
                .unwrap_or_else(|| panic!("{}: {}: no such test program", document.display(), &found[0]));
            for filter in filters.as_str().split_whitespace().filter(|word| !word.starts_with('-')) {
                count += 1;
                assert!(names.contains(filter), "{}: {}: no test {filter}", document.display(), &found[0]);
            }
        }
    }
    assert!(count > 15, "only {count} filters were found");
}

#[test]
fn actions_of_workflows_are_pinned_by_commit() {
    let uses = Regex::new(r"uses:\s*(.*)").expect("a pattern");
    let pinned = Regex::new(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$").expect("a pattern");
    let workflows = files(&root().join(".github/workflows"), "yml");
    let mut versions: HashMap<String, String> = HashMap::new();
    for workflow in &workflows {
        for action in uses.captures_iter(&read(workflow)) {
            let action = action[1].to_owned();
            assert!(pinned.is_match(&action), "{}: {action}: pin it by its commit", workflow.display());
            let (name, version) = action.split_once('@').expect("a version");
            let other = versions.entry(name.to_owned()).or_insert_with(|| version.to_owned());
            assert_eq!(other, version, "{name} has two versions");
        }
    }
    assert!(workflows.len() >= 2 && versions.len() >= 4, "{workflows:?} {versions:?}");
}

#[test]
fn workflows_build_with_the_rust_of_the_manifest() {
    let image = Regex::new(r"rust:([\d.]+)-bookworm").expect("a pattern");
    let mut count = 0;
    for workflow in files(&root().join(".github/workflows"), "yml") {
        for found in image.captures_iter(&read(&workflow)) {
            count += 1;
            assert_eq!(&found[1], env!("CARGO_PKG_RUST_VERSION"), "{}", workflow.display());
        }
    }
    assert!(count >= 2, "only {count} images were found");
}

/// In a copy, so that the changelog can have a date.
#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    let copy = tempfile::tempdir().expect("a folder");
    let script = copy.path().join(".ci/release-notes");
    fs::create_dir(script.parent().expect("a folder")).expect("a folder");
    fs::copy(root().join(".ci/release-notes"), &script).expect("a copy");
    fs::write(copy.path().join("Cargo.toml"), "[package]\nversion = \"1.2.3\"\n").expect("a file");
    let run = |changelog: &str, tag: &str| {
        fs::write(copy.path().join("CHANGELOG.md"), changelog).expect("a file");
        let output = Command::new("bash").arg(&script).arg(tag).output().expect("bash");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    };
    let dated =
        "# Changelog\n\n## [1.2.3] - 2026-01-02\n\n### Added\n\n* This.\n\n## [1.2.2] - 2025-01-02\n\n* That.\n";
    assert_eq!(run(dated, "v1.2.3").expect("notes").trim(), "### Added\n\n* This.");
    let other = run(dated, "v1.2.4").expect_err("another version");
    assert!(other.contains("Cargo.toml has version 1.2.3"), "{other}");
    let undated = run(&dated.replace("2026-01-02", "unreleased"), "v1.2.3").expect_err("no date");
    assert!(undated.contains("date the section"), "{undated}");

    let version = env!("CARGO_PKG_VERSION");
    let changelog = read(&root().join("CHANGELOG.md"));
    assert!(changelog.contains(&format!("\n## [{version}] - ")), "CHANGELOG.md has no section for {version}");
}
