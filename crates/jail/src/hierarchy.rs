//! The mounted cgroup hierarchies.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::{fs, io};

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point.
    pub path: PathBuf,
    /// Whether it is cgroup v2.
    pub unified: bool,
    /// The mount options, which name the controllers of cgroup v1.
    options: String,
}

impl Hierarchy {
    /// Returns whether it has a controller.
    pub fn has(&self, controller: &str) -> bool {
        let names = if self.unified {
            &fs::read_to_string(self.path.join("cgroup.controllers")).unwrap_or_default()
        } else {
            &self.options
        };
        names.split([' ', ',', '\n']).any(|name| name == controller)
    }
}

/// Returns the hierarchies of this mount namespace.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(parse_mounts(&fs::read("/proc/self/mountinfo")?))
}

/// Parses the hierarchies of proc_pid_mountinfo(5).
pub(crate) fn parse_mounts(mounts: &[u8]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(4);
        let mut fields = fields.skip_while(|field| *field != b"-");
        let (kind, options) = (fields.nth(1), fields.nth(1).unwrap_or_default());
        let unified = match kind {
            Some(b"cgroup2") => true,
            Some(b"cgroup") => false,
            _ => continue,
        };
        let path = PathBuf::from(OsString::from_vec(unescape(path.unwrap_or_default())));
        let options = String::from_utf8_lossy(options).into_owned();
        let hierarchy = Hierarchy { path, unified, options };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// Decodes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_hybrid_and_unified_layouts() {
        let text = b"24 1 0:21 / /proc rw - proc proc rw\n\
            30 25 0:26 / /sys/fs/cgroup/a\\040b rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
            31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = parse_mounts(text);
        assert_eq!(
            found,
            [
                Hierarchy {
                    path: "/sys/fs/cgroup/a b".into(),
                    unified: false,
                    options: "rw,cpu".into()
                },
                Hierarchy {
                    path: "/sys/fs/cgroup/unified".into(),
                    unified: true,
                    options: "rw".into()
                },
            ]
        );
        assert_eq!(parse_mounts(b""), []);
    }
}
