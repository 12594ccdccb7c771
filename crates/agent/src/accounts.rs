//! Users and groups as the image's own `/etc/passwd` and `/etc/group` have them.
//!
//! Read here and not through libc: the agent is static, and an image's NSS modules are not ours.

use rustix::fs::{FileType, Mode, OFlags};
use std::io::Read;

/// Larger files than this are not looked at: somebody else's file must not fill our memory.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

/// A user or group that the image does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownAccount {
    #[error("no user {0:?} in /etc/passwd of the image")]
    User(String),
    #[error("no group {0:?} in /etc/group of the image")]
    Group(String),
    #[error("{0:?} is not a user specification: name, uid, name:group or uid:gid")]
    Malformed(String),
}

/// Resolves a user specification in the running image; `None` is root.
pub(crate) fn resolve(specification: Option<&str>) -> Result<Account, UnknownAccount> {
    resolve_in(specification.unwrap_or("0"), &read("/etc/passwd"), &read("/etc/group"))
}

/// An absent, unreadable or odd file reads as empty: numeric ids still work then.
fn read(path: &str) -> String {
    // Non-blocking, since an image may have put a FIFO there.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else {
        return String::new();
    };
    let regular = rustix::fs::fstat(&fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if !regular || std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid, gid, home })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// An id is any 32-bit number but the one that means "leave it" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn resolve_in(specification: &str, passwd: &str, group: &str) -> Result<Account, UnknownAccount> {
    let (user, wanted_group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (specification, None),
    };
    if user.is_empty() || wanted_group == Some("") {
        return Err(UnknownAccount::Malformed(specification.to_owned()));
    }
    // A name wins over a number, as useradd allows names of digits.
    let entry = users(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| id(user).and_then(|uid| users(passwd).find(|entry| entry.uid == uid)));
    let (uid, primary, name, home) = match &entry {
        Some(entry) => (entry.uid, entry.gid, entry.name, entry.home),
        None => {
            let uid = id(user).ok_or_else(|| UnknownAccount::User(user.to_owned()))?;
            (uid, 0, "", "")
        }
    };
    let (gid, supplementary) = match wanted_group {
        // Who names a group wants that one, as docker has it.
        Some(wanted) => (
            groups(group)
                .find(|entry| entry.name == wanted)
                .map(|entry| entry.gid)
                .or_else(|| id(wanted))
                .ok_or_else(|| UnknownAccount::Group(wanted.to_owned()))?,
            Vec::new(),
        ),
        None => (primary, memberships(group, name)),
    };
    let mut all = vec![gid];
    all.extend(supplementary.into_iter().filter(|other| *other != gid));
    Ok(Account {
        uid,
        gid,
        groups: all,
        name: if name.is_empty() { uid.to_string() } else { name.to_owned() },
        home: if home.is_empty() { "/".to_owned() } else { home.to_owned() },
    })
}

fn memberships(group: &str, name: &str) -> Vec<u32> {
    if name.is_empty() {
        return Vec::new();
    }
    let mut gids: Vec<u32> = groups(group)
        .filter(|entry| entry.members.split(',').any(|member| member == name))
        .map(|entry| entry.gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        app:x:1000:1000:App,,,:/home/app:/bin/sh\n\
        77:x:500:500::/home/digits:\n\
        homeless:x:1001:1001::\n";
    const GROUP: &str = "root:x:0:\napp:x:1000:\nwheel:x:10:root,app\ndata:x:2000:app\n:x:1:app\n";

    fn account(specification: &str) -> Result<Account, UnknownAccount> {
        resolve_in(specification, PASSWD, GROUP)
    }

    #[test]
    fn a_name_brings_its_group_its_memberships_and_its_home() {
        let app = account("app").unwrap();
        assert_eq!((app.uid, app.gid), (1000, 1000));
        assert_eq!(app.groups, [1000, 10, 2000]);
        assert_eq!((app.name.as_str(), app.home.as_str()), ("app", "/home/app"));
        assert_eq!(account("1000"), Ok(app));
    }

    #[test]
    fn a_named_group_stands_alone() {
        let app = account("app:data").unwrap();
        assert_eq!((app.uid, app.gid, app.groups), (1000, 2000, vec![2000]));
        let app = account("1000:3000").unwrap();
        assert_eq!((app.uid, app.gid, app.groups), (1000, 3000, vec![3000]));
    }

    #[test]
    fn a_number_needs_no_entry_and_a_name_of_digits_is_a_name() {
        let nobody = account("4242").unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.groups), (4242, 0, vec![0]));
        assert_eq!((nobody.name.as_str(), nobody.home.as_str()), ("4242", "/"));
        assert_eq!(account("77").unwrap().uid, 500);
        assert_eq!(account("homeless").unwrap().home, "/");
        assert_eq!(resolve_in("0", "", "").unwrap().uid, 0);
    }

    #[test]
    fn unknown_names_and_malformed_specifications_are_refused() {
        assert_eq!(account("nobody"), Err(UnknownAccount::User("nobody".into())));
        assert_eq!(account("app:nogroup"), Err(UnknownAccount::Group("nogroup".into())));
        for text in ["", ":", "app:", ":10"] {
            assert_eq!(account(text), Err(UnknownAccount::Malformed(text.into())));
        }
        assert_eq!(account("4294967295"), Err(UnknownAccount::User("4294967295".into())));
        assert_eq!(account("-1"), Err(UnknownAccount::User("-1".into())));
    }
}
