//! No error has its source's text in its own: who prints both would say it twice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use regex::Regex;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Returns the texts of errors that repeat a source.
fn repeated(code: &str) -> Vec<&str> {
    // The attribute, a name, and the fields.
    let error = Regex::new(r"#\[error\(([^\]]*)\)\]\s*[^({#]*(\([^)]*\)|\{[^}]*\})").unwrap();
    let field = Regex::new(r"#\[(?:from|source)\]|\bsource:").unwrap();
    let repeats = Regex::new(r"\{(?:0|source)[:}]").unwrap();
    error
        .captures_iter(code)
        .map(|found| found.extract::<2>().1)
        .filter(|[text, fields]| repeats.is_match(text) && field.is_match(fields))
        .map(|[text, _]| text)
        .collect()
}

#[test]
fn no_error_repeats_its_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "crates", "conformance"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        let code = std::fs::read_to_string(&file).unwrap();
        assert_eq!(repeated(&code), [""; 0], "{}", file.display());
    }
}

#[test]
fn repeated_source_is_noticed() {
    let table = [
        ("#[error(\"a: {0}\")]\nA(#[from] B),\n", true),
        ("#[error(transparent)]\nA(#[from] B),\n", false),
        ("#[error(\"a: {0}\")]\nA(B),\n", false),
        ("#[error(\"a: {source}\")]\nA {\n    path: P,\n    source: B,\n},\n", true),
        ("#[error(\"a\")]\nA {\n    source: B,\n},\n", false),
        ("#[error(\"a: {0}\")]\nA(B),\n#[error(\"b\")]\nC(#[from] D),\n", false),
    ];
    for (code, expected) in table {
        assert_eq!(!repeated(code).is_empty(), expected, "{code}");
    }
}
