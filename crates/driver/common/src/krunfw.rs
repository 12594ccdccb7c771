//! libkrunfw: a guest kernel in the form of a shared library.

use msb_state::check_trusted;
use object::{Object, ObjectSection, ObjectSymbol};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The library's name, with the ABI that libkrun 1 loads.
const NAME: &str = "libkrunfw.so.5";
/// The system loader's directories on common distributions.
const SYSTEM: [&str; 8] = [
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
];
/// Load address of the kernel in the guest.
const LOAD: u64 = 0x100_0000;

/// A libkrunfw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Krunfw {
    /// Its path.
    pub path: PathBuf,
}

/// Finds libkrunfw: the path in `MSB_LIBKRUNFW`, else beside the running program, else in the
/// system loader's directories. The error lists them.
pub fn find_krunfw() -> Result<Krunfw, String> {
    if let Some(named) = env::var_os("MSB_LIBKRUNFW").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(named);
        return if path.is_file() {
            trusted(path)
        } else {
            Err(format!("MSB_LIBKRUNFW names {}, which is not a file", path.display()))
        };
    }
    let program = env::current_exe().ok();
    let folders = folders(
        program.as_deref().and_then(Path::parent),
        &env::var_os("LD_LIBRARY_PATH").unwrap_or_default(),
    );
    let found = folders.iter().map(|folder| folder.join(NAME)).find(|path| path.is_file());
    found.map_or_else(
        || {
            let searched: Vec<_> =
                folders.iter().map(|folder| folder.display().to_string()).collect();
            let searched = searched.join(", ");
            Err(format!("{NAME} was not found in {searched}; set MSB_LIBKRUNFW to its path"))
        },
        trusted,
    )
}

fn trusted(path: PathBuf) -> Result<Krunfw, String> {
    check_trusted(&path).map_err(|error| error.to_string())?;
    Ok(Krunfw { path })
}

fn folders(beside: Option<&Path>, search: &std::ffi::OsStr) -> Vec<PathBuf> {
    let own = beside.into_iter().flat_map(|folder| {
        ["", "../lib", "../../lib", "../../lib/x86_64-linux-gnu"].map(|path| folder.join(path))
    });
    let loader = env::split_paths(search).filter(|folder| folder.is_absolute());
    own.chain(loader).chain(SYSTEM.map(PathBuf::from)).collect()
}

/// The kernel of a libkrunfw.
#[derive(Debug)]
pub struct KernelBundle {
    /// Its memory image.
    pub bytes: Vec<u8>,
    /// Its load address.
    pub load: u64,
    /// The PVH entry point (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`).
    pub entry: u32,
}

impl Krunfw {
    /// Reads the kernel without running code of the library.
    pub fn kernel(&self) -> Result<KernelBundle, String> {
        let failed = |what: &str| format!("{}: {what}", self.path.display());
        let data = fs::read(&self.path).map_err(|error| failed(&error.to_string()))?;
        let file = object::File::parse(&*data).map_err(|error| failed(&error.to_string()))?;
        let symbol = file
            .dynamic_symbols()
            .find(|symbol| symbol.name() == Ok("KERNEL_BUNDLE"))
            .ok_or_else(|| failed("it contains no kernel"))?;
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        let section = section.ok_or_else(|| failed("its kernel has no section"))?;
        let contents = section.data().map_err(|error| failed(&error.to_string()))?;
        let start = usize::try_from(symbol.address().wrapping_sub(section.address()));
        let kernel = start.ok().and_then(|start| contents.get(start..)).unwrap_or_default();
        let entry =
            pvh_entry(kernel).ok_or_else(|| failed("its kernel cannot be booted by PVH"))?;
        Ok(KernelBundle { bytes: kernel.to_vec(), load: LOAD, entry })
    }
}

/// Finds the note with the entry point: name length 4, size 4 or 8, type 18, "Xen", the address.
fn pvh_entry(kernel: &[u8]) -> Option<u32> {
    let pattern = |length: u8| [&[4, 0, 0, 0, length, 0, 0, 0, 18, 0, 0, 0][..], b"Xen\0"].concat();
    [4, 8].iter().find_map(|length| {
        let pattern = pattern(*length);
        // Notes are aligned to four bytes.
        let at = (0..kernel.len())
            .step_by(4)
            .find(|at| kernel.get(*at..).is_some_and(|rest| rest.starts_with(&pattern)))?;
        let address = kernel.get(at + pattern.len()..at + pattern.len() + 4)?;
        Some(u32::from_le_bytes(address.try_into().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::{Object as Writer, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

    #[test]
    fn entry_point_is_found_by_its_note() {
        let mut kernel = vec![0; 64];
        kernel.extend_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x40\x30\x20\x01");
        assert_eq!(pvh_entry(&kernel), Some(0x0120_3040));
        assert_eq!(pvh_entry(&kernel[..70]), None);
        assert_eq!(pvh_entry(b""), None);
    }

    #[test]
    fn i_file_without_a_kernel_is_an_error_with_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.so");
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Krunfw { path: path.clone() }.kernel().unwrap_err()
        };
        assert!(refused(b"no library").contains("x.so: "));
        let mut object = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = object.section_id(object::write::StandardSection::Data);
        object.append_section_data(section, &[0; 64], 4);
        object.add_symbol(Symbol {
            name: b"OTHER".to_vec(),
            value: 0,
            size: 64,
            kind: SymbolKind::Data,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        assert!(refused(&object.write().unwrap()).contains("no kernel"));
    }

    #[test]
    fn program_directory_comes_first_relative_paths_never() {
        let folders = folders(Some(Path::new("/opt/msb/bin")), "rel:/from/env".as_ref());
        assert_eq!(folders.first(), Some(&PathBuf::from("/opt/msb/bin")));
        assert!(folders.contains(&PathBuf::from("/from/env")));
        assert!(folders.iter().all(|folder| folder.is_absolute()));
    }
}
