//! Removes images and blobs that nothing uses.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{entries, remove_file};
use crate::reference::Reference;
use crate::store::Store;
use crate::task::TaskOutcome;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Removes a directory tree, whose files may belong to users of a user namespace.
type RemoveTree<'a> = &'a dyn Fn(&Path) -> Result<()>;

impl Store {
    /// Returns the sandboxes that use an image.
    ///
    /// Searches their configurations as text, so that one of a later version counts as well.
    pub fn users_of(&self, id: &Digest) -> Result<Vec<String>> {
        let mut users = Vec::new();
        for directory in entries(&self.home().join("sandboxes"))? {
            let config = fs::read(directory.join("config.json")).unwrap_or_default();
            let mentions = config.windows(id.hex().len()).any(|part| part == id.hex().as_bytes());
            if let (true, Some(name)) = (mentions, directory.file_name()) {
                users.push(name.to_string_lossy().into_owned());
            }
        }
        users.sort();
        Ok(users)
    }

    /// Removes temporary files of killed pulls, unless the store is in use.
    pub fn remove_leftovers(&self, remove_tree: RemoveTree<'_>) -> Result<()> {
        match self.try_lock_exclusive()? {
            Some(_lock) => self.clear_temporary(remove_tree),
            None => Ok(()),
        }
    }

    /// Removes one name of an image, or all of them, and the image with its last name.
    ///
    /// While other processes use the store, the files stay until the next removal.
    pub fn remove(
        &self,
        id: &Digest,
        reference: Option<&Reference>,
        force: bool,
        remove_tree: RemoveTree<'_>,
    ) -> Result<TaskOutcome> {
        let mut names = self.names()?;
        names.retain(|named| named.id == *id);
        let all = names.len();
        names.retain(|named| reference.is_none_or(|wanted| named.reference == *wanted));
        let users = self.users_of(id)?;
        let is_last = names.len() == all;
        if !users.is_empty() && is_last && !force {
            let text = format!("cannot remove image {id}: used by {}", users.join(", "));
            let error = Error::new(ErrorKind::InUse, text);
            return Err(
                error.hint("remove the sandbox first, or use force to remove only the name")
            );
        }
        for named in &names {
            remove_file(&self.ref_path(&named.reference))?;
        }
        let mut outcome = TaskOutcome {
            id: Some(id.clone()),
            removed: names.iter().map(|named| named.reference.familiar()).collect(),
            ..TaskOutcome::default()
        };
        if is_last && let Some(_lock) = self.try_lock_exclusive()? {
            // Checked again: a sandbox may have been created before the lock was acquired.
            if self.users_of(id)?.is_empty() {
                outcome.freed += self.remove_image(id, remove_tree)?;
                if outcome.removed.is_empty() {
                    outcome.removed.push(id.to_string());
                }
            }
            outcome.freed += self.sweep_blobs()?;
            self.remove_stale_imports()?;
            self.clear_temporary(remove_tree)?;
        }
        Ok(outcome)
    }

    /// Removes unused blobs, partial downloads, and images without a name that no sandbox uses.
    ///
    /// With `all` also images with a name. Waits until no other process uses the store.
    pub fn prune(&self, all: bool, remove_tree: RemoveTree<'_>) -> Result<TaskOutcome> {
        let _lock = self.lock_exclusive()?;
        let mut outcome = TaskOutcome::default();
        let names = self.names()?;
        for id in self.ids()? {
            let own: Vec<_> = names.iter().filter(|named| named.id == id).collect();
            if (!own.is_empty() && !all) || !self.users_of(&id)?.is_empty() {
                continue;
            }
            for named in &own {
                remove_file(&self.ref_path(&named.reference))?;
                outcome.removed.push(named.reference.familiar());
            }
            if own.is_empty() {
                outcome.removed.push(id.to_string());
            }
            outcome.freed += self.remove_image(&id, remove_tree)?;
        }
        // Names of images that no longer exist.
        for named in names.iter().filter(|named| !self.has(&named.id)) {
            remove_file(&self.ref_path(&named.reference))?;
        }
        outcome.freed += self.sweep_blobs()?;
        for name in ["partial", "locks"] {
            for path in entries(&self.directory(name))? {
                outcome.freed += fs::metadata(&path).map_or(0, |found| found.len());
                remove_file(&path)?;
            }
        }
        self.remove_stale_imports()?;
        self.clear_temporary(remove_tree)?;
        Ok(outcome)
    }

    /// Removes an image's directory. Renames it first, so that a crash leaves no partial image.
    fn remove_image(&self, id: &Digest, remove_tree: RemoveTree<'_>) -> Result<u64> {
        let bytes = self.record(id)?.map_or(0, |record| record.unpacked_bytes);
        let (path, aside) = (self.image(id), self.temporary());
        fs::rename(&path, &aside).map_err(|error| Error::io("remove", &path, error))?;
        remove_tree(&aside)?;
        Ok(bytes)
    }

    /// Removes blobs that belong to no image, unless the store is in use.
    pub fn remove_unused_blobs(&self) -> Result<()> {
        if let Some(_lock) = self.try_lock_exclusive()? {
            self.sweep_blobs()?;
        }
        Ok(())
    }

    fn sweep_blobs(&self) -> Result<u64> {
        let mut used = HashSet::new();
        for id in self.ids()? {
            let Some(record) = self.record(&id)? else { continue };
            let layers = record.layers.into_iter().map(|blob| blob.digest);
            used.extend(layers.chain([record.manifest, record.config]).map(String::from));
        }
        let mut bytes = 0;
        for path in entries(&self.directory("blobs/sha256"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !used.contains(&format!("sha256:{name}")) {
                bytes += fs::metadata(&path).map_or(0, |found| found.len());
                remove_file(&path)?;
            }
        }
        Ok(bytes)
    }

    fn clear_temporary(&self, remove_tree: RemoveTree<'_>) -> Result<()> {
        for path in entries(&self.directory("tmp"))? {
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
        let directory = store.temporary();
        fs::create_dir_all(directory.join("rootfs")).unwrap();
        let layer = Blob { digest: store.add_blob(salt.as_bytes(), None).unwrap().digest, size: 1 };
        let manifest = store.add_blob(format!("m{salt}").as_bytes(), None).unwrap().digest;
        let config = id.clone();
        let record =
            ImageRecord { manifest, config, layers: vec![layer], unpacked_bytes: 10, made_ms: 1 };
        store.install(&id, &directory, &record).unwrap();
        if let Some(name) = name {
            store.set_name(&Reference::parse(name, "docker.io").unwrap(), &id, None).unwrap();
        }
        id
    }

    fn use_in_sandbox(store: &Store, sandbox: &str, id: &Digest) {
        let directory = store.home().join("sandboxes").join(sandbox);
        fs::create_dir_all(&directory).unwrap();
        let text = format!(r#"{{"image": "{}"}}"#, store.rootfs(id).display());
        fs::write(directory.join("config.json"), text).unwrap();
    }

    #[test]
    fn image_in_use_is_never_removed() {
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
        assert_eq!(pruned.removed, [unnamed.to_string()]);
        assert!(store.has(&used) && store.has(&free) && !store.has(&unnamed));
        assert!(store.config(&used).is_ok(), "its blobs remain");
        assert_eq!(store.prune(true, &remove_tree).unwrap().removed, ["free:latest"]);
        assert_eq!(store.ids().unwrap(), [used]);
    }

    #[test]
    fn removing_one_name_keeps_the_image_for_the_others() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        let id = add(&store, Some("one"), "1");
        let two = Reference::parse("two", "docker.io").unwrap();
        store.set_name(&two, &id, None).unwrap();
        store.remove(&id, Some(&two), false, &remove_tree).unwrap();
        assert!(store.has(&id) && store.resolve(&two).unwrap().is_none());
        let one = Reference::parse("one", "docker.io").unwrap();
        assert!(store.remove(&id, Some(&one), false, &remove_tree).unwrap().freed > 10);
        assert!(!store.has(&id) && entries(&store.directory("blobs/sha256")).unwrap().is_empty());
    }

    #[test]
    fn leftovers_are_removed_unless_the_store_is_in_use() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        let lock = store.lock_shared().unwrap();
        fs::create_dir_all(store.temporary().join("rootfs/half")).unwrap();
        store.remove_leftovers(&remove_tree).unwrap();
        assert_eq!(entries(&store.directory("tmp")).unwrap().len(), 1);
        drop(lock);
        store.remove_leftovers(&remove_tree).unwrap();
        assert!(entries(&store.directory("tmp")).unwrap().is_empty());
    }
}
