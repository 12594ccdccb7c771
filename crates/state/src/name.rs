//! Names of sandboxes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of a sandbox: 1 to 128 letters, digits, `.`, `_` and `-`, starting with a letter or a
/// digit. It is a safe name for a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a valid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// There are no characters.
    #[error("the name of a sandbox is empty; give it 1 to 128 characters")]
    Empty,
    /// There are more than 128 bytes.
    #[error("the name of a sandbox has {0} bytes; at most 128 are allowed")]
    TooLong(usize),
    /// The first character is neither a letter nor a digit.
    #[error("the name of a sandbox starts with {0:?}; start it with a letter or a digit")]
    BadStart(char),
    /// A character is not allowed.
    #[error("the name of a sandbox contains {0:?}; use letters, digits, '.', '_' and '-'")]
    BadCharacter(char),
}

impl Name {
    /// Longest name, in bytes.
    pub const MAX: usize = 128;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first = text.chars().next().ok_or(InvalidName::Empty)?;
        if text.len() > Name::MAX {
            return Err(InvalidName::TooLong(text.len()));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(InvalidName::BadStart(first));
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            Some(bad) => Err(InvalidName::BadCharacter(bad)),
            None => Ok(Name(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_accepted() {
        for text in ["a", "9", "web.1_x-y", &"n".repeat(128)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn invalid_names_are_refused_with_the_reason() {
        assert_eq!("".parse::<Name>(), Err(InvalidName::Empty));
        assert_eq!("n".repeat(129).parse::<Name>(), Err(InvalidName::TooLong(129)));
        assert_eq!("..".parse::<Name>(), Err(InvalidName::BadStart('.')));
        assert_eq!("-x".parse::<Name>(), Err(InvalidName::BadStart('-')));
        assert_eq!("a/b".parse::<Name>(), Err(InvalidName::BadCharacter('/')));
        assert_eq!("a\0".parse::<Name>(), Err(InvalidName::BadCharacter('\0')));
        assert_eq!("é".parse::<Name>(), Err(InvalidName::BadStart('é')));
    }
}
