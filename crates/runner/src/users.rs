//! The subordinate ids of an ordinary user, from `/etc/subuid` and `/etc/subgid`.

use std::fs;

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) count: u32,
}

/// Returns the range of a user in `/etc/subuid` or `/etc/subgid`.
pub(crate) fn range_in(file: &str, uid: u32) -> Option<Range> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&fs::read_to_string(file).ok()?, uid, name_of(&passwd, uid))
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

fn find(ranges: &str, uid: u32, name: Option<&str>) -> Option<Range> {
    ranges.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range =
            Range { start: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        (ours && range.count > 0).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_found_by_name_and_by_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("ann"));
        let ranges = "bob:1:1\nann:100000:65536\n1001:200000:10\nann:x:y\n";
        let range = |start, count| Some(Range { start, count });
        assert_eq!(find(ranges, 1000, Some("ann")), range(100_000, 65_536));
        assert_eq!(find(ranges, 1001, None), range(200_000, 10));
        assert_eq!(find(ranges, 1002, None), None);
    }
}
