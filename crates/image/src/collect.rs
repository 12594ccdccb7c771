//! Taking things out of the store, without ever taking what something uses.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{entries, remove_file};
use crate::reference::Reference;
use crate::store::Store;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// What a cleaning has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images, by name where they had one, else by id.
    pub images: Vec<String>,
    /// How many bytes are free again, about.
    pub bytes: u64,
}

/// What the removal of an image has done.
pub type Removed = Pruned;

/// Removes a directory with all it contains, which may belong to users of a namespace.
type RemoveTree<'a> = &'a dyn Fn(&Path) -> Result<()>;

impl Store {
    /// The sandboxes that use an image. What a sandbox's file says is not interpreted: one of a
    /// later version counts as well.
    pub fn users_of(&self, id: &Digest) -> Result<Vec<String>> {
        let mut users = Vec::new();
        for folder in entries(&self.home().join("sandboxes"))? {
            let config = fs::read(folder.join("config.json")).unwrap_or_default();
            let mentions = config.windows(id.hex().len()).any(|part| part == id.hex().as_bytes());
            if let (true, Some(name)) = (mentions, folder.file_name()) {
                users.push(name.to_string_lossy().into_owned());
            }
        }
        users.sort();
        Ok(users)
    }

    /// Removes what pulls that were killed have left, unless somebody uses the store.
    pub fn tidy(&self, remove_tree: RemoveTree<'_>) -> Result<()> {
        match self.try_alone()? {
            Some(_alone) => self.clear_temporary(remove_tree),
            None => Ok(()),
        }
    }

    /// Takes a name from an image, or all of them, and removes the image when none is left.
    ///
    /// What others are using at the moment stays until the next removal.
    pub fn remove(
        &self,
        id: &Digest,
        reference: Option<&Reference>,
        force: bool,
        remove_tree: RemoveTree<'_>,
    ) -> Result<Removed> {
        let mut names = self.names()?;
        names.retain(|named| named.id == *id);
        let all = names.len();
        names.retain(|named| reference.is_none_or(|wanted| named.reference == *wanted));
        let users = self.users_of(id)?;
        let is_last = names.len() == all;
        if !users.is_empty() && is_last && !force {
            let text = format!("image {id} is used by {}", users.join(", "));
            let error = Error::new(ErrorKind::InUse, text);
            return Err(error.hint("remove the sandbox first, or force it to lose the name only"));
        }
        for named in &names {
            remove_file(&self.ref_path(&named.reference))?;
        }
        let mut removed: Removed = Removed {
            images: names.iter().map(|named| named.reference.familiar()).collect(),
            bytes: 0,
        };
        if is_last && let Some(_alone) = self.try_alone()? {
            // Asked again, since one may have been created before the lock was there.
            if self.users_of(id)?.is_empty() {
                removed.bytes += self.remove_image(id, remove_tree)?;
                if removed.images.is_empty() {
                    removed.images.push(id.to_string());
                }
            }
            removed.bytes += self.remove_unused_blobs()?;
            self.forget_imports()?;
            self.clear_temporary(remove_tree)?;
        }
        Ok(removed)
    }

    /// Removes every image without a name that no sandbox uses, with `all` also those with a name;
    /// blobs of no image, and what downloads have left. Waits for whoever uses the store.
    pub fn prune(&self, all: bool, remove_tree: RemoveTree<'_>) -> Result<Pruned> {
        let _alone = self.alone()?;
        let mut pruned = Pruned::default();
        let names = self.names()?;
        for id in self.ids()? {
            let own: Vec<_> = names.iter().filter(|named| named.id == id).collect();
            if (!own.is_empty() && !all) || !self.users_of(&id)?.is_empty() {
                continue;
            }
            for named in &own {
                remove_file(&self.ref_path(&named.reference))?;
                pruned.images.push(named.reference.familiar());
            }
            if own.is_empty() {
                pruned.images.push(id.to_string());
            }
            pruned.bytes += self.remove_image(&id, remove_tree)?;
        }
        // Names of images that are gone.
        for named in names.iter().filter(|named| !self.has(&named.id)) {
            remove_file(&self.ref_path(&named.reference))?;
        }
        pruned.bytes += self.remove_unused_blobs()?;
        for folder in ["partial", "locks"] {
            for path in entries(&self.folder(folder))? {
                pruned.bytes += fs::metadata(&path).map_or(0, |found| found.len());
                remove_file(&path)?;
            }
        }
        self.forget_imports()?;
        self.clear_temporary(remove_tree)?;
        Ok(pruned)
    }

    /// Out of the way as a whole first: what bears an image's name is whole, whoever kills this.
    fn remove_image(&self, id: &Digest, remove_tree: RemoveTree<'_>) -> Result<u64> {
        let bytes = self.record(id)?.map_or(0, |record| record.unpacked_bytes);
        let (place, aside) = (self.image(id), self.temporary());
        fs::rename(&place, &aside).map_err(|error| Error::io("remove", &place, error))?;
        remove_tree(&aside)?;
        Ok(bytes)
    }

    /// Removes blobs of no image, unless somebody uses the store.
    pub fn remove_unused(&self) -> Result<()> {
        if let Some(_alone) = self.try_alone()? {
            self.remove_unused_blobs()?;
        }
        Ok(())
    }

    fn remove_unused_blobs(&self) -> Result<u64> {
        let mut used = HashSet::new();
        for id in self.ids()? {
            let Some(record) = self.record(&id)? else { continue };
            let layers = record.layers.into_iter().map(|blob| blob.digest);
            used.extend(layers.chain([record.manifest, record.config]).map(String::from));
        }
        let mut bytes = 0;
        for path in entries(&self.folder("blobs/sha256"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !used.contains(&format!("sha256:{name}")) {
                bytes += fs::metadata(&path).map_or(0, |found| found.len());
                remove_file(&path)?;
            }
        }
        Ok(bytes)
    }

    fn clear_temporary(&self, remove_tree: RemoveTree<'_>) -> Result<()> {
        for path in entries(&self.folder("tmp"))? {
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                remove_tree(&path)?;
            } else {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Blob, ImageRecord};

    fn remove_tree(path: &Path) -> Result<()> {
        fs::remove_dir_all(path).map_err(|error| Error::io("remove", path, error))
    }

    fn add(store: &Store, name: Option<&str>, salt: &str) -> Digest {
        let id =
            store.add_blob(format!(r#"{{"created":"{salt}"}}"#).as_bytes(), None).unwrap().digest;
        let made = store.temporary();
        fs::create_dir_all(made.join("rootfs")).unwrap();
        let layer = Blob { digest: store.add_blob(salt.as_bytes(), None).unwrap().digest, size: 1 };
        let manifest = store.add_blob(format!("m{salt}").as_bytes(), None).unwrap().digest;
        let config = id.clone();
        let record =
            ImageRecord { manifest, config, layers: vec![layer], unpacked_bytes: 10, made_ms: 1 };
        store.install(&id, &made, &record).unwrap();
        if let Some(name) = name {
            store.name(&Reference::parse(name, "docker.io").unwrap(), &id, None).unwrap();
        }
        id
    }

    fn use_in_sandbox(store: &Store, sandbox: &str, id: &Digest) {
        let folder = store.home().join("sandboxes").join(sandbox);
        fs::create_dir_all(&folder).unwrap();
        let text = format!(r#"{{"image": "{}"}}"#, store.rootfs(id).display());
        fs::write(folder.join("config.json"), text).unwrap();
    }

    #[test]
    fn what_a_sandbox_uses_is_never_removed() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        let (used, free) = (add(&store, Some("used"), "1"), add(&store, Some("free"), "2"));
        let unnamed = add(&store, None, "3");
        use_in_sandbox(&store, "box", &used);
        let error = store.remove(&used, None, false, &remove_tree).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InUse);
        assert!(error.to_string().contains("box"), "{error}");
        store.remove(&used, None, true, &remove_tree).unwrap();
        assert!(store.has(&used), "only its name is gone");
        let pruned = store.prune(false, &remove_tree).unwrap();
        assert_eq!(pruned.images, [unnamed.to_string()]);
        assert!(store.has(&used) && store.has(&free) && !store.has(&unnamed));
        assert!(store.config(&used).is_ok(), "its blobs stay");
        assert_eq!(store.prune(true, &remove_tree).unwrap().images, ["free:latest"]);
        assert_eq!(store.ids().unwrap(), [used]);
    }

    #[test]
    fn a_name_that_goes_leaves_the_image_to_the_others() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        let id = add(&store, Some("one"), "1");
        let two = Reference::parse("two", "docker.io").unwrap();
        store.name(&two, &id, None).unwrap();
        store.remove(&id, Some(&two), false, &remove_tree).unwrap();
        assert!(store.has(&id) && store.resolve(&two).unwrap().is_none());
        let one = Reference::parse("one", "docker.io").unwrap();
        assert!(store.remove(&id, Some(&one), false, &remove_tree).unwrap().bytes > 10);
        assert!(!store.has(&id) && entries(&store.folder("blobs/sha256")).unwrap().is_empty());
    }

    #[test]
    fn what_killed_pulls_left_goes_with_the_next_one_but_not_under_a_running_one() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        let hold = store.hold().unwrap();
        fs::create_dir_all(store.temporary().join("rootfs/half")).unwrap();
        store.tidy(&remove_tree).unwrap();
        assert_eq!(entries(&store.folder("tmp")).unwrap().len(), 1);
        drop(hold);
        store.tidy(&remove_tree).unwrap();
        assert!(entries(&store.folder("tmp")).unwrap().is_empty());
    }
}
