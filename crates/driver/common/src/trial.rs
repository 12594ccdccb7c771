//! The results of trials, by which drivers probe whether a program works on this host, and the lock
//! of the directory in which they run.

use msb_state::{now_ms, write_atomically};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a failure is cached. A success is cached until the next boot.
const FAILURE_HOLDS_MS: u64 = 60_000;
/// Time limit of the wait for another process's trial, and the pause between two attempts.
const LOCK_LIMIT: Duration = Duration::from_secs(60);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The result of a trial, and what it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialRecord {
    program: PathBuf,
    modified: (i64, i64),
    boot: String,
    users: String,
    at_ms: u64,
    /// Resource limits of the process, which a program inherits.
    #[serde(default)]
    limits: String,
    error: Option<String>,
}

impl TrialRecord {
    /// Creates the record of a trial of a program that begins now. `users` is what of the users
    /// decides whether it works.
    pub fn new(program: &Path, users: String) -> io::Result<TrialRecord> {
        let found = fs::metadata(program)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(TrialRecord {
            program: program.to_path_buf(),
            modified: (found.mtime(), found.mtime_nsec()),
            boot: boot.trim().to_owned(),
            users,
            at_ms: now_ms(),
            limits: fs::read_to_string("/proc/self/limits")?,
            error: None,
        })
    }

    /// Returns the result in a cache, if it holds for this trial as well.
    pub fn cached(&self, cache: &Path) -> Option<Result<(), String>> {
        let known = known(cache).into_iter().find(|known| known.holds_for(self))?;
        Some(known.error.map_or(Ok(()), Err))
    }

    /// Writes the result to a cache. Ignores a failure: the next start then tries again.
    pub fn save(mut self, cache: &Path, result: &Result<(), String>) {
        self.error = result.as_ref().err().cloned();
        let mut known = known(cache);
        known.retain(|known| known.program != self.program);
        known.push(self);
        if let Ok(bytes) = serde_json::to_vec(&known) {
            let _ = write_atomically(cache, &bytes);
        }
    }

    fn holds_for(&self, now: &TrialRecord) -> bool {
        // A failure may be due to the limits of the process that probed.
        let fresh = self.error.is_none()
            || (self.limits == now.limits
                && now.at_ms.saturating_sub(self.at_ms) < FAILURE_HOLDS_MS);
        let same = (&self.program, self.modified, &self.boot, &self.users)
            == (&now.program, now.modified, &now.boot, &now.users);
        fresh && same
    }
}

/// The lock of a directory for trials. The process that holds it removes what a killed one left.
#[derive(Debug)]
pub struct TrialLock {
    file: File,
}

impl Drop for TrialLock {
    fn drop(&mut self) {
        // A child that was just forked has the file as well, and would keep the lock until its exec.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl TrialLock {
    /// Takes the lock; waits while another process has it.
    pub async fn take(directory: &Path) -> Result<TrialLock, String> {
        let taken = async {
            loop {
                if let Some(lock) = TrialLock::try_take(directory)? {
                    return Ok(lock);
                }
                sleep(LOCK_PAUSE).await;
            }
        };
        let late = || "timed out waiting for another probe".to_owned();
        timeout(LOCK_LIMIT, taken).await.unwrap_or_else(|_| Err(late()))
    }

    /// Takes the lock; returns `None` if another process has it.
    pub fn try_take(directory: &Path) -> Result<Option<TrialLock>, String> {
        let file = File::create(directory.with_extension("lock"));
        let file = file.map_err(|error| error.to_string())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(TrialLock { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Returns the results in a cache.
fn known(cache: &Path) -> Vec<TrialRecord> {
    fs::read(cache).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(error: Option<&str>, at_ms: u64) -> TrialRecord {
        TrialRecord {
            program: "/x".into(),
            modified: (1, 2),
            boot: "b".into(),
            users: "Host".into(),
            at_ms,
            limits: "l".into(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn success_is_cached_for_the_boot_failure_for_a_minute() {
        let mut limited = record(Some("no file"), 990_000);
        limited.limits = "less".into();
        assert!(!limited.holds_for(&record(None, 1_000_000)));
        let later = record(None, 1_000_000);
        assert!(record(None, 0).holds_for(&later));
        assert!(!record(Some("broken"), 0).holds_for(&later));
        assert!(record(Some("broken"), 990_000).holds_for(&later));
        let mut rebooted = later.clone();
        rebooted.boot = "c".into();
        assert!(!record(None, 0).holds_for(&rebooted));
        let mut upgraded = later;
        upgraded.modified = (9, 9);
        assert!(!record(None, 0).holds_for(&upgraded));
    }

    #[test]
    fn saved_result_is_found_and_replaced() {
        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join("trials.json");
        let now = || TrialRecord::new(Path::new("/proc/self/exe"), "Host".to_owned()).unwrap();
        assert_eq!(now().cached(&cache), None);
        now().save(&cache, &Err("broken".to_owned()));
        assert_eq!(now().cached(&cache), Some(Err("broken".to_owned())));
        now().save(&cache, &Ok(()));
        assert_eq!(now().cached(&cache), Some(Ok(())));
    }
}
