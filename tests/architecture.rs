//! The rooms of `src` depend on each other in one direction only, and so do the files of each room.

use std::path::Path;

use testkit::source_graph::{self, Graph, Module, circle, named_by};

fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Graph {
    source_graph::files(sources())
}

#[test]
fn no_file_depends_on_itself_through_others() {
    assert_eq!(circle(&files()), None);
}

#[test]
fn no_room_depends_on_itself_through_others() {
    let mut rooms = Graph::new();
    for (file, named) in files() {
        let room = |module: &Module| module.first().map(|name| vec![name.clone()]);
        let Some(of) = room(&file) else { continue };
        let others = named.iter().filter_map(room).filter(|other| *other != of).collect::<Vec<_>>();
        rooms.entry(of).or_default().extend(others);
    }
    assert!(rooms.len() > 10, "{rooms:?}");
    assert_eq!(circle(&rooms), None);
}

#[test]
fn the_pure_rooms_know_nothing_but_each_other_and_digests() {
    for (file, named) in files() {
        let Some(room @ ("overlay" | "containerd" | "config")) = file.first().map(String::as_str) else { continue };
        let outside: Vec<_> = named.iter().filter(|module| module[0] != room && module[0] != "digest").collect();
        assert!(outside.is_empty(), "{} names {outside:?}", file.join("::"));
    }
}

#[test]
fn only_grpc_knows_tonic() {
    for (module, path) in source_graph::modules(sources()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.lines().any(|line| line.trim_start().starts_with("use ") && line.contains("tonic"));
        assert!(!names || module.first().is_some_and(|room| room == "grpc"), "{} uses tonic", path.display());
    }
}

#[test]
fn circles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(module(from)).or_default().insert(module(to));
        }
        graph
    };
    assert_eq!(circle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(circle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])), Some("b -> c -> b".to_owned()));

    let known = ["a", "a::b", "a::c", "d"].map(|path| path.split("::").map(str::to_owned).collect::<Module>());
    let text = "mod b; use super::d::X; use self::c::{Y, z::Z}; fn f() -> crate::d::T { b::g() }
        #[cfg(test)] mod tests { use crate::nothing; }";
    let named = named_by(&["a".to_owned()].to_vec(), text, &known.into_iter().collect());
    let named: Vec<String> = named.iter().map(|module| module.join("::")).collect();
    assert_eq!(named, ["a::b", "a::c", "d"]);
}
