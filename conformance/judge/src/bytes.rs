//! Bytes in cases, and expectations about bytes.

use crate::format::{Bytes, Form, Hex, Match, Matches};
use sha2::{Digest, Sha256};

/// The placeholder for the run's own path in every text.
pub(crate) const OWN_PATH: &str = "@T@";

impl Bytes {
    /// Returns the bytes, with the run's own path inserted.
    pub(crate) fn value(&self, own_path: &str) -> Vec<u8> {
        match self {
            Bytes::Plain(text) | Bytes::Form(Form::Text(text)) => {
                text.replace(OWN_PATH, own_path).into_bytes()
            }
            Bytes::Form(Form::Hex(Hex(bytes))) => bytes.clone(),
            Bytes::Form(Form::Repeat { of, count }) => of.value(own_path).repeat(*count),
            Bytes::Form(Form::Cycle(count)) => {
                // Whole periods, because some cases have many megabytes.
                let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(count / 251 + 1);
                bytes.truncate(*count);
                bytes
            }
            Bytes::Form(Form::Concat(parts)) => {
                parts.iter().flat_map(|part| part.value(own_path)).collect()
            }
        }
    }
}

impl Match {
    /// Returns how `got` differs from the expectation.
    pub(crate) fn problem(&self, got: &[u8], own_path: &str) -> Option<String> {
        match self {
            Match::Exact(bytes) => unequal(got, &bytes.value(own_path)),
            Match::All(all) => all.problem(got, own_path),
        }
    }
}

fn unequal(got: &[u8], wanted: &[u8]) -> Option<String> {
    (got != wanted).then(|| format!("expected {}, got {}", show(wanted), show(got)))
}

impl Matches {
    fn problem(&self, got: &[u8], own_path: &str) -> Option<String> {
        let exact = || unequal(got, &self.exact.as_ref()?.value(own_path));
        let len = || {
            let len = self.len.filter(|len| *len != got.len())?;
            Some(format!("expected {len} bytes, got {}: {}", got.len(), show(got)))
        };
        let sum = || {
            let digest: String =
                Sha256::digest(got).iter().map(|byte| format!("{byte:02x}")).collect();
            let wanted = self.sha256.as_ref().filter(|wanted| **wanted != digest)?;
            Some(format!("expected SHA-256 {wanted}, got {digest} of {}", show(got)))
        };
        let holds = |bytes: &Bytes| find(got, &bytes.value(own_path)).is_some();
        let contains = || {
            let missing = self.contains.iter().find(|bytes| !holds(bytes))?;
            Some(format!("expected {} in {}", show(&missing.value(own_path)), show(got)))
        };
        let absent = || {
            let present = self.absent.iter().find(|bytes| holds(bytes))?;
            Some(format!("expected no {} in {}", show(&present.value(own_path)), show(got)))
        };
        exact().or_else(len).or_else(sum).or_else(contains).or_else(absent).or_else(|| {
            self.matches_problem(got, own_path).or_else(|| self.lines_problem(got, own_path))
        })
    }

    fn matches_problem(&self, got: &[u8], own_path: &str) -> Option<String> {
        let pattern = self.matches.as_ref()?.replace(OWN_PATH, own_path);
        // The whole text; `.` matches any byte but a newline.
        match regex::bytes::Regex::new(&format!("(?-u)^(?:{pattern})$")) {
            Ok(regex) if regex.is_match(got) => None,
            Ok(_) => Some(format!("expected a match of {pattern:?}, got {}", show(got))),
            Err(error) => Some(error.to_string()),
        }
    }

    fn lines_problem(&self, got: &[u8], own_path: &str) -> Option<String> {
        let mut wanted: Vec<Vec<u8>> = self
            .lines
            .as_ref()?
            .iter()
            .map(|line| line.replace(OWN_PATH, own_path).into_bytes())
            .collect();
        let mut lines: Vec<Vec<u8>> =
            got.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        // A final newline does not begin another line.
        let ended = lines.pop_if(|last| last.is_empty()).is_some() || got.is_empty();
        wanted.sort();
        lines.sort();
        let wrong =
            || format!("expected these lines in any order {:?}, got {}", self.lines, show(got));
        (!ended || wanted != lines).then(wrong)
    }
}

/// Returns the offset of `part` in `whole`.
pub(crate) fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    whole.windows(part.len()).position(|window| window == part)
}

/// Formats bytes for a message, shortened.
pub(crate) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    let start = bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii();
    match bytes.len().checked_sub(SHOWN) {
        Some(1..) => format!("\"{start}\"... ({} bytes)", bytes.len()),
        _ => format!("\"{start}\""),
    }
}
