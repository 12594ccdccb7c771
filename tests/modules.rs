//! Modules of a crate do not use each other in circles: a reader of one needs only those below it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

type ModulePath = Vec<String>;

/// The definition of an item.
static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(?:fn|struct|enum|const|static|type|trait|union)\s+([A-Za-z_]\w*)").unwrap()
});

/// A file, which is one module.
struct Module {
    code: String,
    /// Names of the items that it defines.
    items: BTreeSet<String>,
    /// Names that it re-exports from modules below it.
    exports: BTreeMap<String, ModulePath>,
    /// Modules below it whose names it re-exports all.
    globs: Vec<ModulePath>,
}

/// Finds the source folders of all crates.
fn crates(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !path.is_dir() || ["target", "node_modules", "fuzz"].contains(&name.as_str()) {
            continue;
        }
        if name == "src" && folder.join("Cargo.toml").exists() {
            found.push(path);
        } else if !name.starts_with('.') {
            crates(&path, found);
        }
    }
}

/// Returns a file's text without comments and inline tests.
fn code_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn modules(folder: &Path, at: &[String], found: &mut BTreeMap<ModulePath, Module>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // Modules for tests may use every module.
        if ["tests", "testing", "fuzzing", "bin"].contains(&name.as_str()) {
            continue;
        }
        let mut module = at.to_vec();
        if path.is_dir() {
            module.push(name);
            modules(&path, &module, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            if !["lib", "main", "mod"].contains(&name.as_str()) {
                module.push(name);
            }
            let code = code_of(&path);
            let items = ITEM.captures_iter(&code).map(|item| item[1].to_owned()).collect();
            let (exports, globs) = (BTreeMap::new(), Vec::new());
            found.insert(module, Module { code, items, exports, globs });
        }
    }
}

/// Expands `a::{b, c::{d, e as f}}` to its paths, each with its local name.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(ModulePath, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let mut path = prefix.to_vec();
        path.extend(segments(&tree[..open]));
        let inner = tree[open + 1..].trim_end().trim_end_matches('}');
        let (mut depth, mut start) = (0, 0);
        for (at, sign) in inner.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&inner[start..at], &path, found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        // A group that ended here was cut by `trim_end_matches`.
        let rest = inner[start..].to_owned() + &"}".repeat(inner[start..].matches('{').count());
        return expand(&rest, &path, found);
    }
    let (tree, name) = tree.split_once(" as ").map_or((tree, None), |(a, b)| (a, Some(b.trim())));
    let mut path = prefix.to_vec();
    path.extend(segments(tree));
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last().cloned() {
        found.push((path, name.map_or(last, str::to_owned)));
    }
}

fn segments(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("::").map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned)
}

/// Resolves a path in a module to a path from the crate's root.
fn absolute(path: &[String], module: &[String], all: &BTreeMap<ModulePath, Module>) -> ModulePath {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => (base, rest) = (Vec::new(), &path[1..]),
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|first| first == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        Some(first) => {
            let mut child = module.to_vec();
            child.push(first.to_owned());
            if !all.contains_key(&child) {
                // A path in another crate.
                return vec!["::".to_owned()];
            }
        }
        None => {}
    }
    base.extend(rest.iter().cloned());
    base
}

/// Returns the module that defines the item of a path.
fn home(path: &[String], all: &BTreeMap<ModulePath, Module>, depth: usize) -> Option<ModulePath> {
    let end = (0..=path.len()).rev().find(|end| all.contains_key(&path[..*end]))?;
    let (module, item) = (path[..end].to_vec(), path.get(end));
    let (Some(item), Some(found)) = (item, all.get(&module)) else { return Some(module) };
    if depth > 8 {
        return Some(module);
    }
    if let Some(exported) = found.exports.get(item) {
        return home(exported, all, depth + 1);
    }
    let from_glob = found.globs.iter().filter_map(|glob| all.get_key_value(glob));
    let from_glob = from_glob.into_iter().find(|(_, module)| module.items.contains(item));
    Some(from_glob.map_or(module, |(glob, _)| glob.clone()))
}

/// Returns which modules each module uses.
fn uses(all: &mut BTreeMap<ModulePath, Module>) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let statement = Regex::new(r"(?s)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);").unwrap();
    let inline = Regex::new(r"\b(?:crate|super|self)(?:::[A-Za-z_]\w*)+").unwrap();
    let mut taken: Vec<(ModulePath, ModulePath)> = Vec::new();
    let names: Vec<ModulePath> = all.keys().cloned().collect();
    for name in &names {
        let code = all[name].code.clone();
        for found in statement.captures_iter(&code) {
            let mut paths = Vec::new();
            expand(&found[2], &[], &mut paths);
            for (path, as_name) in paths {
                let path = absolute(&path, name, all);
                let below = path.len() > name.len() && path.starts_with(name);
                let module = all.get_mut(name).unwrap();
                match (found.get(1).is_some() && below, as_name.as_str()) {
                    (true, "*") => module.globs.push(path[..path.len() - 1].to_vec()),
                    (true, _) => drop(module.exports.insert(as_name, path)),
                    (false, _) => taken.push((name.clone(), path)),
                }
            }
        }
        for found in inline.find_iter(&statement.replace_all(&code, "")) {
            let path: ModulePath = segments(found.as_str()).collect();
            taken.push((name.clone(), absolute(&path, name, all)));
        }
    }
    let mut graph: BTreeMap<ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
    for (from, path) in taken {
        if let Some(to) = home(&path, all, 0).filter(|to| path[0..1] != ["::"] && *to != from) {
            graph.entry(from).or_default().insert(to);
        }
    }
    graph
}

fn reaches(
    graph: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    from: &ModulePath,
) -> BTreeSet<ModulePath> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for to in graph.get(next).into_iter().flatten() {
            if seen.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    seen
}

/// Returns the circles of a crate: the modules of each, with the uses among them.
fn circles(folder: &Path) -> Vec<String> {
    let mut all = BTreeMap::new();
    modules(folder, &[], &mut all);
    let graph = uses(&mut all);
    let reach: BTreeMap<_, _> = graph.keys().map(|one| (one, reaches(&graph, one))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for (one, below) in &reach {
        let in_circle =
            |other: &&ModulePath| reach.get(*other).is_some_and(|back| back.contains(*one));
        let circle: Vec<&ModulePath> = below.iter().filter(in_circle).collect();
        if circle.is_empty() || !seen.insert(circle[0].clone()) {
            continue;
        }
        let mut text = String::new();
        for from in &circle {
            for to in graph[*from].iter().filter(|to| circle.contains(to)) {
                text += &format!("\n  crate::{} -> crate::{}", from.join("::"), to.join("::"));
            }
        }
        circles.push(format!("{}:{text}", folder.display()));
    }
    circles
}

#[test]
fn modules_form_no_circles() {
    let mut folders = Vec::new();
    crates(Path::new(env!("CARGO_MANIFEST_DIR")), &mut folders);
    assert!(folders.len() > 10, "{folders:?}");
    let found: Vec<String> = folders.iter().flat_map(|folder| circles(folder)).collect();
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
}

#[test]
fn circle_is_detected() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
    write("lib.rs", "mod a;\nmod b;\nmod c;\npub use a::{A, d::D};\n");
    write("a.rs", "use crate::b::{self, B};\npub struct A;\n");
    write("b.rs", "use super::c::C as X;\npub struct B;\n");
    write("c.rs", "pub struct C;\n#[cfg(test)]\nmod tests {\n    use crate::A;\n}\n");
    assert_eq!(circles(scratch.path()), Vec::<String>::new());
    write("c.rs", "// crate::b\nfn f() -> crate::A { crate::A }\npub struct C;\n");
    let found = circles(scratch.path());
    assert_eq!(found.len(), 1);
    for line in ["crate::a -> crate::b", "crate::b -> crate::c", "crate::c -> crate::a"] {
        assert!(found[0].contains(line), "{}", found[0]);
    }
}
