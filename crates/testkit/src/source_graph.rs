//! Which modules of a crate name which others, read from its source.
//!
//! A file depends on the file of every module that it names in a `use`, a type or an expression. Tests do not count, and
//! what stands inside a macro call is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A module of a crate: the names on the way to it.
pub type Module = Vec<String>;

/// Which modules each one names.
pub type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// The modules of the crate whose `src` lies in `sources`, and their files, without those of tests.
pub fn modules(sources: &Path) -> BTreeMap<Module, PathBuf> {
    let src = sources.join("src");
    let mut modules = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&src) {
        let path = entry.unwrap().into_path();
        let Some(name) = path.to_str().and_then(|path| path.strip_suffix(".rs")) else { continue };
        let name = Path::new(name).strip_prefix(&src).unwrap();
        let mut module: Module = name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        match module.last().map(String::as_str) {
            Some("mod") => drop(module.pop()),
            Some("tests" | "main" | "lib") => continue,
            _ => {}
        }
        modules.insert(module, path);
    }
    assert!(modules.len() > 80, "{}", modules.len());
    modules
}

/// Which modules each file of the crate names.
pub fn files(sources: &Path) -> Graph {
    let modules = modules(sources);
    let known: BTreeSet<Module> = modules.keys().cloned().collect();
    modules
        .iter()
        .map(|(module, path)| {
            let text = std::fs::read_to_string(path).unwrap();
            (module.clone(), named_by(module, &text, &known))
        })
        .collect()
}

/// The modules that the text of a module names.
pub fn named_by(module: &Module, text: &str, known: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut names = Names { module, known, found: BTreeSet::new() };
    names.visit_file(&syn::parse_file(text).unwrap());
    names.found
}

struct Names<'a> {
    module: &'a Module,
    known: &'a BTreeSet<Module>,
    found: BTreeSet<Module>,
}

impl Names<'_> {
    /// Adds the module that a path leads to.
    fn add(&mut self, path: &[String]) {
        let mut at: Module;
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => (at, rest) = (Vec::new(), &rest[1..]),
            Some("self" | "super") => at = self.module.clone(),
            // A name of this file, or of another crate: it is ours only if it is a child.
            Some(_) => at = self.module.clone(),
            None => return,
        }
        while let Some((first, more)) = rest.split_first() {
            match first.as_str() {
                "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            rest = more;
        }
        for name in rest {
            at.push(name.clone());
            if !self.known.contains(&at) {
                at.pop();
                break;
            }
        }
        if !at.is_empty() && at != *self.module {
            self.found.insert(at);
        }
    }

    fn add_tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before)),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&item.tree, &[]);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    /// `pub(super)` depends on nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }
}

/// A circle in the graph, if there is one.
pub fn circle(graph: &Graph) -> Option<String> {
    fn search<'a>(
        graph: &'a Graph,
        at: &'a Module,
        way: &mut Vec<&'a Module>,
        done: &mut BTreeSet<&'a Module>,
    ) -> bool {
        if way.contains(&at) {
            way.push(at);
            return true;
        }
        if !done.insert(at) {
            return false;
        }
        way.push(at);
        if graph.get(at).into_iter().flatten().any(|next| search(graph, next, way, done)) {
            return true;
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    for start in graph.keys() {
        let mut way = Vec::new();
        if search(graph, start, &mut way, &mut done) {
            let first = way.iter().position(|module| module == way.last().unwrap()).unwrap();
            let names: Vec<String> = way[first..].iter().map(|module| module.join("::")).collect();
            return Some(names.join(" -> "));
        }
    }
    None
}
