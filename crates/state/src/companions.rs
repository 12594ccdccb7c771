//! The search for the library's companion programs.

use crate::error::{Error, Result};
use crate::trust::check_trusted;
use std::env;
use std::ffi::OsStr;
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
    /// Finds them; `library` is the directory of the shared library, if known.
    pub fn find(library: Option<&Path>) -> Result<Self> {
        Ok(Companions {
            runner: find_companion("msb-runner", "MSB_RUNNER", library)?,
            agent: find_companion("msb-agent", "MSB_AGENT", library)?,
        })
    }
}

/// Finds a program: the path in `variable`, else beside the library, beside the running program,
/// and in `PATH`.
///
/// Beside means in the same directory, or in the subdirectories of an installation or the build
/// tree. The library comes first, since its companions have to be of its version.
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
        let looked = format!("at {}", named.display());
        return Err(Error::CompanionNotFound { program, variable, looked });
    }
    let executable = env::current_exe().ok();
    let folders = near(library, executable.as_deref().and_then(Path::parent));
    let search = env::var_os("PATH").unwrap_or_default();
    let candidates = candidates(program, &folders, &search);
    if let Some(found) = candidates.into_iter().find(|path| path.is_file()) {
        return absolute(found);
    }
    // Do not list PATH, which may be long.
    let mut searched: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    searched.push("a directory of PATH".to_owned());
    let looked = format!("in or beside {}", searched.join(" or "));
    Err(Error::CompanionNotFound { program, variable, looked })
}

/// Returns the directories of the library and of the running program, if known.
fn near<'a>(library: Option<&'a Path>, beside: Option<&'a Path>) -> Vec<&'a Path> {
    // Cargo puts tests and examples into a subdirectory of the programs' directory.
    let above = beside
        .filter(|folder| folder.ends_with("deps") || folder.ends_with("examples"))
        .and_then(Path::parent);
    // A statically linked program is its own library.
    let beside = beside.filter(|folder| Some(*folder) != library);
    [library, beside, above].into_iter().flatten().collect()
}

/// Returns the candidate paths, in the order of preference.
fn candidates(program: &str, near: &[&Path], search: &OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in near {
        // The build tree: the static agent is in a separate directory. The dynamic one beside the
        // library runs in few sandboxes.
        found.push(folder.join("../static").join(program));
        found.push(folder.join(program));
        for path in INSTALLED {
            found.push(folder.join(path).join(program));
        }
    }
    // For statically linked programs: the companions are beside the installed `msb` in PATH.
    // Relative entries would depend on the working directory.
    for folder in env::split_paths(search).filter(|folder| folder.is_absolute()) {
        found.push(folder.join(program));
        for path in INSTALLED {
            found.push(folder.join(path).join(program));
        }
    }
    found
}

/// The companions of an installation, relative to its `bin`, its `lib`, and the `lib` of an
/// architecture.
const INSTALLED: [&str; 2] = ["../libexec/microsandbox", "../../libexec/microsandbox"];

/// Returns the path without links, if no other user can replace the program.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    check_trusted(&path)?;
    path.canonicalize().map_err(|error| Error::io("resolve", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_names_the_searched_directories() {
        let scratch = tempfile::tempdir().unwrap();
        let library = scratch.path().canonicalize().unwrap();
        let variable = "MSB_TEST_NOT_SET";
        let error = find_companion("msb-none", variable, Some(&library)).unwrap_err().to_string();
        assert!(error.contains(&format!("beside {}", library.display())), "{error}");
        assert!(error.contains(variable), "{error}");
        std::fs::write(library.join("msb-none"), "").unwrap();
        let found = find_companion("msb-none", variable, Some(&library)).unwrap();
        assert_eq!(found, library.join("msb-none"));
    }

    #[test]
    fn installation_is_found_from_library_program_and_path() {
        let scratch = tempfile::tempdir().unwrap();
        let prefix = scratch.path().canonicalize().unwrap();
        let runner = prefix.join("libexec/microsandbox/msb-runner");
        for folder in ["bin", "lib/x86_64-linux-gnu", "libexec/microsandbox"] {
            std::fs::create_dir_all(prefix.join(folder)).unwrap();
        }
        std::fs::write(&runner, "").unwrap();
        let find = |library: Option<&str>, beside: Option<&str>, search: &str| {
            let library = library.map(|folder| prefix.join(folder));
            let beside = beside.map(|folder| prefix.join(folder));
            let folders = near(library.as_deref(), beside.as_deref());
            candidates("msb-runner", &folders, OsStr::new(search))
                .into_iter()
                .find(|path| path.is_file())
                .map(|path| path.canonicalize().unwrap())
        };
        assert_eq!(find(Some("lib"), None, ""), Some(runner.clone()));
        assert_eq!(find(Some("lib/x86_64-linux-gnu"), None, ""), Some(runner.clone()));
        assert_eq!(find(None, Some("bin"), ""), Some(runner.clone()));
        let path = format!("/nonexistent:{}", prefix.join("bin").display());
        assert_eq!(find(None, None, &path), Some(runner));
        assert_eq!(find(None, None, ""), None);
    }

    #[test]
    fn library_comes_first_unrelated_directories_never() {
        let [library, beside] = ["/opt/msb/lib", "/srv/x/bin"].map(Path::new);
        let folders = near(Some(library), Some(beside));
        let all = candidates("msb-runner", &folders, OsStr::new(".:bin:"));
        let owner = |path: &PathBuf| path.starts_with(library);
        assert!(all.iter().skip_while(|path| owner(path)).all(|path| path.starts_with(beside)));
        assert!(!all.contains(&PathBuf::from("/srv/x/msb-runner")), "{all:?}");
        let built = Path::new("/src/target/debug/deps");
        let all = candidates("msb-agent", &near(None, Some(built)), OsStr::new(""));
        let at = |path: &str| all.iter().position(|one| one == Path::new(path)).unwrap();
        assert!(at("/src/target/debug/../static/msb-agent") < at("/src/target/debug/msb-agent"));
    }
}
