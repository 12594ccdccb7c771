//! The search for the programs that come with the library.

use crate::error::{Error, Result};
use std::env;
use std::path::{Path, PathBuf};

/// The programs that the library starts or puts into a sandbox.
#[derive(Debug, Clone)]
pub struct Companions {
    /// `msb-runner`.
    pub runner: PathBuf,
    /// `msb-agent`, linked statically.
    pub agent: PathBuf,
}

impl Companions {
    /// Finds them; `library` is the directory that holds the shared library, where known.
    pub fn find(library: Option<&Path>) -> Result<Self> {
        Ok(Companions {
            runner: find_companion("msb-runner", "MSB_RUNNER", library)?,
            agent: find_companion("msb-agent", "MSB_AGENT", library)?,
        })
    }
}

/// Finds one program: what `variable` names, else beside the running program, in the directory
/// above it, beside the library, in the usual places of an installation, and in `PATH`.
pub fn find_companion(
    program: &'static str,
    variable: &'static str,
    library: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(named) = env::var_os(variable).filter(|path| !path.is_empty()) {
        let named = PathBuf::from(named);
        if named.is_file() {
            return absolute(named);
        }
        let looked = named.display().to_string();
        return Err(Error::CompanionNotFound { program, variable, looked });
    }
    let mut candidates = Vec::new();
    let executable = env::current_exe().ok();
    let beside = executable.as_deref().and_then(Path::parent);
    // Cargo puts tests and examples into a directory below the one with the programs.
    let above = beside.and_then(Path::parent);
    for directory in [beside, above, library].into_iter().flatten() {
        candidates.push(directory.join(program));
        // The development build: the agent is linked statically, into a directory of its own.
        candidates.push(directory.join("static").join(program));
        candidates.push(directory.join("../static").join(program));
        candidates.push(directory.join("../libexec/microsandbox").join(program));
        candidates.push(directory.join("../lib/microsandbox").join(program));
    }
    let search = env::var_os("PATH").unwrap_or_default();
    candidates.extend(env::split_paths(&search).map(|directory| directory.join(program)));
    // Found in this order, so that the static agent wins over a dynamic one of the same build.
    let is_static = |path: &&PathBuf| path.parent().is_some_and(|p| p.ends_with("static"));
    let found = candidates
        .iter()
        .filter(is_static)
        .chain(candidates.iter().filter(|path| !is_static(path)))
        .find(|path| path.is_file());
    if let Some(found) = found {
        return absolute(found.clone());
    }
    let looked =
        candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(Error::CompanionNotFound { program, variable, looked })
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| Error::io("resolve", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_beside_the_library_is_found_and_a_missing_one_names_the_places() {
        let scratch = tempfile::tempdir().unwrap();
        let library = scratch.path().canonicalize().unwrap();
        let variable = "MSB_TEST_NOT_SET";
        let error = find_companion("msb-none", variable, Some(&library)).unwrap_err().to_string();
        assert!(error.contains(&format!("{}/msb-none", library.display())), "{error}");
        assert!(error.contains(variable), "{error}");
        std::fs::write(library.join("msb-none"), "").unwrap();
        let found = find_companion("msb-none", variable, Some(&library)).unwrap();
        assert_eq!(found, library.join("msb-none"));
    }
}
