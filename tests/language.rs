//! Names and texts use the standard terms of the field, and not words of this project's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use regex::bytes::Regex;
use std::path::{Path, PathBuf};

/// A pattern in names and texts, and the standard term for it.
const WORDS: [(&str, &str); 28] = [
    (r"\b(Story|Stories|stories)\b", "ExecRecord, record"),
    (r"\b[Ll]oans?\b", "Borrowed, borrowed"),
    (r"\bTold\b *[{(<]", "StoredError"),
    (r"\bAttempt\b *[{(<]", "AsyncOp"),
    (r"\bHeart\b|\bheart\b", "Heartbeat"),
    (r"\b[Ll]eash\b", "lifeline"),
    (r"\b[Ff]arewell\b", "Shutdown"),
    (r"\bPlace\b *[{(<]", "ExecContext, Location, Destination"),
    (r"\b[Ww]ish(es)?\b", "SignalAction, request"),
    (r"\b[Ee]mbryo\b", "PendingChild"),
    (r"\bborn\b", "wait_exec, started"),
    (r"\bstirr?(ed|s)?\b", "notify"),
    (r"\b(is_)?(given|gave)_up\b|_given_up_", "closed, cancelled"),
    (r"\blet_go\b|_lets?_go_", "release, remove"),
    (r"\b(gave|given?) it up\b", "closed the connection, cancelled"),
    (r"\bturned (it|them|him) away\b", "refused"),
    (r"\bcan(not)? be had\b", "is available"),
    (r"\bno one's\b", "unknown, unused"),
    (r"\b[Ww]hoever waits\b", "the waiter, the client"),
    (r"\b([Ww]hat|which) came of (it|them)\b", "the result"),
    (r"\b(no|a) \w+ comes of it\b", "cancels, creates"),
    (r"\bbeing got\b|\bgetting of\b", "in-progress pull"),
    (r"\b[Oo]n what it stands\b", "backend details"),
    (r"\b(does|do|did|will) not let us have\b", "access denied"),
    (r"\b(does|do|did) not come to an end\b", "timed out"),
    (r"\bwhat they miss\b", "missing dependencies"),
    (r"\btakes? (it|them) up again\b", "reattach"),
    (r"\bdo(es)? not get on\b", "make progress"),
];

/// Folders of build outputs, downloads and recordings, and the one of the build tool.
const SKIPPED: [&str; 6] = ["target", "node_modules", "dist", "corpus", "seeds", "xtask"];
const ENDINGS: [&str; 11] = ["rs", "md", "toml", "c", "h", "go", "py", "ts", "mts", "mjs", "json"];

fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            texts(&path, found);
        } else if path.extension().is_some_and(|end| ENDINGS.iter().any(|known| end == *known)) {
            found.push(path);
        }
    }
}

/// Returns a pattern for all words. One scan, and ASCII only: slower ones take minutes.
fn words() -> Regex {
    let all = WORDS.map(|(word, _)| word).join("|");
    Regex::new(&format!("(?-u){all}")).unwrap()
}

/// Returns the places of words that have a standard term.
fn wrong(words: &Regex, text: &[u8]) -> Vec<String> {
    let place = |found: regex::bytes::Match<'_>| {
        let line = text[..found.start()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let is_its = |(word, _): &&(&str, &str)| {
            Regex::new(&format!("(?-u){word}")).unwrap().is_match(found.as_bytes())
        };
        let term = WORDS.iter().find(is_its).map_or("", |(_, term)| term);
        format!("{line}: {} (write: {term})", String::from_utf8_lossy(found.as_bytes()))
    };
    words.find_iter(text).map(place).collect()
}

#[test]
fn names_and_texts_use_the_standard_terms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (words, mut files, mut found) = (words(), Vec::new(), Vec::new());
    texts(root, &mut files);
    assert!(files.len() > 500, "{} files", files.len());
    for file in files.iter().filter(|file| !file.ends_with("tests/language.rs")) {
        let text = std::fs::read(file).unwrap();
        let place = file.strip_prefix(root).unwrap().display();
        found.extend(wrong(&words, &text).into_iter().map(|line| format!("{place}:{line}")));
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn word_with_a_standard_term_is_detected() {
    let words = words();
    for text in ["fn let_go(", "struct Place {", "the agent gave it up", "the farewell", "a loan"] {
        assert_eq!(wrong(&words, text.as_bytes()).len(), 1, "{text}");
    }
    for text in ["the first place", "told", "an attempt to", "a reader gives up", "history"] {
        assert!(wrong(&words, text.as_bytes()).is_empty(), "{text}");
    }
}
