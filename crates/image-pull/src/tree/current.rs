//! What the current layer has created, and the times that its directories get at its end.

use rustix::fs::Stat;
use std::collections::HashSet;

/// The current layer. Its own whiteouts do not apply to what it created.
#[derive(Debug, Default)]
pub(super) struct CurrentLayer {
    inodes: HashSet<u64>,
    /// Hard links to files of lower layers: the inode of their directory, and their name.
    links: HashSet<(u64, Vec<u8>)>,
    times: Vec<DirectoryTime>,
    /// Directories with a time, which need not be of this layer.
    kept: HashSet<u64>,
}

/// The time of a directory, which changes in it update.
#[derive(Debug)]
pub(super) struct DirectoryTime {
    pub(super) path: Vec<u8>,
    pub(super) inode: u64,
    pub(super) mtime: (i64, u32),
}

impl CurrentLayer {
    /// Whether the layer created a file.
    pub(super) fn created(&self, directory: u64, name: &[u8], inode: u64) -> bool {
        self.inodes.contains(&inode)
            || (!self.links.is_empty() && self.links.contains(&(directory, name.to_vec())))
    }

    pub(super) fn record(&mut self, found: &Stat) {
        self.inodes.insert(found.st_ino);
    }

    /// Records a hard link. Other names of a lower file stay those of the lower layer.
    pub(super) fn record_link(&mut self, directory: &Stat, name: &[u8], found: &Stat) {
        if !self.inodes.contains(&found.st_ino) {
            self.links.insert((directory.st_ino, name.to_vec()));
        }
    }

    /// Sets the time that a directory gets at the end. The last one applies.
    pub(super) fn set_time(&mut self, path: Vec<u8>, found: &Stat, mtime: (i64, u32)) {
        self.kept.insert(found.st_ino);
        self.times.push(DirectoryTime { path, inode: found.st_ino, mtime });
    }

    /// Keeps the present time of a directory of a lower layer, before the layer changes its content.
    pub(super) fn keep_time(&mut self, path: &[u8], found: &Stat) {
        if !self.inodes.contains(&found.st_ino) && !self.kept.contains(&found.st_ino) {
            let nanos = u32::try_from(found.st_mtime_nsec).unwrap_or_default();
            self.set_time(path.to_vec(), found, (found.st_mtime, nanos));
        }
    }

    pub(super) fn into_times(self) -> Vec<DirectoryTime> {
        self.times
    }
}
