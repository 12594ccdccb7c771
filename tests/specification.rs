//! Every test that SPECIFICATION.md names exists.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                sources(&path, found);
            }
        } else if path
            .extension()
            .is_some_and(|end| ["rs", "c", "json", "go"].iter().any(|known| end == *known))
        {
            found.push(path);
        }
    }
}

#[test]
fn every_test_that_the_specification_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let mut files = Vec::new();
    sources(root, &mut files);
    let code: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let named: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        // The last column.
        .filter_map(|line| line.trim_end_matches(['|', ' ']).rsplit('|').next())
        .flat_map(|tests| tests.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 40, "only {} tests found in the tables", named.len());
    for name in named {
        let defined = [
            format!("fn {name}("),
            format!("TEST({name})"),
            format!("({name},"),
            format!("func {name}("),
        ];
        assert!(defined.iter().any(|form| code.contains(form)), "no test is called {name}");
    }
}
