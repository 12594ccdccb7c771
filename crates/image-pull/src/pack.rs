//! Packs a directory into a layer.

use msb_image::{Blob, Error, Result, Store};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Packs a directory into an uncompressed tar among the blobs. Its bytes depend on the content
/// alone, and not on the order in which the filesystem lists it.
pub(crate) fn pack(store: &Store, root: &Path) -> Result<Blob> {
    let failed = |error| Error::io("pack", root, error);
    let file = BufWriter::with_capacity(256 * 1024, store.blob_writer()?);
    let mut packer = Packer { to: Builder::new(file), seen: HashMap::new() };
    packer.add_tree(root, Path::new("./"))?;
    let file = packer.to.into_inner().map_err(failed)?;
    file.into_inner().map_err(|error| failed(error.into_error()))?.finish(None)
}

struct Packer<W: Write> {
    to: Builder<W>,
    /// The first name of each file with several hard links, by device and inode.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    /// Adds a file or directory tree. Iterative, so that its depth takes no stack.
    fn add_tree(&mut self, root: &Path, name: &Path) -> Result<()> {
        let mut pending = vec![(root.to_path_buf(), name.to_path_buf())];
        while let Some((path, name)) = pending.pop() {
            let meta = fs::symlink_metadata(&path).map_err(|e| Error::io("inspect", &path, e))?;
            self.add_entry(&path, &name, &meta).map_err(|error| Error::io("pack", &path, error))?;
            if meta.is_dir() {
                let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
                let mut entries = entries.map_err(|error| Error::io("read", &path, error))?;
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
                let children = entries.into_iter().map(|e| (e.path(), name.join(e.file_name())));
                pending.extend(children);
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, path: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        if !meta.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.seen.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(EntryType::Link);
                return self.to.append_link(&mut header, name, first);
            }
            self.seen.insert((meta.dev(), meta.ino()), name.to_path_buf());
        }
        self.add_xattrs(path)?;
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.to.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(meta.len());
            // Exactly as many bytes as the header declares, even if the file changes size.
            let content = io::Read::take(fs::File::open(path)?, meta.len());
            return self.to.append_data(
                &mut header,
                name,
                ExactReader { from: content, remaining: meta.len() },
            );
        }
        header.set_entry_type(match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Char,
        });
        if kind.is_block_device() || kind.is_char_device() {
            header.set_device_major(rustix::fs::major(meta.rdev()))?;
            header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        }
        self.to.append_data(&mut header, name, io::empty())
    }

    /// Adds the extended attributes of the next member.
    fn add_xattrs(&mut self, path: &Path) -> io::Result<()> {
        let mut names = vec![0; 64 * 1024];
        let Ok(length) = rustix::fs::llistxattr(path, names.as_mut_slice()) else { return Ok(()) };
        let names = names.get(..length).unwrap_or_default();
        let mut found = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 64 * 1024];
            let name = OsStr::from_bytes(name);
            let wanted = name == "security.capability" || name.as_bytes().starts_with(b"user.");
            if let (true, Ok(length)) =
                (wanted, rustix::fs::lgetxattr(path, name, value.as_mut_slice()))
            {
                value.truncate(length);
                found.push((format!("SCHILY.xattr.{}", name.display()), value));
            }
        }
        let records = found.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        if found.is_empty() { Ok(()) } else { self.to.append_pax_extensions(records) }
    }
}

/// Fails if a file ends before its declared size, which would misplace all later members.
struct ExactReader<R> {
    from: R,
    remaining: u64,
}

impl<R: io::Read> io::Read for ExactReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.remaining = self.remaining.saturating_sub(read as u64);
        if read == 0 && self.remaining > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it was truncated while it was read"));
        }
        Ok(read)
    }
}
