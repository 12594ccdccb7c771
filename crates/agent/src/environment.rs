//! A command's environment: the request's entries, completed from the account.

use crate::accounts::Account;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The `PATH` if none is set: Docker's, and busybox's own default.
pub(crate) const DEFAULT_PATH: &[u8] =
    b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Completes `NAME=value` entries: the last one of a name wins, and values of the account fill
/// those that are not set. The agent's own environment is not inherited.
pub(crate) fn complete(sent: &[Vec<u8>], account: &Account, tty: bool) -> Vec<Vec<u8>> {
    let mut entries: Vec<Vec<u8>> = Vec::with_capacity(sent.len() + 5);
    let mut indexes: HashMap<Vec<u8>, usize> = HashMap::new();
    for entry in sent {
        match indexes.entry(name(entry).to_vec()) {
            Entry::Occupied(index) => {
                if let Some(old) = entries.get_mut(*index.get()) {
                    old.clone_from(entry);
                }
            }
            Entry::Vacant(index) => {
                index.insert(entries.len());
                entries.push(entry.clone());
            }
        }
    }
    let mut default = |key: &[u8], value: &[u8]| {
        if !indexes.contains_key(key) {
            entries.push([key, b"=", value].concat());
        }
    };
    default(b"PATH", DEFAULT_PATH);
    default(b"HOME", account.home.as_bytes());
    default(b"USER", account.name.as_bytes());
    default(b"LOGNAME", account.name.as_bytes());
    if tty {
        default(b"TERM", b"xterm");
    }
    entries
}

/// Returns the value of `key` in entries from [`complete`].
pub(crate) fn get<'a>(entries: &'a [Vec<u8>], key: &[u8]) -> Option<&'a [u8]> {
    entries.iter().find(|entry| name(entry) == key).and_then(|entry| entry.get(key.len() + 1..))
}

fn name(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { uid: 0, gid: 0, groups: vec![0], name: "root".into(), home: "/root".into() }
    }

    fn texts(entries: &[Vec<u8>]) -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
    }

    #[test]
    fn last_entry_wins_at_the_index_of_the_first() {
        let sent = [b"A=1".to_vec(), b"PATH=/x".to_vec(), b"A=2=3".to_vec(), b"HOME=".to_vec()];
        let entries = complete(&sent, &account(), false);
        assert_eq!(texts(&entries), ["A=2=3", "PATH=/x", "HOME=", "USER=root", "LOGNAME=root"]);
        assert_eq!(get(&entries, b"A"), Some(&b"2=3"[..]));
        assert_eq!(get(&entries, b"HOME"), Some(&b""[..]));
        assert_eq!(get(&entries, b"TERM"), None);
    }

    #[test]
    fn term_is_set_only_with_a_terminal() {
        assert_eq!(get(&complete(&[], &account(), true), b"TERM"), Some(&b"xterm"[..]));
        assert_eq!(get(&complete(&[], &account(), false), b"TERM"), None);
        assert_eq!(get(&complete(&[], &account(), false), b"PATH"), Some(DEFAULT_PATH));
    }
}
