//! The modules that a guest's kernel has to load, in order.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The drivers that a guest needs.
const REQUIRED: [&str; 6] =
    ["virtio_pci", "virtio_console", "virtio_blk", "ext4", "virtiofs", "overlay"];

/// Returns the modules to load, in order, from the directory of a kernel's modules.
///
/// Built-in drivers are left out. The error names a driver that the kernel lacks.
pub(crate) fn needed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    // `depmod` writes the first file at installation; an unpacked package has none.
    let dependencies = read("modules.dep").unwrap_or_default();
    let built_in: HashSet<String> = read("modules.builtin")?.lines().map(name_of).collect();
    let known = Known::new(folder, &dependencies);
    let mut order = Vec::new();
    for name in REQUIRED {
        if !built_in.contains(name) && !known.add(name, &mut order) {
            return Err(format!("the kernel of {} has no {name}", folder.display()));
        }
    }
    Ok(order)
}

/// Returns the name of a path: `kernel/fs/fuse/virtiofs.ko` is `virtiofs`. `-` and `_` are the
/// same.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

struct Known {
    /// Name, path, and the names of its dependencies.
    modules: Vec<(String, PathBuf, Vec<String>)>,
}

impl Known {
    fn new(folder: &Path, dependencies: &str) -> Self {
        let mut modules = Vec::new();
        for line in dependencies.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(name_of).collect();
            modules.push((name_of(path), folder.join(path), needs));
        }
        if modules.is_empty() {
            find(&folder.join("kernel"), &mut modules);
        }
        Known { modules }
    }

    fn add(&self, name: &str, order: &mut Vec<PathBuf>) -> bool {
        let Some((_, path, needs)) = self.modules.iter().find(|module| module.0 == name) else {
            return false;
        };
        if order.contains(path) {
            return true;
        }
        // Dependencies have no cycles: such modules could not be loaded.
        let all = needs.iter().all(|need| self.add(need, order));
        order.push(path.clone());
        all
    }
}

/// Reads the dependencies in the modules of a directory: `depends=a,b`.
fn find(folder: &Path, modules: &mut Vec<(String, PathBuf, Vec<String>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, modules);
        } else if path.extension().is_some_and(|end| end == "ko") {
            let bytes = fs::read(&path).unwrap_or_default();
            let needs = tagged(&bytes, b"\0depends=")
                .map(|text| text.split(',').filter(|name| !name.is_empty()).map(name_of).collect())
                .unwrap_or_default();
            modules.push((name_of(&path.to_string_lossy()), path, needs));
        }
    }
}

fn tagged(module: &[u8], tag: &[u8]) -> Option<String> {
    let at = module.windows(tag.len()).position(|window| window == tag)? + tag.len();
    let text = module.get(at..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| name_of(&path.to_string_lossy())).collect()
    }

    #[test]
    fn dependencies_come_first_built_in_drivers_not_at_all() {
        let dependencies = "kernel/a/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio-ring.ko\n\
            kernel/a/virtio.ko: kernel/a/virtio-ring.ko\nkernel/a/virtio-ring.ko:\n\
            kernel/a/virtio_console.ko: kernel/a/virtio.ko kernel/a/virtio-ring.ko\n\
            kernel/a/virtiofs.ko.xz: kernel/a/fuse.ko\nkernel/a/fuse.ko:\nkernel/a/overlay.ko:\n";
        let tree = tree(&[
            ("modules.dep", dependencies),
            ("modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/d/virtio_blk.ko\n"),
        ]);
        let order = names(&needed(tree.path()).unwrap());
        let expected =
            ["virtio_ring", "virtio", "virtio_pci", "virtio_console", "fuse", "virtiofs"];
        assert_eq!(order[..6], expected);
        assert_eq!(order[6], "overlay");
    }

    #[test]
    fn unpacked_modules_name_their_dependencies() {
        let module = |needs: &str| format!("ELF\0license=GPL\0depends={needs}\0name=x\0");
        let files = [
            ("modules.builtin", "ext4.ko\nvirtio_blk.ko\nvirtio_console.ko\nvirtio_pci.ko\n"),
            ("kernel/virtiofs.ko", &module("fuse")),
            ("kernel/fuse.ko", &module("")),
            ("kernel/overlay.ko", &module("")),
        ];
        let tree = tree(&files.map(|(path, text)| (path, text)));
        assert_eq!(names(&needed(tree.path()).unwrap()), ["fuse", "virtiofs", "overlay"]);
    }

    #[test]
    fn i_missing_driver_is_named() {
        let tree = tree(&[("modules.builtin", "ext4.ko\n"), ("modules.dep", "kernel/x.ko:\n")]);
        assert!(needed(tree.path()).unwrap_err().contains("has no virtio_pci"));
        assert!(needed(Path::new("/nonexistent")).unwrap_err().contains("modules.builtin"));
    }
}
