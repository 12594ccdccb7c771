//! The guest's kernel: the search for it, and the file that QEMU boots.

use crate::modules;
use msb_driver::{KernelBundle, Krunfw, find_krunfw};
use msb_state::{Failure, create_private_dir};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The distributions' directory of kernels.
const BOOT: &str = "/boot";

/// A guest kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Of a libkrunfw: without modules, for machines without firmware.
    Krunfw(Krunfw),
    /// Of a distribution: for a PC, with the modules to load.
    Image { path: PathBuf, modules: Vec<PathBuf> },
}

impl Kernel {
    /// Finds a kernel: the path in `MSB_KERNEL`, else libkrunfw, else the one that `msb setup
    /// kernel` unpacked in `home`, else a cloud kernel in `/boot`. The error lists what was tried.
    pub(crate) fn find(home: &Path) -> Result<Kernel, String> {
        if let Some(named) = env::var_os("MSB_KERNEL").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(named);
            return image(&path)
                .map_err(|why| format!("MSB_KERNEL names {}: {why}", path.display()));
        }
        let krunfw = match find_krunfw() {
            Ok(krunfw) => return Ok(Kernel::Krunfw(krunfw)),
            Err(why) => why,
        };
        let mut passed_over = vec![krunfw];
        let unpacked = home.join("kernel/boot");
        for folder in [unpacked.as_path(), Path::new(BOOT)] {
            match newest(folder) {
                Some(path) => match image(&path) {
                    Ok(kernel) => return Ok(kernel),
                    Err(why) => passed_over.push(why),
                },
                None => passed_over.push(format!("{} has no cloud kernel", folder.display())),
            }
        }
        Err(passed_over.join("; "))
    }

    /// Returns its path, for users.
    pub(crate) fn name(&self) -> String {
        match self {
            Kernel::Krunfw(krunfw) => krunfw.path.display().to_string(),
            Kernel::Image { path, .. } => path.display().to_string(),
        }
    }

    /// Returns the file that QEMU boots. A converted file is kept in `cache`.
    pub(crate) fn file(&self, cache: &Path) -> Result<PathBuf, Failure> {
        let source = match self {
            Kernel::Image { path, .. } => path,
            Kernel::Krunfw(krunfw) => &krunfw.path,
        };
        let found =
            fs::metadata(source).map_err(|error| Failure::boot_io("inspect", source, error))?;
        let is_image = matches!(self, Kernel::Image { .. });
        if is_image && is_readable(&found) {
            return Ok(source.clone());
        }
        // The name changes with the source.
        let (device, inode, at) = (found.dev(), found.ino(), found.mtime());
        let kind = if is_image { "image" } else { "elf" };
        let file = cache.join(format!("kernel-{device}-{inode}-{at}-{}.{kind}", found.len()));
        // Earlier versions created it for one user only.
        if !fs::metadata(&file).is_ok_and(|file| is_readable(&file)) {
            let text = |error: msb_state::Error| Failure::boot(error.to_string());
            create_private_dir(cache).map_err(text)?;
            let bytes = match self {
                Kernel::Image { path, .. } => {
                    fs::read(path).map_err(|error| Failure::boot_io("read", path, error))?
                }
                Kernel::Krunfw(krunfw) => wrap(&krunfw.kernel().map_err(Failure::boot)?),
            };
            write(&file, &bytes).map_err(|error| Failure::boot_io("write", &file, error))?;
        }
        Ok(file)
    }
}

/// Returns whether every user can read a file, QEMU's included.
fn is_readable(found: &fs::Metadata) -> bool {
    found.mode() & 0o004 != 0
}

/// Writes a file atomically; concurrent writers do no harm.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(bytes)?;
    // QEMU has its own id; other users cannot enter the cache.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Returns the newest cloud kernel of a directory.
fn newest(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let kernels = names.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("vmlinuz-") && name.contains("-cloud-")
    });
    kernels.max_by_key(|path| version(&path.to_string_lossy()))
}

/// Returns the numbers in a name, by which 6.10 is newer than 6.9.
fn version(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Returns a kernel with its modules, which are at their place in the package.
fn image(path: &Path) -> Result<Kernel, String> {
    msb_state::check_trusted(path).map_err(|error| error.to_string())?;
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let release = name.split_once('-').map(|(_, release)| release).unwrap_or_default();
    let root = path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let folders = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path).join(release));
    let modules = folders.iter().find(|folder| folder.is_dir() && !release.is_empty());
    let modules = match modules {
        Some(folder) => modules::needed(folder)?,
        // Everything is built in, or the console says what is missing.
        None => Vec::new(),
    };
    Ok(Kernel::Image { path, modules })
}

/// Wraps a kernel's memory image into an ELF file that boots by PVH: one segment, and the note with
/// the entry point.
fn wrap(kernel: &KernelBundle) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const NOTE: u64 = 20;
    /// Offset of the segment in the file: a page, for its alignment.
    const AT: u64 = 4096;
    let size = kernel.bytes.len() as u64;
    let mut file = Vec::with_capacity(kernel.bytes.len() + 4096);
    // The identification: 64 bits, little-endian, version 1.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    // An executable, for x86-64, version 1.
    file.extend(half(&[2, 62, 1, 0]));
    for value in [u64::from(kernel.entry), HEADER, 0] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    // No flags; the sizes of header and segments, two of these, no sections.
    file.extend(half(&[0, 0, 64, 56, 2, 64, 0, 0]));
    let note_at = HEADER + 2 * SEGMENT;
    // PT_LOAD, readable, writable and executable; PT_NOTE, readable.
    let segments = [
        (1_u32, 7_u32, [AT, kernel.load, kernel.load, size, size, 4096]),
        (4, 4, [note_at, 0, 0, NOTE, NOTE, 4]),
    ];
    for (kind, flags, values) in segments {
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend_from_slice(&flags.to_le_bytes());
        values.iter().for_each(|value| file.extend_from_slice(&value.to_le_bytes()));
    }
    // Name of 4 bytes, description of 4, type 18: XEN_ELFNOTE_PHYS32_ENTRY.
    for value in [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), kernel.entry] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.resize(4096, 0);
    file.extend_from_slice(&kernel.bytes);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_cloud_kernel_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vmlinuz-6.9.1-cloud-amd64", "vmlinuz-6.10.2-cloud-amd64", "vmlinuz-7.0-amd64"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(newest(folder.path()).unwrap().ends_with("vmlinuz-6.10.2-cloud-amd64"));
        assert_eq!(newest(Path::new("/nonexistent")), None);
    }

    #[test]
    fn modules_are_found_in_the_kernels_package() {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("lib/modules/6.1-cloud");
        fs::create_dir_all(root.path().join("boot")).unwrap();
        let kernel = root.path().join("boot/vmlinuz-6.1-cloud");
        fs::write(&kernel, "").unwrap();
        let Ok(Kernel::Image { modules: none, .. }) = image(&kernel) else { panic!("no kernel") };
        assert!(none.is_empty());
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("modules.builtin"), "virtio_pci.ko\n").unwrap();
        assert!(image(&kernel).unwrap_err().contains("has no virtio_console"));
        assert!(image(Path::new("/nonexistent/k")).is_err());
    }

    #[test]
    fn wrapped_kernel_is_an_elf_file_with_an_entry_point() {
        let kernel = KernelBundle { bytes: vec![7; 10_000], load: 0x100_0000, entry: 0x123_4567 };
        let file = wrap(&kernel);
        assert_eq!(file.len(), 4096 + 10_000);
        let at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        assert_eq!((at(24), at(32)), (0x123_4567, 64), "entry, program headers");
        assert_eq!((at(72), at(80), at(96)), (4096, 0x100_0000, 10_000), "the segment");
        let note = usize::try_from(at(128)).unwrap();
        assert_eq!(&file[note + 12..note + 20], b"Xen\0\x67\x45\x23\x01");
    }
}
