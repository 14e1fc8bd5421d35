//! `containers`.

use std::process::ExitCode;

use super::global::{EXIT_CONFIG, Global, fail};
use crate::containers::{Container, Health, running};

/// List the running containers whose layers lie in a repository, and whether these layers still answer.
///
/// A container keeps the mounts that it was started on: when a repository's client has died, containers that were running
/// do not recover with it, and have to be started again.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Only those whose layers do not answer.
    #[arg(long)]
    dead: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    if !nix::unistd::geteuid().is_root() {
        return fail(&"only root can look at the roots of containers", 1);
    }
    let mut found = match running(&config.root, &config.repositories, config.timeouts.probe) {
        Ok(found) => found,
        Err(error) => return fail(&format!("cannot read the table of mounts: {error}"), 1),
    };
    if found.is_empty() {
        eprintln!("no running container has a layer in a repository, as far as this mount namespace shows");
    }
    if args.dead {
        found.retain(|container| container.health.is_bad());
    }
    if args.json {
        for container in &found {
            match serde_json::to_string(container) {
                Ok(line) => println!("{line}"),
                Err(error) => return fail(&error, 1),
            }
        }
    } else {
        print!("{}", table(&found));
    }
    ExitCode::SUCCESS
}

/// For people.
fn table(containers: &[Container]) -> String {
    const HEAD: [&str; 6] = ["NAMESPACE", "CONTAINER", "NAME", "REPOSITORIES", "IN PLACE", "LAYERS"];
    let row = |container: &Container| {
        let Container { namespace, id, name, root, repositories, layers_in_place, health } = container;
        let dash = || "-".to_owned();
        let plain = |text: String| text.chars().flat_map(shown).collect();
        [
            namespace.clone().unwrap_or_else(dash),
            // As clients print it.
            id.as_ref().map_or_else(|| root.display().to_string(), |id| id.chars().take(12).collect()),
            name.clone().unwrap_or_else(dash),
            repositories.join(", "),
            layers_in_place.to_string(),
            health.to_string(),
        ]
        .map(plain)
    };
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(Into::into)).chain(containers.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line: Vec<String> = cells.collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    if containers.iter().any(|container| matches!(container.health, Health::Dead(_))) {
        text.push_str("\nDead containers do not recover: restart them (nerdctl restart, kubectl delete pod).\n");
    }
    text
}

/// Names come from users: what would steer a terminal is shown as an escape.
fn shown(char: char) -> impl Iterator<Item = char> {
    let (escaped, plain) = if char.is_control() { (Some(char.escape_unicode()), None) } else { (None, Some(char)) };
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_to_do() {
        let container = |namespace: &str, name: Option<&str>, health| Container {
            namespace: Some(namespace.to_owned()),
            id: Some("0123456789abcdef".repeat(4)),
            name: name.map(Into::into),
            root: "/run/x".into(),
            repositories: vec!["nfs".to_owned(), "unpacked.cern.ch".to_owned()],
            layers_in_place: 12,
            health,
        };
        let mount = Container { namespace: None, id: None, ..container("", None, Health::Hung) };
        insta::assert_snapshot!(table(&[
            mount,
            container("default", Some("web"), Health::Alive),
            container("k8s.io", Some("shop/evil\u{1b}[2J"), Health::Alive),
            container("k8s.io", Some("shop/web-1 app"), Health::Dead("socket not connected".to_owned())),
        ]));
        insta::assert_snapshot!(table(&[]), @"NAMESPACE  CONTAINER  NAME  REPOSITORIES  IN PLACE  LAYERS");
    }
}
