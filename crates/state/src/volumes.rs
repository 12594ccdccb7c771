//! Named volumes: create, get, list, remove, and their use by sandboxes.
//!
//! A volume is a directory below `volumes` in the state directory, with its record `volume.json`
//! and either the directory `data` or the file `disk.img`. It appears complete, by a rename.
//!
//! Owns: these files, and `volumes/.lock`, which the creation of a sandbox shares and a removal has
//! alone. Does not own: the content, which sandboxes write.
//! Invariant: a volume that the record of a sandbox names is not removed.

use crate::clock::now_ms;
use crate::companions::Companions;
use crate::dirs::{create_private_dir, is_retired, set_aside, write_atomically};
use crate::error::{Error, Failure, Result};
use crate::home::Home;
use crate::mounts::{self, Mount, MountSource, VolumeCreation};
use crate::name::Name;
use crate::store;
use crate::volume_spec::{NewVolume, VolumeKind, volume_name};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Version of the stored form.
const VERSION: u32 = 1;
/// Directories below a volume's top whose files are counted. A guest can nest deeper.
const MAX_DEPTH: usize = 64;

/// The content of `volume.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    kind: VolumeKind,
    #[serde(default)]
    quota_mib: Option<u64>,
    #[serde(default)]
    size_mib: Option<u64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    created_ms: u64,
}

/// A volume as read from disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Volume {
    /// Its name.
    pub name: Name,
    /// Its form.
    pub kind: VolumeKind,
    /// The directory, or the file with the filesystem.
    pub path: PathBuf,
    /// How much a directory should hold at most, in MiB.
    pub quota_mib: Option<u64>,
    /// The size of a disk in MiB.
    pub size_mib: Option<u64>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Volume {
    /// Returns how many bytes its files take on disk, as far as the caller may read them.
    pub fn used_bytes(&self) -> u64 {
        match self.kind {
            VolumeKind::Directory => disk_usage(&self.path, MAX_DEPTH),
            VolumeKind::Disk => fs::symlink_metadata(&self.path).map_or(0, |found| size(&found)),
        }
    }
}

fn size(found: &fs::Metadata) -> u64 {
    found.blocks().saturating_mul(512)
}

/// Returns the bytes that a directory takes. Follows no link, and opens nothing but directories.
fn disk_usage(path: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let found = entries.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    let used = found.map(|(path, found)| match found.is_dir() && depth > 0 {
        true => size(&found).saturating_add(disk_usage(&path, depth - 1)),
        false => size(&found),
    });
    used.fold(0, u64::saturating_add)
}

/// The lock on the set of volumes, held while this lives.
#[derive(Debug)]
pub(crate) struct VolumesLock {
    _file: File,
}

fn lock(home: &Home, operation: FlockOperation) -> Result<VolumesLock> {
    create_private_dir(&home.volumes())?;
    let path = home.volumes().join(".lock");
    let failed = |error: io::Error| Error::io("lock", &path, error);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed)?;
    loop {
        match flock(&file, operation) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
            Ok(()) => return Ok(VolumesLock { _file: file }),
        }
    }
}

/// Creates a volume.
pub fn create_volume(home: &Home, name: &str, new: &NewVolume) -> Result<Volume> {
    let name = volume_name(name)?;
    new.check(name.as_str())?;
    let top = home.volumes();
    create_private_dir(&top)?;
    if home.volume(&name).exists() {
        return Err(Error::VolumeAlreadyExists(name));
    }
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let half = top.join(format!(".new-{}-{}-{count}", std::process::id(), now_ms()));
    let made = fill(&half, new).and_then(|()| {
        match renameat_with(CWD, &half, CWD, home.volume(&name), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(Error::VolumeAlreadyExists(name.clone())),
            result => result.map_err(|error| Error::io("create", &home.volume(&name), error)),
        }
    });
    if made.is_err() {
        // Nobody else has it: it holds what `fill` made.
        let _ = fs::remove_dir_all(&half);
    }
    made?;
    volume(home, name.as_str())
}

fn fill(half: &Path, new: &NewVolume) -> Result<()> {
    create_private_dir(half)?;
    let data = half.join(content(new.kind));
    let failed = |error: io::Error| Error::io("create", &data, error);
    match new.kind {
        VolumeKind::Directory => {
            fs::DirBuilder::new().mode(0o755).create(&data).map_err(failed)?;
            // Independent of the umask: other users of a sandbox enter it.
            fs::set_permissions(&data, Permissions::from_mode(0o755)).map_err(failed)?;
        }
        VolumeKind::Disk => {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&data);
            let bytes = new.size_mib.unwrap_or(0).saturating_mul(1024 * 1024);
            file.and_then(|file| file.set_len(bytes)).map_err(failed)?;
        }
    }
    let record = Record {
        version: VERSION,
        kind: new.kind,
        quota_mib: new.quota_mib,
        size_mib: new.size_mib,
        labels: new.labels.clone(),
        created_ms: now_ms(),
    };
    let path = half.join("volume.json");
    let text = serde_json::to_vec(&record).map_err(|error| Error::io("write", &path, error))?;
    write_atomically(&path, &text)
}

fn content(kind: VolumeKind) -> &'static str {
    match kind {
        VolumeKind::Directory => "data",
        VolumeKind::Disk => "disk.img",
    }
}

/// Reads a volume.
pub fn volume(home: &Home, name: &str) -> Result<Volume> {
    let name = volume_name(name)?;
    let folder = home.volume(&name);
    let path = folder.join("volume.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::VolumeNotFound(name));
        }
        text => text.map_err(|error| Error::io("read", &path, error))?,
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|error| Error::io("read", &path, error))?;
    if record.version != VERSION {
        let text = format!(
            "volume {name} has version {}, this library supports {VERSION}",
            record.version
        );
        return Err(Failure::invalid_config(text).into());
    }
    let Record { kind, quota_mib, size_mib, labels, created_ms, .. } = record;
    let path = folder.join(content(kind));
    Ok(Volume { name, kind, path, quota_mib, size_mib, labels, created_ms })
}

/// Lists all volumes by name.
pub fn volumes(home: &Home) -> Result<Vec<Volume>> {
    let top = home.volumes();
    let entries = match fs::read_dir(&top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::io("read", &top, error))?,
    };
    let mut names: Vec<Name> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        match volume(home, name.as_str()) {
            // Removed in the meantime.
            Err(Error::VolumeNotFound(_)) => {}
            result => found.push(result?),
        }
    }
    Ok(found)
}

/// Returns which sandboxes use each volume, whether they run or not.
pub fn volume_users(
    home: &Home,
    companions: Option<&Companions>,
) -> Result<BTreeMap<String, Vec<Name>>> {
    let mut users: BTreeMap<String, Vec<Name>> = BTreeMap::new();
    for (sandbox, info) in store::list(home, companions)? {
        // A sandbox that cannot be read may use any volume.
        for mount in &info?.config.mounts {
            if let Some(volume) = mount.volume() {
                let of_volume = users.entry(volume.to_owned()).or_default();
                if of_volume.last() != Some(&sandbox) {
                    of_volume.push(sandbox.clone());
                }
            }
        }
    }
    Ok(users)
}

/// Removes a volume that no sandbox uses.
pub fn remove_volume(home: &Home, name: &str, companions: &Companions) -> Result<()> {
    let found = volume(home, name)?;
    let lock = lock(home, FlockOperation::LockExclusive)?;
    if let Some(users) = volume_users(home, Some(companions))?.remove(name) {
        return Err(Error::VolumeInUse(found.name, users));
    }
    let aside = set_aside(&home.volume(&found.name))?;
    drop(lock);
    let aside = aside.ok_or(Error::VolumeNotFound(found.name))?;
    store::remove_aside(&aside, companions)
}

/// Removes every volume that no sandbox uses, and what killed calls left. Returns the removed ones.
pub fn prune_volumes(home: &Home, companions: &Companions) -> Result<Vec<Volume>> {
    let lock = lock(home, FlockOperation::LockExclusive)?;
    let users = volume_users(home, Some(companions))?;
    let mut unused = volumes(home)?;
    unused.retain(|volume| !users.contains_key(volume.name.as_str()));
    for volume in &unused {
        set_aside(&home.volume(&volume.name))?;
    }
    drop(lock);
    let top = home.volumes();
    let entries = fs::read_dir(&top).map_err(|error| Error::io("read", &top, error))?;
    for entry in entries.flatten() {
        if is_retired(&entry.file_name().to_string_lossy()) {
            store::remove_aside(&entry.path(), companions)?;
        }
    }
    Ok(unused)
}

/// Refuses mounts that a new sandbox cannot have, and creates nothing.
pub(crate) fn check_mounts(home: &Home, mounts: &[Mount]) -> Result<()> {
    mounts::resolve(&mut mounts.to_vec(), home.path())?;
    mounts.iter().try_for_each(|mount| match &mount.source {
        MountSource::Named { volume: name, create } => match (volume(home, name), create) {
            (Err(Error::VolumeNotFound(_)), VolumeCreation::Create(new))
            | (Err(Error::VolumeNotFound(_)), VolumeCreation::EnsureExists(new)) => {
                Ok(new.check(name)?)
            }
            (Ok(found), VolumeCreation::Create(_)) => Err(Error::VolumeAlreadyExists(found.name)),
            (Ok(found), VolumeCreation::EnsureExists(new)) => same_kind(mount, &found, new),
            (found, _) => found.map(drop),
        },
        _ => Ok(()),
    })
}

fn same_kind(mount: &Mount, found: &Volume, new: &NewVolume) -> Result<()> {
    match found.kind == new.kind {
        true => Ok(()),
        false => {
            let Volume { name, kind, .. } = found;
            Err(mount.refusal(format_args!("volume {name} is a {kind}, not a {}", new.kind)).into())
        }
    }
}

/// Prepares the mounts of a new sandbox, and creates its volumes. None of them is removed while the
/// lock lives.
pub(crate) fn prepare_mounts(home: &Home, mounts: &mut [Mount]) -> Result<Option<VolumesLock>> {
    mounts::resolve(mounts, home.path())?;
    if mounts.iter().all(|mount| mount.volume().is_none()) {
        return Ok(None);
    }
    let lock = lock(home, FlockOperation::LockShared)?;
    for mount in mounts {
        let MountSource::Named { volume: name, create } = &mount.source else { continue };
        let name = name.clone();
        match create {
            VolumeCreation::Existing => drop(volume(home, &name)?),
            VolumeCreation::Create(new) => drop(create_volume(home, &name, new)?),
            VolumeCreation::EnsureExists(new) => match create_volume(home, &name, new) {
                Err(Error::VolumeAlreadyExists(_)) => same_kind(mount, &volume(home, &name)?, new)?,
                created => drop(created?),
            },
        }
        mount.source = MountSource::Named { volume: name, create: VolumeCreation::Existing };
    }
    Ok(Some(lock))
}

/// Refuses to start a sandbox again whose mounts are gone or lead elsewhere.
pub(crate) fn check_stored(home: &Home, mounts: &[Mount]) -> Result<()> {
    let mut now = mounts.to_vec();
    mounts::resolve(&mut now, home.path())?;
    for (mount, now) in mounts.iter().zip(&now) {
        if mount != now {
            return Err(mount.refusal("the path of its source is a symbolic link now").into());
        }
        if let Some(name) = mount.volume() {
            volume(home, name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::at(scratch.path()).unwrap();
        (scratch, home)
    }

    fn disk(mib: u64) -> NewVolume {
        NewVolume { kind: VolumeKind::Disk, size_mib: Some(mib), ..NewVolume::default() }
    }

    fn named(volume: &str, create: VolumeCreation) -> Mount {
        Mount::new("/data", MountSource::Named { volume: volume.to_owned(), create })
    }

    #[test]
    fn l2_volume_is_created_listed_and_read() {
        let (_scratch, home) = home();
        assert!(volumes(&home).unwrap().is_empty());
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let new = NewVolume { quota_mib: Some(64), labels: labels.clone(), ..NewVolume::default() };
        let made = create_volume(&home, "b", &new).unwrap();
        assert_eq!(
            (made.kind, made.quota_mib, &made.labels),
            (VolumeKind::Directory, Some(64), &labels)
        );
        assert_eq!(fs::metadata(&made.path).unwrap().mode() & 0o7777, 0o755);
        for folder in [home.volumes(), home.volume(&made.name)] {
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700, "{folder:?}");
        }
        create_volume(&home, "a", &disk(64)).unwrap();
        let listed = volumes(&home).unwrap();
        let names: Vec<_> = listed.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let found = fs::metadata(&listed[0].path).unwrap();
        assert_eq!((found.len(), found.blocks()), (64 << 20, 0), "a disk is sparse");
        let error = create_volume(&home, "a", &NewVolume::default()).unwrap_err();
        assert_eq!(error.to_string(), "volume a already exists; remove it or choose another name");
        let error = volume(&home, "c").unwrap_err().to_string();
        assert_eq!(error, "volume c does not exist; create it first");
        assert_eq!(fs::read_dir(home.volumes()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn l2_used_bytes_count_files_and_follow_no_link() {
        let (scratch, home) = home();
        let made = create_volume(&home, "v", &NewVolume::default()).unwrap();
        let empty = made.used_bytes();
        fs::create_dir(made.path.join("d")).unwrap();
        fs::write(made.path.join("d/f"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(scratch.path(), made.path.join("link")).unwrap();
        let used = made.used_bytes() - empty;
        assert!((1 << 20..2 << 20).contains(&used), "{used}");
    }

    #[test]
    fn l2_bad_volumes_are_refused_by_name() {
        let (_scratch, home) = home();
        let directory =
            |quota_mib, size_mib| NewVolume { quota_mib, size_mib, ..NewVolume::default() };
        for (name, new, reason) in [
            ("", directory(None, None), "the name of a volume is empty"),
            ("../x", directory(None, None), "the name of a volume starts with '.'"),
            ("v", directory(None, Some(64)), "cannot create volume v: a directory has no size"),
            ("v", directory(Some(0), None), "cannot create volume v: its quota is 0 MiB"),
            ("v", disk(1), "cannot create volume v: its size is 1 MiB"),
            ("v", NewVolume { size_mib: None, ..disk(64) }, "a disk needs a size"),
            ("v", NewVolume { quota_mib: Some(1), ..disk(64) }, "a disk has no quota"),
        ] {
            let error = create_volume(&home, name, &new).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn l2_modes_create_keep_or_require_a_volume() {
        let (_scratch, home) = home();
        let prepare = |create| prepare_mounts(&home, &mut [named("v", create)]).map(drop);
        let missing = prepare(VolumeCreation::Existing).unwrap_err();
        assert!(matches!(missing, Error::VolumeNotFound(_)), "{missing}");
        prepare(VolumeCreation::Create(NewVolume::default())).unwrap();
        let taken = prepare(VolumeCreation::Create(NewVolume::default())).unwrap_err();
        assert!(matches!(taken, Error::VolumeAlreadyExists(_)), "{taken}");
        prepare(VolumeCreation::EnsureExists(NewVolume::default())).unwrap();
        let error = prepare(VolumeCreation::EnsureExists(disk(64))).unwrap_err().to_string();
        assert_eq!(error, "cannot mount /data: volume v is a directory, not a disk");
        let mut mounts = [named("w", VolumeCreation::EnsureExists(NewVolume::default()))];
        check_mounts(&home, &mounts).unwrap();
        assert!(volume(&home, "w").is_err(), "a check creates nothing");
        prepare_mounts(&home, &mut mounts).unwrap();
        assert_eq!(mounts[0], named("w", VolumeCreation::Existing));
    }

    #[test]
    fn l4_source_that_became_a_link_is_refused_at_a_start() {
        let (_scratch, home) = home();
        let sources = tempfile::tempdir().unwrap();
        let path = sources.path().canonicalize().unwrap().join("source");
        fs::create_dir(&path).unwrap();
        let mount = Mount::new("/data", MountSource::Bind { source: path.clone().into() });
        check_stored(&home, std::slice::from_ref(&mount)).unwrap();
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        let error = check_stored(&home, &[mount]).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link now"), "{error}");
    }
}
