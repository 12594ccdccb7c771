//! Checks the documentation against the code: docs/environment.md has a row for exactly the `MSB_*`
//! variables that the code reads, and links lead to files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How code reads a variable, by file name suffix; an empty suffix means a script.
const READS: [(&str, &str); 9] = [
    // Many are read through a constant or a helper, so every string that is a name counts.
    ("rs", r#""(MSB_[A-Z0-9_]+)""#),
    ("c", r#"getenv\("(MSB_[A-Z0-9_]+)"\)"#),
    ("go", r#"(?:Getenv|LookupEnv)\("(MSB_[A-Z0-9_]+)"\)"#),
    ("py", r#"environ(?:\.get\(|\[)["'](MSB_[A-Z0-9_]+)["']"#),
    ("ts", r#"process\.env(?:\.|\[")(MSB_[A-Z0-9_]+)"#),
    ("js", r#"process\.env(?:\.|\[")(MSB_[A-Z0-9_]+)"#),
    ("mjs", r#"process\.env(?:\.|\[")(MSB_[A-Z0-9_]+)"#),
    ("mts", r#"process\.env(?:\.|\[")(MSB_[A-Z0-9_]+)"#),
    ("", r"\$\{?(MSB_[A-Z0-9_]+)"),
];

/// Names in tests that no code reads, including constants of C.
const NOT_READ: [&str; 3] = ["MSB_E_UNKNOWN", "MSB_SECRET", "MSB_TEST_NOT_SET"];

/// Folders of build outputs, downloads and recordings.
const SKIPPED: [&str; 5] = ["target", "node_modules", "dist", "corpus", "seeds"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with('.') || SKIPPED.contains(&&*name) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            sources(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

fn read_by_the_code() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/microsandbox.h")).unwrap();
    let constants = Regex::new(r"(?m)^ *#define (MSB_[A-Z0-9_]+)").unwrap();
    let constants = names(&constants, &header);
    let reads = READS.map(|(ending, read)| (ending, Regex::new(read).unwrap()));
    let (mut files, mut found) = (Vec::new(), BTreeSet::new());
    sources(root(), &mut files);
    for file in files {
        let ending = file.extension().unwrap_or_default();
        if let Some((_, read)) = reads.iter().find(|(known, _)| ending == *known) {
            let text = std::fs::read(&file).unwrap();
            found.extend(names(read, &String::from_utf8_lossy(&text)));
        }
    }
    let is_variable = |name: &String| {
        // The prefix of several names is not a name.
        !name.ends_with('_') && !constants.contains(name) && !NOT_READ.contains(&&**name)
    };
    found.into_iter().filter(is_variable).collect()
}

/// Returns the names in the first column of the page's tables.
fn in_the_page() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/environment.md")).unwrap();
    let name = Regex::new("`(MSB_[A-Z0-9_]+)`").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    rows.flat_map(|first| names(&name, first)).collect()
}

fn names(pattern: &Regex, text: &str) -> BTreeSet<String> {
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn environment_page_lists_exactly_the_variables_read() {
    let (read, documented) = (read_by_the_code(), in_the_page());
    assert!(read.len() > 30 && read.contains("MSB_HOME"), "{read:?}");
    let missing: Vec<_> = read.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/environment.md: {missing:?}");
    let unread: Vec<_> = documented.difference(&read).collect();
    assert!(unread.is_empty(), "in docs/environment.md, but not read: {unread:?}");
}

#[test]
fn links_between_pages_lead_to_files() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").unwrap();
    let (mut files, mut links) = (Vec::new(), 0);
    sources(root(), &mut files);
    for page in files.iter().filter(|file| file.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(page).unwrap();
        for found in link.captures_iter(&text) {
            let target = page.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{}: {}", page.display(), &found[1]);
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links found");
}
