//! Landlock: a second wall around files, and one around TCP, signals and abstract sockets.

use crate::describe::{Jail, Proc, Source};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The ABI version whose rights are handled, as far as the kernel has them.
const VERSION: ABI = ABI::V6;

/// Confines this thread and its children to the files of the jail. Returns the reason if it cannot.
/// With `whole` the root is the jail's, else the host's.
pub(crate) fn restrict(jail: &Jail, whole: bool) -> Option<String> {
    match try_restrict(jail, whole) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => None,
        Ok(RulesetStatus::NotEnforced) => Some("the kernel does not have it".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn try_restrict(jail: &Jail, whole: bool) -> Result<RulesetStatus, RulesetError> {
    if jail.binds.iter().any(|bind| bind.writable) && !has_refer() {
        // Such kernels refuse every link and rename between directories.
        return Ok(RulesetStatus::NotEnforced);
    }
    let (read, all) = (AccessFs::from_read(VERSION), AccessFs::from_all(VERSION));
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    let file = AccessFs::from_file(VERSION);
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| {
        // A path that cannot be opened needs no rule.
        let Ok(fd) = PathFd::new(path) else { return Ok(()) };
        let access = if path.is_dir() { access } else { access & file };
        (&mut ruleset).add_rule(PathBeneath::new(fd, access)).map(drop)
    };
    if whole && jail.proc != Proc::Settings {
        allow(Path::new("/"), read)?;
    }
    for bind in &jail.binds {
        let access = if bind.writable { all } else { read };
        match &bind.source {
            _ if whole => allow(Path::new(&bind.target), access)?,
            Source::Path(path) => allow(Path::new(path), access)?,
            Source::Descriptor(number) => {
                allow(Path::new(&format!("/proc/self/fd/{number}")), access)?;
            }
        }
    }
    for device in &jail.devices {
        allow(Path::new(device), all)?;
    }
    if jail.proc != Proc::None {
        allow(Path::new("/proc/self"), read)?;
    }
    if jail.proc == Proc::Settings {
        allow(Path::new("/proc/sys/fs/file-max"), read)?;
    }
    ruleset.restrict_self().map(|status| status.ruleset)
}

fn has_refer() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::Refer).is_ok()
}

/// Returns whether the kernel has Landlock.
pub(crate) fn has_landlock() -> bool {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    ruleset.is_ok_and(|created| Option::<OwnedFd>::from(created).is_some())
}
