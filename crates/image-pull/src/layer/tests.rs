//! Tests of unpacking malformed and hostile layers.

use super::*;
use crate::testing::{Archive, gzip};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use tar::EntryType;

fn bounds(bytes: u64, members: u64) -> Bounds {
    Bounds { bytes, members, limits: Limits::of(u64::MAX, u64::MAX, 1 << 30) }
}

/// A tree to unpack into, beside a file that unpacking must not touch.
struct Fixture {
    scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        fs::write(scratch.path().join("victim"), "untouched").unwrap();
        Fixture { scratch }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path)
    }

    fn unpack_with(&self, layers: &[Vec<u8>], bounds: Bounds) -> Result<Unpacked> {
        let mut files = Vec::new();
        for (index, bytes) in layers.iter().enumerate() {
            let path = self.scratch.path().join(format!("layer{index}"));
            fs::write(&path, bytes).unwrap();
            files.push((path, None));
        }
        let owners = match rustix::process::geteuid().is_root() {
            true => Owners::All,
            false => Owners::RootOnly,
        };
        let result = unpack(&files, &self.root(""), owners, bounds, |_, _| {});
        assert_eq!(fs::read_to_string(self.scratch.path().join("victim")).unwrap(), "untouched");
        let mut beside: Vec<_> = fs::read_dir(self.scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with("layer"))
            .collect();
        beside.sort();
        assert_eq!(beside, ["root", "victim"], "something was created outside of the tree");
        result
    }

    fn unpack(&self, layers: &[Vec<u8>]) -> Result<Unpacked> {
        self.unpack_with(layers, bounds(1 << 30, 100_000))
    }

    fn refuses(&self, archive: Archive) -> String {
        self.refuses_bytes(archive.end())
    }

    fn refuses_bytes(&self, bytes: Vec<u8>) -> String {
        let error = self.unpack(&[bytes]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
        error.to_string()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn name_with_dots_is_refused_at_any_position() {
    for name in ["../victim", "a/../../victim", "a/..", "..", "/../victim"] {
        let text = Fixture::new().refuses(Archive::new().file(name, "evil"));
        assert!(text.contains("out of the image"), "{text}");
    }
    let long = format!("{}/../../victim", "a/".repeat(100));
    let text =
        Fixture::new().refuses(Archive::new().pax(&[("path", long.as_bytes())]).file("x", ""));
    assert!(text.contains("out of the image"), "{text}");
}

#[test]
fn absolute_name_is_relative_to_the_image_root() {
    let fixture = Fixture::new();
    fixture.unpack(&[Archive::new().file("/etc/x", "inside").file("//y", "2").end()]).unwrap();
    assert_eq!((fixture.read("etc/x"), fixture.read("y")), ("inside".into(), "2".into()));
}

#[test]
fn no_link_at_any_position_leads_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let fixture = Fixture::new();
    let up = "../../../../../../../..";
    let archive = Archive::new()
        .symlink("absolute", target)
        .symlink("up", up)
        .symlink("chain", "absolute")
        .dir("a")
        .symlink("a/b", "../up")
        .dir(target.trim_start_matches('/'))
        .file("absolute/1", "1")
        .file("up/2", "2")
        .file("chain/3", "3")
        .file("a/b/4", "4")
        .symlink("absolute/inner", "/")
        .file("absolute/inner/5", "5");
    fixture.unpack(&[archive.end()]).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let inside = target.trim_start_matches('/');
    assert_eq!(fixture.read(&format!("{inside}/1")), "1");
    assert_eq!(fixture.read(&format!("{inside}/3")), "3");
    assert_eq!([fixture.read("2"), fixture.read("4"), fixture.read("5")], ["2", "4", "5"]);
}

#[test]
fn link_of_a_lower_layer_is_followed_or_replaced() {
    let fixture = Fixture::new();
    let lower = Archive::new().dir("usr/").dir("usr/lib").symlink("lib", "usr/lib");
    let lower = lower.symlink("target", "/victim").end();
    let upper = Archive::new().file("lib/x", "x").file("target", "new").end();
    fixture.unpack(&[lower, upper]).unwrap();
    assert_eq!(fixture.read("usr/lib/x"), "x");
    assert!(fixture.root("lib").is_symlink() && !fixture.root("target").is_symlink());
    // A directory of the upper layer replaces a link.
    let fixture = Fixture::new();
    let lower = Archive::new().dir("real").file("real/f", "").symlink("d", "real").end();
    fixture.unpack(&[lower, Archive::new().dir("d").file("d/g", "").end()]).unwrap();
    assert_eq!((fixture.names("real"), fixture.names("d")), (vec!["f".into()], vec!["g".into()]));
}

#[test]
fn looping_links_and_files_are_no_directories() {
    let archive = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "");
    Fixture::new().refuses(archive);
    Fixture::new().refuses(Archive::new().file("a", "").file("a/x", ""));
    Fixture::new().refuses(Archive::new().file("b", "").symlink("a", "b").file("a/x/y", ""));
}

#[test]
fn dangling_links_are_directories_inside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("new").display().to_string();
    let fixture = Fixture::new();
    let archive = Archive::new()
        .symlink("a", "/data/deep")
        .symlink("up", "../../b/./c/")
        .symlink("chain", "d/../up/e")
        .symlink("out", &target)
        .file("a/x/1", "1")
        .file("chain/2", "2")
        .file("out/3", "3");
    fixture.unpack(&[archive.end()]).unwrap();
    assert_eq!(fixture.read("data/deep/x/1"), "1");
    assert_eq!(fixture.read("b/c/e/2"), "2");
    assert_eq!(fixture.read(&format!("{}/3", target.trim_start_matches('/'))), "3");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn directories_of_the_configuration_are_created_inside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("new").display().to_string();
    let fixture = Fixture::new();
    let archive = Archive::new().file("file", "").mode("mine", EntryType::Directory, 0o700);
    let archive = archive.symlink("app", "/data/app").symlink("out", &target);
    fixture.unpack(&[archive.symlink("loop", "loop").symlink("f", "file").end()]).unwrap();
    let mut tree = Tree::open(&fixture.root(""), Owners::All).unwrap();
    for path in ["/app/src", "out/x", "/", "/var/lib/data", "mine"] {
        tree.create_directory(path).unwrap();
    }
    for path in ["data", "data/app/src", "var/lib/data"] {
        let found = fs::metadata(fixture.root(path)).unwrap();
        assert!(found.is_dir(), "{path}");
        assert_eq!(found.mode() & 0o7777, 0o755, "{path}");
    }
    assert_eq!(fs::metadata(fixture.root("mine")).unwrap().mode() & 0o7777, 0o700, "unchanged");
    assert!(fixture.root(target.trim_start_matches('/')).join("x").is_dir());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    for path in ["/file", "/file/x", "/f", "/loop/x", "/../x"] {
        let error = tree.create_directory(path).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
        assert!(error.to_string().contains(path.trim_start_matches('/')), "{error}");
    }
}

#[test]
fn hard_link_to_a_file_outside_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    for target in ["../victim", secret.to_str().unwrap(), "no/such", "a/../../victim", ""] {
        Fixture::new().refuses(Archive::new().hard_link("x", target));
    }
    let through = Archive::new().symlink("out", outside.path().to_str().unwrap());
    Fixture::new().refuses(through.hard_link("x", "out/secret"));
    Fixture::new().refuses(Archive::new().dir("d").hard_link("x", "d"));
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
    let fixture = Fixture::new();
    let upper = Archive::new().hard_link("b", "a").hard_link("d/c", "/a").end();
    fixture.unpack(&[Archive::new().file("a", "one").end(), upper]).unwrap();
    assert_eq!(fs::metadata(fixture.root("a")).unwrap().nlink(), 3);
    // A hard link to a symbolic link is to the link itself.
    let fixture = Fixture::new();
    let archive = Archive::new().symlink("s", secret.to_str().unwrap()).hard_link("t", "s");
    fixture.unpack(&[archive.end()]).unwrap();
    assert!(fixture.root("t").is_symlink());
}

#[test]
fn whiteouts_apply_to_lower_layers_only() {
    let fixture = Fixture::new();
    let lower = Archive::new().file("a", "").dir("d").file("d/x", "").file("d/y", "").file("k", "");
    let upper = Archive::new()
        .file(".wh.a", "")
        .file("new", "")
        .file(".wh.new", "")
        .file("d/z", "")
        .file(".wh.d", "")
        .file(".wh.nothing", "")
        .file("none/.wh.x", "");
    fixture.unpack(&[lower.end(), upper.end()]).unwrap();
    assert_eq!(fixture.names(""), ["d", "k", "new"]);
    assert_eq!(fixture.names("d"), ["z"], "files of the same layer stay");
}

#[test]
fn opaque_directory_hides_lower_layers_in_any_order() {
    let lower = || {
        let archive = Archive::new().dir("d").file("d/old", "").dir("d/sub").file("d/sub/old", "");
        archive.dir("e").file("e/x", "").symlink("l", "/e").end()
    };
    let opaque = "d/.wh..wh..opq";
    let first = Archive::new().dir("d").file(opaque, "").file("d/sub/new", "").end();
    let last = Archive::new().dir("d").file("d/sub/new", "").file(opaque, "").end();
    for upper in [first, last] {
        let fixture = Fixture::new();
        fixture.unpack(&[lower(), upper]).unwrap();
        assert_eq!(fixture.names("d"), ["sub"]);
        assert_eq!(fixture.names("d/sub"), ["new"]);
    }
    let fixture = Fixture::new();
    let root = Archive::new().file(".wh..wh..opq", "").file("only", "").end();
    fixture.unpack(&[lower(), root]).unwrap();
    assert_eq!(fixture.names(""), ["only"]);
}

#[test]
fn whiteout_of_a_parent_directory_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        let text = Fixture::new().refuses(Archive::new().dir("a").file(name, ""));
        assert!(text.contains("a directory above it"), "{name}: {text}");
    }
    // Files of docker's AUFS driver are ignored.
    let fixture = Fixture::new();
    fixture.unpack(&[Archive::new().file(".wh..wh.aufs", "").file("a", "").end()]).unwrap();
    assert_eq!(fixture.names(""), ["a"]);
}

#[test]
fn xattrs_are_set_except_those_of_overlayfs() {
    let fixture = Fixture::new();
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.note", b"a\0b"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    let archive = Archive::new().pax(&records).file("f", "x").pax(&records).dir("d");
    fixture.unpack(&[archive.end()]).unwrap();
    for name in ["f", "d"] {
        let mut list = vec![0; 4096];
        let length = rustix::fs::listxattr(fixture.root(name), list.as_mut_slice()).unwrap();
        let text = String::from_utf8_lossy(&list[..length]).into_owned();
        assert!(!text.contains("overlay"), "{text}");
        // Not every filesystem supports user attributes.
        if text.contains("user.note") {
            let mut value = [0; 16];
            let path = fixture.root(name);
            let length = rustix::fs::getxattr(path, "user.note", value.as_mut_slice()).unwrap();
            assert_eq!(&value[..length], b"a\0b");
        }
    }
}

#[test]
fn devices_are_created_if_permitted_else_skipped() {
    let fixture = Fixture::new();
    let device = |header: &mut tar::Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    };
    let archive = Archive::new().raw(EntryType::Char, b"null", 0, b"", device);
    let archive = archive.mode("fifo", EntryType::Fifo, 0o600).file("after", "");
    fixture.unpack(&[archive.end()]).unwrap();
    assert!(fixture.root("after").exists());
    assert!(fs::symlink_metadata(fixture.root("fifo")).unwrap().file_type().is_fifo());
    if let Ok(found) = fs::symlink_metadata(fixture.root("null")) {
        assert!(found.file_type().is_char_device());
        assert_eq!(found.rdev(), rustix::fs::makedev(1, 3));
    }
    // Without permission, whichever user runs this test.
    let fixture = Fixture::new();
    let path = fixture.scratch.path().join("layer0");
    fs::write(&path, Archive::new().raw(EntryType::Char, b"null", 0, b"", device).end()).unwrap();
    let bounds = bounds(1, 9);
    unpack(&[(path, None)], &fixture.root(""), Owners::RootOnly, bounds, |_, _| {}).unwrap();
    assert!(fixture.names("").is_empty());
}

#[test]
fn modes_owners_and_times_are_kept() {
    let fixture = Fixture::new();
    let owned = |header: &mut tar::Header| {
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_mode(0o6755);
    };
    let archive = Archive::new()
        .dir("d")
        .raw(EntryType::Regular, b"d/su", 2, b"su", owned)
        .mode("closed", EntryType::Directory, 0)
        .file("closed/f", "")
        .mode("./", EntryType::Directory, 0o711);
    fixture.unpack(&[archive.end()]).unwrap();
    let found = fs::metadata(fixture.root("d/su")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o6755);
    if rustix::process::geteuid().is_root() {
        assert_eq!((found.uid(), found.gid()), (1234, 4321));
    }
    assert_eq!(fs::metadata(fixture.root("")).unwrap().permissions().mode() & 0o7777, 0o711);
    for path in ["d", "d/su"] {
        assert_eq!(fs::metadata(fixture.root(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
    let closed = fs::metadata(fixture.root("closed")).unwrap();
    assert_eq!(closed.permissions().mode() & 0o7777, 0);
}

#[test]
fn sparse_files_take_only_the_space_of_their_data() {
    let fixture = Fixture::new();
    let length = 1_u64 << 40;
    let content = [b'x'; 512];
    let archive = Archive::new().raw(EntryType::GNUSparse, b"s", 512, &content, |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(length);
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(512);
    });
    fixture.unpack(&[archive.file("next", "n").end()]).unwrap();
    let found = fs::metadata(fixture.root("s")).unwrap();
    assert_eq!((found.len(), fixture.read("next").as_str()), (length, "n"));
    assert!(found.blocks() < 1000);
    let mut start = vec![0; 513];
    let mut file = fs::File::open(fixture.root("s")).unwrap();
    file.seek(SeekFrom::Start((1 << 20) - 1)).unwrap();
    file.read_exact(&mut start).unwrap();
    assert_eq!((start[0], start[1], start[512]), (0, b'x', b'x'));
    let broken = Archive::new().raw(EntryType::GNUSparse, b"s", 512, &content, |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(10);
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(512);
    });
    Fixture::new().refuses(broken);
}

#[test]
fn long_names_are_whole_and_oversized_ones_refused() {
    let fixture = Fixture::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let gnu = |text: &str, kind| {
        let bytes = [text.as_bytes(), b"\0"].concat();
        Archive::new().raw(kind, b"././@LongLink", bytes.len() as u64, &bytes, |_| {})
    };
    let one = gnu(&long, EntryType::GNULongName).file("cut", "gnu").end();
    let target = "t".repeat(300);
    let two = gnu(&target, EntryType::GNULongLink).symlink("link", "cut").end();
    let other = format!("{}/g", "e".repeat(200));
    let three = Archive::new().pax(&[("path", other.as_bytes())]).file("cut", "pax").end();
    fixture.unpack(&[one, two, three]).unwrap();
    assert_eq!((fixture.read(&long), fixture.read(&other)), ("gnu".into(), "pax".into()));
    assert_eq!(fs::read_link(fixture.root("link")).unwrap().as_os_str().len(), 300);
    Fixture::new().refuses(Archive::new().pax(&[("path", &[b'x'; 300])]).file("y", ""));
    let bomb = Archive::new().raw(EntryType::GNULongName, b"x", 1 << 40, b"", |_| {});
    let text = Fixture::new().refuses(bomb);
    assert!(text.contains("allowed"), "{text}");
}

#[test]
fn last_of_two_members_with_one_name_applies() {
    let fixture = Fixture::new();
    let archive = Archive::new().file("a", "1").file("a", "2").dir("b").file("b/x", "");
    let archive = archive.file("b", "file now").dir("a").file("a/y", "").dir("a");
    fixture.unpack(&[archive.end()]).unwrap();
    assert_eq!((fixture.names("a"), fixture.read("b")), (vec!["y".into()], "file now".into()));
}

#[test]
fn image_larger_than_the_disk_is_refused_at_once() {
    let fixture = Fixture::new();
    let huge = Archive::new().raw(EntryType::Regular, b"huge", 1 << 50, b"", |_| {});
    let error = fixture.unpack(&[huge.open_end()]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert!(fixture.names("").is_empty());
    // A decompression bomb.
    let zeros = vec![0; 8 << 20];
    let size = zeros.len() as u64;
    let bomb = gzip(&Archive::new().raw(EntryType::Regular, b"z", size, &zeros, |_| {}).end());
    assert!(bomb.len() < 100_000);
    let error = fixture.unpack_with(&[bomb], bounds(1 << 20, 9)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    let many = (0..20).fold(Archive::new(), |archive, n| archive.file(&n.to_string(), ""));
    let error = fixture.unpack_with(&[many.end()], bounds(9, 10)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
}

#[test]
fn j4_image_beyond_its_bounds_is_refused() {
    let of = |bytes, entries| Bounds {
        limits: Limits::of(bytes, entries, 1 << 30),
        ..bounds(1 << 40, 99)
    };
    let refusal = |archive: Archive, bounds: Bounds| {
        let error = Fixture::new().unpack_with(&[archive.end()], bounds).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
        error.to_string()
    };
    let files = || Archive::new().file("a", "12345").file("b", "12345");
    Fixture::new().unpack_with(&[files().end()], of(10, 2)).unwrap();
    assert_eq!(
        refusal(files(), of(9, 2)),
        "cannot unpack the image: it has files of more than 9 bytes; \
         set MSB_IMAGE_MAX_BYTES to allow more"
    );
    assert_eq!(
        refusal(files(), of(10, 1)),
        "cannot unpack the image: it has more than 1 entries; \
         set MSB_IMAGE_MAX_ENTRIES to allow more"
    );
}

#[test]
fn j4_layer_that_inflates_too_much_is_refused() {
    let zeros = vec![0; 20 << 20];
    let size = zeros.len() as u64;
    let layer = gzip(&Archive::new().raw(EntryType::Regular, b"z", size, &zeros, |_| {}).end());
    assert!(layer.len() < 100_000);
    let of = |free| Bounds { limits: Limits::of(1 << 40, 9, free), ..bounds(1 << 40, 9) };
    Fixture::new().unpack_with(std::slice::from_ref(&layer), of(32 << 20)).unwrap();
    let error = Fixture::new().unpack_with(&[layer], of(16 << 20)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
    assert!(error.to_string().contains("MSB_IMAGE_MAX_RATIO"), "{error}");
}

#[test]
fn truncated_endless_or_invalid_archives_are_refused() {
    let whole = Archive::new().file("a", &"x".repeat(3000)).end();
    Fixture::new().refuses_bytes(whole[..1500].to_vec());
    Fixture::new().refuses_bytes(whole[..600].to_vec());
    Fixture::new().refuses_bytes(gzip(&whole)[..20].to_vec());
    Fixture::new().refuses_bytes(b"x".repeat(2048));
    let mut changed = whole.clone();
    changed[0] = b'b';
    Fixture::new().refuses_bytes(changed);
    let endless = [whole, vec![0; 70 << 20]].concat();
    let text = Fixture::new().refuses_bytes(gzip(&endless));
    assert!(text.contains("after its end"), "{text}");
    // Some tools omit the end of an archive, or its padding.
    let fixture = Fixture::new();
    fixture.unpack(&[Archive::new().file("a", "").open_end()]).unwrap();
    fixture.unpack(&[Vec::new()]).unwrap();
}

#[test]
fn sizes_that_overflow_are_refused() {
    let most = u64::MAX.to_string();
    let archive = Archive::new().pax(&[("size", most.as_bytes())]).file("f", "");
    Fixture::new().refuses(archive);
    let most = i64::MAX.to_string();
    let archive = Archive::new().pax(&[("size", most.as_bytes())]).file("f", "");
    let error = Fixture::new().unpack(&[archive.end()]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    let content = [b'x'; 512];
    let huge = |archive: Archive, name: &str| {
        archive.raw(EntryType::GNUSparse, name.as_bytes(), 512, &content, |header| {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.set_real_size((1 << 62) + 512);
            gnu.sparse[0].set_offset(1 << 62);
            gnu.sparse[0].set_length(512);
        })
    };
    // No filesystem supports such files; its error is reported, and no count overflows.
    let archive = (0..4).fold(Archive::new(), |archive, n| huge(archive, &n.to_string()));
    assert!(Fixture::new().unpack(&[archive.end()]).is_err());
}

#[test]
fn depth_of_directories_is_bounded() {
    let fixture = Fixture::new();
    let deep = "d/".repeat(300);
    let link = Archive::new().pax(&[("path", deep.as_bytes())]).dir("x");
    let link = link.pax(&[("linkpath", deep.as_bytes())]).symlink("l", "x");
    fixture.unpack(&[link.end()]).unwrap();
    // A link doubles the depth, up to the bound.
    let deeper = format!("l/{deep}f");
    let archive = Archive::new().pax(&[("path", deeper.as_bytes())]).file("x", "");
    let text = fixture.refuses(archive);
    assert!(text.contains("deep"), "{text}");
}

#[test]
fn digest_is_verified_in_every_compression() {
    let fixture = Fixture::new();
    let tar = Archive::new().file("a", "content").end();
    let expected = Digest::of(&tar);
    let packed = [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap()];
    for bytes in packed {
        let path = fixture.scratch.path().join("layer");
        fs::write(&path, bytes).unwrap();
        let layer = (path, Some(expected.clone()));
        let bounds = || super::tests::bounds(1000, 9);
        let again = [layer.clone()];
        let found =
            unpack(&again, &fixture.root(""), Owners::RootOnly, bounds(), |_, _| {}).unwrap();
        assert_eq!((found.bytes, &found.diff_ids[0]), (7, &expected));
        let wrong = [(layer.0, Some(Digest::of(b"other")))];
        let error = unpack(&wrong, &fixture.root(""), Owners::RootOnly, bounds(), |_, _| {});
        assert!(error.unwrap_err().to_string().contains("unpacks to"));
    }
}
