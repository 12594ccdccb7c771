//! Directories that no archive contains: parents of members, and those that a configuration names.

use super::{MAX_DEPTH, Tree, components, too_deep};
use msb_image::Result;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Most links that are followed in one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

impl Tree {
    /// Creates a directory that the configuration names, if it is missing.
    pub(crate) fn create_directory(&mut self, path: &str) -> Result<()> {
        let parts = components(path.as_bytes())?;
        let key = parts.join(&b'/');
        match self.resolve(&key, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => self.create_directories(&parts).map(drop),
            Err(error) => Err(self.image_error(path.as_bytes(), error)),
        }
    }

    /// Creates a directory and its missing parents, also where a link leads to none yet. As for the
    /// kernel, a link is resolved with the tree as its root.
    pub(super) fn create_directories(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut rest: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        // The part of the path that was visited, without links.
        let mut path: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                path.pop();
                continue;
            }
            path.push(name);
            if path.len() > MAX_DEPTH {
                return Err(too_deep());
            }
            let key = path.join(&b'/');
            let failed = |error| self.image_error(&key, error);
            match self.resolve(&key, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT) => self.create_one(&path)?,
                Err(error) => return Err(failed(error)),
                Ok(found) => match link_target(&found).map_err(failed)? {
                    None => {}
                    Some(_) if links == MAX_LINKS => return Err(failed(Errno::LOOP)),
                    Some(target) => {
                        links += 1;
                        let kept = if target.starts_with(b"/") { 0 } else { path.len() - 1 };
                        path.truncate(kept);
                        let parts = target.rsplit(|byte| *byte == b'/');
                        let parts = parts.filter(|part| !part.is_empty() && *part != b".");
                        rest.extend(parts.map(<[u8]>::to_vec));
                    }
                },
            }
        }
        let key = path.join(&b'/');
        self.resolve(&key, flags).map_err(|error| self.image_error(&key, error))
    }

    /// Creates a directory whose path has no link.
    fn create_one(&mut self, path: &[Vec<u8>]) -> Result<()> {
        let Some((name, parent)) = path.split_last() else { return Ok(()) };
        let (key, parent) = (path.join(&b'/'), parent.join(&b'/'));
        let at = self.resolve(&parent, OFlags::PATH | OFlags::DIRECTORY);
        let at = at.map_err(|error| self.image_error(&key, error))?;
        self.keep_time(&parent, at.as_fd())?;
        rustix::fs::mkdirat(&at, name, Mode::RWXU)
            // Independent of the umask.
            .and_then(|()| {
                rustix::fs::chmodat(&at, name, Mode::from_raw_mode(0o755), AtFlags::empty())
            })
            .map_err(|error| self.image_error(&key, error))?;
        self.record_inode(at.as_fd(), name)
    }
}

/// Returns where a file leads if it is a link.
fn link_target(file: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    match FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(file, c"", Vec::new())?;
            Ok(Some(target.into_bytes()))
        }
        _ => Ok(None),
    }
}
