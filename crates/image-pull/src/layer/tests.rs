//! What hostile and odd archives come to.

use super::*;
use crate::testing::{Archive, gzip};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use tar::EntryType;

fn bounds(bytes: u64, members: u64) -> Bounds {
    Bounds { bytes, members, limits: Limits::of(u64::MAX, u64::MAX, 1 << 30) }
}

/// A place with something beside the tree that nobody may touch.
struct Place {
    scratch: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("root")).unwrap();
        fs::write(scratch.path().join("victim"), "untouched").unwrap();
        Place { scratch }
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
        assert_eq!(beside, ["root", "victim"], "something was made outside of the tree");
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
fn a_name_with_dots_is_refused_wherever_they_are() {
    for name in ["../victim", "a/../../victim", "a/..", "..", "/../victim"] {
        let text = Place::new().refuses(Archive::new().file(name, "evil"));
        assert!(text.contains("out of the image"), "{text}");
    }
    let long = format!("{}/../../victim", "a/".repeat(100));
    let text = Place::new().refuses(Archive::new().pax(&[("path", long.as_bytes())]).file("x", ""));
    assert!(text.contains("out of the image"), "{text}");
}

#[test]
fn an_absolute_name_means_the_root_of_the_image() {
    let place = Place::new();
    place.unpack(&[Archive::new().file("/etc/x", "inside").file("//y", "2").end()]).unwrap();
    assert_eq!((place.read("etc/x"), place.read("y")), ("inside".into(), "2".into()));
}

#[test]
fn no_link_at_any_position_leads_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let place = Place::new();
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
    place.unpack(&[archive.end()]).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let inside = target.trim_start_matches('/');
    assert_eq!(place.read(&format!("{inside}/1")), "1");
    assert_eq!(place.read(&format!("{inside}/3")), "3");
    assert_eq!([place.read("2"), place.read("4"), place.read("5")], ["2", "4", "5"]);
}

#[test]
fn a_link_from_a_lower_layer_is_followed_inside_and_replaced_when_it_is_the_name_itself() {
    let place = Place::new();
    let lower = Archive::new().dir("usr/").dir("usr/lib").symlink("lib", "usr/lib");
    let lower = lower.symlink("target", "/victim").end();
    let upper = Archive::new().file("lib/x", "x").file("target", "new").end();
    place.unpack(&[lower, upper]).unwrap();
    assert_eq!(place.read("usr/lib/x"), "x");
    assert!(place.root("lib").is_symlink() && !place.root("target").is_symlink());
    // What is a directory in the upper layer takes the place of a link.
    let place = Place::new();
    let lower = Archive::new().dir("real").file("real/f", "").symlink("d", "real").end();
    place.unpack(&[lower, Archive::new().dir("d").file("d/g", "").end()]).unwrap();
    assert_eq!((place.names("real"), place.names("d")), (vec!["f".into()], vec!["g".into()]));
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_no_directories() {
    let archive = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "");
    Place::new().refuses(archive);
    Place::new().refuses(Archive::new().symlink("a", "/nonexistent").file("a/x", ""));
    Place::new().refuses(Archive::new().file("a", "").file("a/x", ""));
}

#[test]
fn a_hard_link_leads_to_a_file_of_the_image_or_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    for target in ["../victim", secret.to_str().unwrap(), "no/such", "a/../../victim", ""] {
        Place::new().refuses(Archive::new().hard_link("x", target));
    }
    let through = Archive::new().symlink("out", outside.path().to_str().unwrap());
    Place::new().refuses(through.hard_link("x", "out/secret"));
    Place::new().refuses(Archive::new().dir("d").hard_link("x", "d"));
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
    let place = Place::new();
    let upper = Archive::new().hard_link("b", "a").hard_link("d/c", "/a").end();
    place.unpack(&[Archive::new().file("a", "one").end(), upper]).unwrap();
    assert_eq!(fs::metadata(place.root("a")).unwrap().nlink(), 3);
    // A link to a symbolic link is one to the link and not to what it leads to.
    let place = Place::new();
    let archive = Archive::new().symlink("s", secret.to_str().unwrap()).hard_link("t", "s");
    place.unpack(&[archive.end()]).unwrap();
    assert!(place.root("t").is_symlink());
}

#[test]
fn whiteouts_remove_what_lower_layers_have_and_nothing_else() {
    let place = Place::new();
    let lower = Archive::new().file("a", "").dir("d").file("d/x", "").file("d/y", "").file("k", "");
    let upper = Archive::new()
        .file(".wh.a", "")
        .file("new", "")
        .file(".wh.new", "")
        .file("d/z", "")
        .file(".wh.d", "")
        .file(".wh.nothing", "")
        .file("none/.wh.x", "");
    place.unpack(&[lower.end(), upper.end()]).unwrap();
    assert_eq!(place.names(""), ["d", "k", "new"]);
    assert_eq!(place.names("d"), ["z"], "what the same layer has put there stays");
}

#[test]
fn an_opaque_directory_hides_what_is_below_in_whichever_order() {
    let lower = || {
        let archive = Archive::new().dir("d").file("d/old", "").dir("d/sub").file("d/sub/old", "");
        archive.dir("e").file("e/x", "").symlink("l", "/e").end()
    };
    let opaque = "d/.wh..wh..opq";
    let first = Archive::new().dir("d").file(opaque, "").file("d/sub/new", "").end();
    let last = Archive::new().dir("d").file("d/sub/new", "").file(opaque, "").end();
    for upper in [first, last] {
        let place = Place::new();
        place.unpack(&[lower(), upper]).unwrap();
        assert_eq!(place.names("d"), ["sub"]);
        assert_eq!(place.names("d/sub"), ["new"]);
    }
    let place = Place::new();
    let root = Archive::new().file(".wh..wh..opq", "").file("only", "").end();
    place.unpack(&[lower(), root]).unwrap();
    assert_eq!(place.names(""), ["only"]);
}

#[test]
fn a_whiteout_of_a_directory_above_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        let text = Place::new().refuses(Archive::new().dir("a").file(name, ""));
        assert!(text.contains("lies in"), "{name}: {text}");
    }
    // What an older docker kept for itself has no meaning.
    let place = Place::new();
    place.unpack(&[Archive::new().file(".wh..wh.aufs", "").file("a", "").end()]).unwrap();
    assert_eq!(place.names(""), ["a"]);
}

#[test]
fn attributes_are_set_but_not_those_that_steer_overlays() {
    let place = Place::new();
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.user.note", b"a\0b"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    let archive = Archive::new().pax(&records).file("f", "x").pax(&records).dir("d");
    place.unpack(&[archive.end()]).unwrap();
    for name in ["f", "d"] {
        let mut list = vec![0; 4096];
        let length = rustix::fs::listxattr(place.root(name), list.as_mut_slice()).unwrap();
        let text = String::from_utf8_lossy(&list[..length]).into_owned();
        assert!(!text.contains("overlay"), "{text}");
        // Not every filesystem has attributes of users.
        if text.contains("user.note") {
            let mut value = [0; 16];
            let path = place.root(name);
            let length = rustix::fs::getxattr(path, "user.note", value.as_mut_slice()).unwrap();
            assert_eq!(&value[..length], b"a\0b");
        }
    }
}

#[test]
fn devices_are_made_as_the_rights_allow_and_skipped_otherwise() {
    let place = Place::new();
    let device = |header: &mut tar::Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    };
    let archive = Archive::new().raw(EntryType::Char, b"null", 0, b"", device);
    let archive = archive.mode("fifo", EntryType::Fifo, 0o600).file("after", "");
    place.unpack(&[archive.end()]).unwrap();
    assert!(place.root("after").exists());
    assert!(fs::symlink_metadata(place.root("fifo")).unwrap().file_type().is_fifo());
    if let Ok(found) = fs::symlink_metadata(place.root("null")) {
        assert!(found.file_type().is_char_device());
        assert_eq!(found.rdev(), rustix::fs::makedev(1, 3));
    }
    // As somebody who may not, whoever runs this test.
    let place = Place::new();
    let path = place.scratch.path().join("layer0");
    fs::write(&path, Archive::new().raw(EntryType::Char, b"null", 0, b"", device).end()).unwrap();
    let bounds = bounds(1, 9);
    unpack(&[(path, None)], &place.root(""), Owners::RootOnly, bounds, |_, _| {}).unwrap();
    assert!(place.names("").is_empty());
}

#[test]
fn modes_owners_and_times_are_kept() {
    let place = Place::new();
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
    place.unpack(&[archive.end()]).unwrap();
    let found = fs::metadata(place.root("d/su")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o6755);
    if rustix::process::geteuid().is_root() {
        assert_eq!((found.uid(), found.gid()), (1234, 4321));
    }
    assert_eq!(fs::metadata(place.root("")).unwrap().permissions().mode() & 0o7777, 0o711);
    for path in ["d", "d/su"] {
        assert_eq!(fs::metadata(place.root(path)).unwrap().mtime(), 1_000_000_000, "{path}");
    }
    let closed = fs::metadata(place.root("closed")).unwrap();
    assert_eq!(closed.permissions().mode() & 0o7777, 0);
}

#[test]
fn files_with_holes_take_no_more_room_than_they_have_content() {
    let place = Place::new();
    let length = 1_u64 << 40;
    let content = [b'x'; 512];
    let archive = Archive::new().raw(EntryType::GNUSparse, b"s", 512, &content, |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(length);
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(512);
    });
    place.unpack(&[archive.file("next", "n").end()]).unwrap();
    let found = fs::metadata(place.root("s")).unwrap();
    assert_eq!((found.len(), place.read("next").as_str()), (length, "n"));
    assert!(found.blocks() < 1000);
    let mut start = vec![0; 513];
    let mut file = fs::File::open(place.root("s")).unwrap();
    file.seek(SeekFrom::Start((1 << 20) - 1)).unwrap();
    file.read_exact(&mut start).unwrap();
    assert_eq!((start[0], start[1], start[512]), (0, b'x', b'x'));
    let broken = Archive::new().raw(EntryType::GNUSparse, b"s", 512, &content, |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(10);
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(512);
    });
    Place::new().refuses(broken);
}

#[test]
fn long_names_in_both_forms_arrive_whole_and_endless_ones_are_refused() {
    let place = Place::new();
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
    place.unpack(&[one, two, three]).unwrap();
    assert_eq!((place.read(&long), place.read(&other)), ("gnu".into(), "pax".into()));
    assert_eq!(fs::read_link(place.root("link")).unwrap().as_os_str().len(), 300);
    Place::new().refuses(Archive::new().pax(&[("path", &[b'x'; 300])]).file("y", ""));
    let bomb = Archive::new().raw(EntryType::GNULongName, b"x", 1 << 40, b"", |_| {});
    let text = Place::new().refuses(bomb);
    assert!(text.contains("allowed"), "{text}");
}

#[test]
fn of_two_members_with_one_name_the_last_one_counts() {
    let place = Place::new();
    let archive = Archive::new().file("a", "1").file("a", "2").dir("b").file("b/x", "");
    let archive = archive.file("b", "file now").dir("a").file("a/y", "").dir("a");
    place.unpack(&[archive.end()]).unwrap();
    assert_eq!((place.names("a"), place.read("b")), (vec!["y".into()], "file now".into()));
}

#[test]
fn an_image_that_does_not_fit_is_refused_before_it_fills_the_disk() {
    let place = Place::new();
    let huge = Archive::new().raw(EntryType::Regular, b"huge", 1 << 50, b"", |_| {});
    let error = place.unpack(&[huge.open_end()]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    assert!(place.names("").is_empty());
    // A bomb: little to download, much to unpack.
    let zeros = vec![0; 8 << 20];
    let size = zeros.len() as u64;
    let bomb = gzip(&Archive::new().raw(EntryType::Regular, b"z", size, &zeros, |_| {}).end());
    assert!(bomb.len() < 100_000);
    let error = place.unpack_with(&[bomb], bounds(1 << 20, 9)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
    let many = (0..20).fold(Archive::new(), |archive, n| archive.file(&n.to_string(), ""));
    let error = place.unpack_with(&[many.end()], bounds(9, 10)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
}

#[test]
fn j4_image_beyond_its_bounds_is_refused() {
    let of = |bytes, entries| Bounds {
        limits: Limits::of(bytes, entries, 1 << 30),
        ..bounds(1 << 40, 99)
    };
    let refusal = |archive: Archive, bounds: Bounds| {
        let error = Place::new().unpack_with(&[archive.end()], bounds).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
        error.to_string()
    };
    let files = || Archive::new().file("a", "12345").file("b", "12345");
    Place::new().unpack_with(&[files().end()], of(10, 2)).unwrap();
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
    Place::new().unpack_with(std::slice::from_ref(&layer), of(32 << 20)).unwrap();
    let error = Place::new().unpack_with(&[layer], of(16 << 20)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
    assert!(error.to_string().contains("MSB_IMAGE_MAX_RATIO"), "{error}");
}

#[test]
fn archives_that_end_early_or_never_or_are_no_archives_are_refused() {
    let whole = Archive::new().file("a", &"x".repeat(3000)).end();
    Place::new().refuses_bytes(whole[..1500].to_vec());
    Place::new().refuses_bytes(whole[..600].to_vec());
    Place::new().refuses_bytes(gzip(&whole)[..20].to_vec());
    Place::new().refuses_bytes(b"x".repeat(2048));
    let mut changed = whole.clone();
    changed[0] = b'b';
    Place::new().refuses_bytes(changed);
    let endless = [whole, vec![0; 70 << 20]].concat();
    let text = Place::new().refuses_bytes(gzip(&endless));
    assert!(text.contains("behind the end"), "{text}");
    // Not every tool writes the end of an archive, or its padding.
    let place = Place::new();
    place.unpack(&[Archive::new().file("a", "").open_end()]).unwrap();
    place.unpack(&[Vec::new()]).unwrap();
}

#[test]
fn sizes_that_no_number_can_hold_are_refused_and_not_added() {
    let most = u64::MAX.to_string();
    let archive = Archive::new().pax(&[("size", most.as_bytes())]).symlink("l", "x");
    Place::new().refuses(archive.file("f", ""));
    let archive = Archive::new().pax(&[("size", most.as_bytes())]).file("f", "");
    let error = Place::new().unpack(&[archive.end()]).unwrap_err();
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
    // No filesystem has such files; what it says decides, and nothing is counted wrongly.
    let archive = (0..4).fold(Archive::new(), |archive, n| huge(archive, &n.to_string()));
    assert!(Place::new().unpack(&[archive.end()]).is_err());
}

#[test]
fn directories_are_only_so_deep() {
    let place = Place::new();
    let deep = "d/".repeat(300);
    let link = Archive::new().pax(&[("path", deep.as_bytes())]).dir("x");
    let link = link.pax(&[("linkpath", deep.as_bytes())]).symlink("l", "x");
    place.unpack(&[link.end()]).unwrap();
    // A link doubles the way, but not without end.
    let deeper = format!("l/{deep}f");
    let archive = Archive::new().pax(&[("path", deeper.as_bytes())]).file("x", "");
    let text = place.refuses(archive);
    assert!(text.contains("deep"), "{text}");
}

#[test]
fn a_layer_is_what_its_digest_says_in_every_compression() {
    let place = Place::new();
    let tar = Archive::new().file("a", "content").end();
    let expected = Digest::of(&tar);
    let packed = [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 3).unwrap()];
    for bytes in packed {
        let path = place.scratch.path().join("layer");
        fs::write(&path, bytes).unwrap();
        let layer = (path, Some(expected.clone()));
        let bounds = || super::tests::bounds(1000, 9);
        let again = [layer.clone()];
        let found = unpack(&again, &place.root(""), Owners::RootOnly, bounds(), |_, _| {}).unwrap();
        assert_eq!((found.bytes, &found.diff_ids[0]), (7, &expected));
        let wrong = [(layer.0, Some(Digest::of(b"other")))];
        let error = unpack(&wrong, &place.root(""), Owners::RootOnly, bounds(), |_, _| {});
        assert!(error.unwrap_err().to_string().contains("unpacks to"));
    }
}

#[test]
fn holes_in_paxs_form_and_unknown_members_are_refused_in_words() {
    let archive = Archive::new().pax(&[("GNU.sparse.major", b"1")]).file("x", "");
    assert!(Place::new().refuses(archive).contains("holes"));
    let archive = Archive::new().mode("x", EntryType::new(b'V'), 0o644);
    assert!(Place::new().refuses(archive).contains("unknown kind"));
}
