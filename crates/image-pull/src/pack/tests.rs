//! Tests of packing a directory.

use super::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Component;

/// A directory to pack, and a store beside it.
struct Fixture {
    scratch: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Fixture {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::at(&scratch.path().join("home"));
        store.prepare().unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        Fixture { scratch, store }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path)
    }

    fn pack(&self) -> Result<Packed> {
        pack(&self.store, &self.root(""))
    }

    /// Returns the error of a pack that must fail, without the path of the root.
    fn refusal(&self) -> String {
        let text = self.pack().unwrap_err().to_string();
        let left = fs::read_dir(self.scratch.path().join("home/images/tmp")).unwrap().count();
        assert_eq!(left, 0, "{text}");
        text.replace(self.root("").to_str().unwrap(), "ROOT/").replace("ROOT//", "ROOT/")
    }

    fn names(&self) -> Vec<String> {
        let packed = self.pack().unwrap();
        let file = fs::File::open(self.store.blob(&packed.layer.digest)).unwrap();
        let mut archive = tar::Archive::new(file);
        let name = |entry: io::Result<tar::Entry<'_, fs::File>>| {
            String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()
        };
        archive.entries().unwrap().map(name).collect()
    }
}

#[test]
fn g_names_and_devices_that_are_whiteouts_are_refused() {
    for name in [".wh.note", ".wh..wh..opq", "d/.wh.", "d/.wh.dir/x"] {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.root(name).parent().unwrap()).unwrap();
        fs::write(fixture.root(name), "mine").unwrap();
        let shown = name.trim_end_matches("/x");
        let reason = "in a layer, a name that begins with .wh. removes a file";
        assert_eq!(fixture.refusal(), format!("cannot pack ROOT/{shown}: {reason}"));
    }
    let fixture = Fixture::new();
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.root("gone"),
        FileType::CharacterDevice,
        Mode::RUSR,
        0,
    );
    // Only root can make any device; overlayfs lets everyone make this one.
    if made.is_ok() {
        assert!(fixture.refusal().ends_with("0:0 is a whiteout of overlayfs"));
    }
}

#[test]
fn g_holes_of_a_file_take_no_space() {
    let fixture = Fixture::new();
    let file = fs::File::create(fixture.root("lastlog")).unwrap();
    file.set_len(6 << 30).unwrap();
    file.write_all_at(b"one", 5 << 30).unwrap();
    // More segments than the header has room for.
    let many = fs::File::create(fixture.root("many")).unwrap();
    for index in 0..100 {
        many.write_all_at(b"x", index << 20).unwrap();
    }
    fs::File::create(fixture.root("none")).unwrap().set_len(1 << 40).unwrap();
    let packed = fixture.pack().unwrap();
    assert!(packed.layer.size < 2 << 20, "{} bytes", packed.layer.size);
    let file = fs::File::open(fixture.store.blob(&packed.layer.digest)).unwrap();
    let mut archive = tar::Archive::new(file);
    let mut sizes = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        sizes.push((entry.path().unwrap().into_owned(), entry.size()));
        if entry.path().unwrap().ends_with("many") {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(content.iter().filter(|byte| **byte == b'x').count(), 100);
            assert!(content.iter().step_by(1 << 20).all(|byte| *byte == b'x'));
        }
    }
    let expected = [("", 0), ("lastlog", 6 << 30), ("many", (99 << 20) + 1), ("none", 1 << 40)];
    let expected = expected.map(|(name, size)| (Path::new("./").join(name), size));
    let plain = |path: &Path| path.components().filter(|c| *c != Component::CurDir).collect();
    let sizes: Vec<(PathBuf, u64)> =
        sizes.iter().map(|(path, size)| (plain(path), *size)).collect();
    assert_eq!(sizes, expected.map(|(path, size)| (plain(&path), size)));
}

#[test]
fn g_file_that_changes_while_it_is_read_is_refused() {
    let fixture = Fixture::new();
    let path = fixture.root("log");
    type Change = fn(&fs::File);
    let changes: [Change; 3] = [
        |file| file.set_len(3).unwrap(),
        |file| file.write_all_at(b"more", 8).unwrap(),
        |file| file.write_all_at(b"12345678", 0).unwrap(),
    ];
    for change in changes {
        fs::write(&path, "12345678").unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let found = fstat(&file).unwrap();
        change(&file);
        let mut packer = Packer::new(&fixture.store, &fixture.root("")).unwrap();
        packer.name = b"./log".to_vec();
        let error = packer.add_opened(&file, &found).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Io);
        assert!(error.to_string().ends_with("/root/log: it changed while it was read"), "{error}");
    }
    // sysfs says that a file has 4096 bytes.
    if Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists() {
        let error = pack(&fixture.store, Path::new("/sys/kernel/mm/transparent_hugepage"));
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("it changed while it was read"), "{error}");
    }
}

#[test]
fn g_file_that_cannot_be_read_is_named() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    // Root may read it by these capabilities, which this thread gives up.
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(None, sets).unwrap();
    let fixture = Fixture::new();
    fs::create_dir(fixture.root("d")).unwrap();
    fs::write(fixture.root("d/secret"), "x").unwrap();
    rustix::fs::chmod(fixture.root("d/secret"), Mode::empty()).unwrap();
    assert_eq!(fixture.refusal(), "cannot read ROOT/d/secret: Permission denied (os error 13)");
}

#[test]
fn g_sockets_and_the_state_directory_are_skipped_by_name() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.root("run")).unwrap();
    let _socket = UnixListener::bind(fixture.root("run/s")).unwrap();
    let packed = fixture.pack().unwrap();
    assert_eq!(packed.skipped, [format!("{}: a socket", fixture.root("run/s").display())]);
    assert_eq!(fixture.names(), ["./", "./run"].map(|name| name.trim_end_matches('/')));
    let all = pack(&fixture.store, fixture.scratch.path()).unwrap();
    let home = fixture.scratch.path().join("home");
    let skipped = format!("{}: content of the state directory", home.display());
    assert_eq!(all.skipped.first(), Some(&skipped));
    let error = pack(&fixture.store, &home).unwrap_err().to_string();
    assert_eq!(error, format!("cannot pack {}: it is the state directory", home.display()));
}

#[test]
fn g_deep_directories_are_refused_and_named_briefly() {
    let fixture = Fixture::new();
    let mut at = rustix::fs::open(fixture.root(""), OFlags::PATH, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..1000 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), OFlags::PATH, Mode::empty()).unwrap();
    }
    let text = fixture.refusal();
    assert!(text.ends_with("its path is longer than 4095 bytes"), "{text}");
    assert!(text.len() < 400, "{text}");
    msb_state::remove_tree(&fixture.root("")).unwrap();

    fs::create_dir_all(fixture.root(&"e/".repeat(513))).unwrap();
    assert_eq!(fixture.names().len(), 514);
    fs::create_dir_all(fixture.root(&"e/".repeat(514))).unwrap();
    let text = fixture.refusal();
    assert!(text.ends_with("directories are more than 512 levels deep"), "{text}");
}

#[test]
fn g_links_are_written_byte_for_byte() {
    let fixture = Fixture::new();
    let long = format!("/{}", "x/".repeat(2000));
    let targets = ["a//b/", "./c/.", "..", "//d", "e/../f", &long];
    for (index, target) in targets.iter().enumerate() {
        symlink(target, fixture.root(&format!("{index}"))).unwrap();
    }
    let packed = fixture.pack().unwrap();
    let file = fs::File::open(fixture.store.blob(&packed.layer.digest)).unwrap();
    let mut archive = tar::Archive::new(file);
    let found: Vec<Vec<u8>> = archive
        .entries()
        .unwrap()
        .filter_map(|entry| entry.unwrap().link_name_bytes().map(|link| link.into_owned()))
        .collect();
    assert_eq!(found, targets.map(|target| target.as_bytes().to_vec()));
}
