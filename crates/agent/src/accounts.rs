//! Users and groups from `/etc/passwd` and `/etc/group` of the image.
//!
//! Parsed here and not by libc: the agent is static and cannot load the image's NSS modules.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::io::{self, Read};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The user of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

/// Why a user specification has no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("no user {0:?} in /etc/passwd of the image")]
    User(String),
    #[error("no group {0:?} in /etc/group of the image")]
    Group(String),
    #[error("{0:?} is no user specification; use name, uid, name:group, uid:gid or :gid")]
    Malformed(String),
    #[error("cannot read {path}: {why}")]
    Unreadable { path: &'static str, errno: i32, why: String },
}

impl AccountError {
    fn unreadable(path: &'static str, errno: Errno, why: &str) -> AccountError {
        AccountError::Unreadable { path, errno: errno.raw_os_error(), why: why.to_owned() }
    }
}

/// Resolves a user specification in the running image; `None` is root. Reads files of the guest,
/// which may block forever: see `lookup`.
pub(crate) fn resolve(specification: Option<&str>) -> Result<Account, AccountError> {
    resolve_with(specification.unwrap_or("0"), read(PASSWD), read(GROUP))
}

/// Resolves a user specification whose files cannot be read in time.
pub(crate) fn without_files(specification: Option<&str>) -> Result<Account, AccountError> {
    let error = AccountError::unreadable(PASSWD, Errno::TIMEDOUT, "timed out");
    resolve_with(specification.unwrap_or("0"), Err(error), Ok(String::new()))
}

/// Resolves a specification: a number needs no file, a name needs both.
fn resolve_with(
    specification: &str,
    passwd: Result<String, AccountError>,
    group: Result<String, AccountError>,
) -> Result<Account, AccountError> {
    let user = specification.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
    let text = |file: &Result<String, AccountError>| file.clone().unwrap_or_default();
    let account = resolve_in(specification, &text(&passwd), &text(&group));
    match passwd.and(group) {
        Err(error) if account.is_err() || id(user).is_none() => Err(error),
        _ => account,
    }
}

/// Reads a file as text. A missing file is empty.
fn read(path: &'static str) -> Result<String, AccountError> {
    let refuse = |errno, why| Err(AccountError::unreadable(path, errno, why));
    let system = |errno: Errno| {
        let text = io::Error::from(errno).to_string();
        AccountError::unreadable(path, errno, text.split(" (os error").next().unwrap_or(&text))
    };
    // Non-blocking, since an image may have a FIFO there. Follows links, since an image may keep
    // the file elsewhere.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(system(errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(system)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse(Errno::INVAL, "not a regular file");
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_FILE) {
        return refuse(Errno::FBIG, "larger than 16 MiB");
    }
    let mut bytes = Vec::new();
    // One byte more, since the reported size may be wrong.
    let result = std::fs::File::from(fd).take(MAX_FILE + 1).read_to_end(&mut bytes);
    if let Err(error) = result {
        return Err(system(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    }
    if bytes.len() as u64 > MAX_FILE {
        return refuse(Errno::FBIG, "larger than 16 MiB");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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

/// Parses an id: any 32-bit number but the one that means "unchanged" to the kernel.
fn id(text: &str) -> Option<u32> {
    // `parse` alone would accept a sign.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id != u32::MAX)
}

/// As docker has it: `1000:` is `1000`, and `:1000` is root with that group.
fn resolve_in(specification: &str, passwd: &str, group: &str) -> Result<Account, AccountError> {
    let (user, wanted_group) = specification.split_once(':').unwrap_or((specification, ""));
    let is_empty = user.is_empty() && wanted_group.is_empty();
    if is_empty || specification.contains(char::is_whitespace) {
        return Err(AccountError::Malformed(specification.to_owned()));
    }
    let user = if user.is_empty() { "0" } else { user };
    let wanted_group = (!wanted_group.is_empty()).then_some(wanted_group);
    // A name wins over a number, as useradd allows names of digits.
    let entry = users(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| id(user).and_then(|uid| users(passwd).find(|entry| entry.uid == uid)));
    let (uid, primary, name, home) = match &entry {
        Some(entry) => (entry.uid, entry.gid, entry.name, entry.home),
        None => {
            let uid = id(user).ok_or_else(|| AccountError::User(user.to_owned()))?;
            (uid, 0, "", "")
        }
    };
    let (gid, supplementary) = match wanted_group {
        // A group that is named is the only one, as in docker.
        Some(wanted) => (
            groups(group)
                .find(|entry| entry.name == wanted)
                .map(|entry| entry.gid)
                .or_else(|| id(wanted))
                .ok_or_else(|| AccountError::Group(wanted.to_owned()))?,
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

    fn account(specification: &str) -> Result<Account, AccountError> {
        resolve_in(specification, PASSWD, GROUP)
    }

    #[test]
    fn name_has_group_memberships_and_home() {
        let app = account("app").unwrap();
        assert_eq!((app.uid, app.gid), (1000, 1000));
        assert_eq!(app.groups, [1000, 10, 2000]);
        assert_eq!((app.name.as_str(), app.home.as_str()), ("app", "/home/app"));
        assert_eq!(account("1000"), Ok(app));
    }

    #[test]
    fn named_group_has_no_memberships() {
        let app = account("app:data").unwrap();
        assert_eq!((app.uid, app.gid, app.groups), (1000, 2000, vec![2000]));
        let app = account("1000:3000").unwrap();
        assert_eq!((app.uid, app.gid, app.groups), (1000, 3000, vec![3000]));
    }

    #[test]
    fn either_side_of_the_colon_may_be_empty() {
        for (given, same) in [("app:", "app"), ("1000:", "1000"), ("4242:", "4242")] {
            assert_eq!(account(given), account(same), "{given}");
        }
        for (given, gid) in [(":data", 2000), (":10", 10), (":4242", 4242)] {
            let root = account(given).unwrap();
            assert_eq!((root.uid, root.gid, root.groups), (0, gid, vec![gid]), "{given}");
            assert_eq!((root.name.as_str(), root.home.as_str()), ("root", "/root"));
        }
    }

    #[test]
    fn number_needs_no_entry_and_digits_may_be_a_name() {
        let nobody = account("4242").unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.groups), (4242, 0, vec![0]));
        assert_eq!((nobody.name.as_str(), nobody.home.as_str()), ("4242", "/"));
        assert_eq!(account("77").unwrap().uid, 500);
        assert_eq!(account("homeless").unwrap().home, "/");
        assert_eq!(resolve_in("0", "", "").unwrap().uid, 0);
    }

    #[test]
    fn j5_number_needs_no_readable_file() {
        let unreadable = |path| Err(AccountError::unreadable(path, Errno::INVAL, "a FIFO"));
        let files = [
            (unreadable("passwd"), Ok(GROUP.to_owned())),
            (Ok(PASSWD.to_owned()), unreadable("group")),
        ];
        for (passwd, group) in files {
            let resolve = |text| resolve_with(text, passwd.clone(), group.clone());
            for number in ["0", "1000", "4242", "1000:2000", "1000:", ":2000"] {
                assert!(resolve(number).is_ok(), "{number}");
            }
            for name in ["app", "app:2000", "nobody"] {
                let error = resolve(name).unwrap_err();
                assert!(matches!(error, AccountError::Unreadable { errno: 22, .. }), "{name}");
            }
        }
        let error = resolve_with("1000:x", Ok(PASSWD.into()), unreadable("group")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read group: a FIFO");
    }

    #[test]
    fn unknown_or_malformed_specifications_are_refused() {
        assert_eq!(account("nobody"), Err(AccountError::User("nobody".into())));
        assert_eq!(account("app:nogroup"), Err(AccountError::Group("nogroup".into())));
        for text in ["", ":", " ", " app", "app ", "app: 10", "1000\t:10", "1000 10"] {
            assert_eq!(account(text), Err(AccountError::Malformed(text.into())));
        }
        assert_eq!(account("4294967295"), Err(AccountError::User("4294967295".into())));
        for number in ["-1", "+1000"] {
            assert_eq!(account(number), Err(AccountError::User(number.into())));
        }
        assert_eq!(account("app:+10"), Err(AccountError::Group("+10".into())));
    }
}
