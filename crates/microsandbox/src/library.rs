//! Locates the companion programs of this library.

use msb_state::{Companions, Error};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Finds the runner and the agent: by the environment, else beside the program or this library.
pub(crate) fn companions() -> Result<Companions, Error> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    Companions::find(FOLDER.get_or_init(folder).as_deref())
}

/// Returns the directory of the file that this code was loaded from.
fn folder() -> Option<PathBuf> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let file = file_at(&maps, (folder as fn() -> Option<PathBuf>) as usize)?;
    // Symbolic links are resolved: the companions are beside the file itself.
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    file.parent().map(Path::to_path_buf)
}

/// Returns the file that is mapped at an address (proc_pid_maps(5)).
fn file_at(maps: &[u8], address: usize) -> Option<PathBuf> {
    let line = maps.split(|byte| *byte == b'\n').find(|line| {
        let range = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let mut ends = range.split(|byte| *byte == b'-').map(|text| {
            std::str::from_utf8(text).ok().and_then(|text| usize::from_str_radix(text, 16).ok())
        });
        matches!((ends.next(), ends.next()),
            (Some(Some(start)), Some(Some(end))) if (start..end).contains(&address))
    })?;
    // Five fields, then the path, which may contain spaces.
    let start = line.iter().position(|byte| *byte == b'/')?;
    Some(PathBuf::from(OsStr::from_bytes(line.get(start..)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_file_is_found_also_with_spaces_in_its_path() {
        let maps = b"1000-2000 r--p 00000000 08:01 1 /usr/lib/a.so\n\
            2000-3000 r-xp 00001000 08:01 1 /opt/my libs/b.so\n\
            3000-4000 rw-p 00000000 00:00 0 \n";
        assert_eq!(file_at(maps, 0x1fff), Some("/usr/lib/a.so".into()));
        assert_eq!(file_at(maps, 0x2000), Some("/opt/my libs/b.so".into()));
        assert_eq!(file_at(maps, 0x3000), None);
        assert_eq!(file_at(maps, 0x9000), None);
    }

    #[test]
    fn this_code_is_found_beside_the_test_program() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        assert_eq!(folder().as_deref(), own.parent());
    }
}
