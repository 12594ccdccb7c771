//! Runs all cases, several at a time, in one sandbox per profile.

use crate::command::env;
use crate::format::{Case, CaseFile, Profile, Profiles, Requirement, Tty, WrongCases};
use crate::protocol::{Done, Request};
use crate::rootfs::rootfs;
use crate::run::{self, Problem};
use crate::testee::Testee;
use crate::time::scaled;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Number of cases that run concurrently.
const AT_ONCE: usize = 4;

/// The time limit for the start or the end of a sandbox.
const SANDBOX_LIMIT: Duration = Duration::from_secs(180);

/// The result of all cases.
#[derive(Debug, Default)]
pub struct Report {
    total: usize,
    passed: usize,
    failed: usize,
    skipped: BTreeMap<&'static str, usize>,
    /// How many wrong expectations were detected, and how many there are.
    noticed: Option<(usize, usize)>,
    testee: Option<String>,
}

impl Report {
    /// Returns whether every case that ran passed, and every wrong expectation was detected.
    pub fn passed(&self) -> bool {
        self.failed == 0
            && self.passed > 0
            && self.noticed.is_none_or(|(noticed, all)| noticed == all)
            && self.testee.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} cases", self.passed, self.total)?;
        if self.failed > 0 {
            write!(f, ", {} FAILED", self.failed)?;
        }
        for (why, count) in &self.skipped {
            write!(f, ", {count} skipped ({why})")?;
        }
        if let Some((noticed, all)) = self.noticed {
            write!(f, "; {noticed} of {all} wrong expectations noticed")?;
        }
        self.testee.iter().try_for_each(|why| write!(f, "; {why}"))
    }
}

/// A case, and the name of its file.
type Named = (String, Case);

/// Runs the cases on a testee.
///
/// # Errors
/// Fails if the cases cannot be run.
pub fn judge(testee: &[OsString], trace: bool) -> Result<Report, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let filter = std::env::var("MSB_CONFORMANCE").unwrap_or_default();
    let profiles: Profiles = parse(&folder.join("profiles.json"))?;
    let cases = load(&folder, &profiles)?;
    let wrong = load_wrong(&folder)?;
    let image = rootfs(&folder).map_err(|error| format!("no root filesystem: {error}"))?;
    // Short, because socket paths are limited.
    let home = tempfile::Builder::new().prefix("msb-").tempdir_in("/tmp");
    let home = home.map_err(|error| error.to_string())?;

    let testee = Testee::start(testee, home.path(), trace)?;
    let mut suite = Suite::new(testee, profiles, image);
    let mut report = Report { total: cases.len(), ..Report::default() };
    let (begun, no_event) = (Instant::now(), |_, _| Err("an event before anything".to_owned()));
    match suite.testee.ask(Request::new("hello"), begun + scaled(SANDBOX_LIMIT), no_event)?.done {
        Done::Hello(words) => suite.testee.hello = words,
        done => return Err(format!("the testee's hello is {done:?}")),
    }
    if filter.is_empty() {
        let problems = suite.run(&wrong);
        let noticed = |problem: &Option<Problem>| matches!(problem, Some(Problem::Wrong(_)));
        for ((_, case), problem) in wrong.iter().zip(&problems) {
            if !noticed(problem) {
                report_failure(&format!("not noticed: {}", case.name));
            }
        }
        report.noticed = Some((problems.iter().filter(|p| noticed(p)).count(), wrong.len()));
    }
    let chosen = choose(cases, &filter, &mut report);
    for ((file, case), problem) in chosen.iter().zip(suite.run(&chosen)) {
        match problem {
            None => report.passed += 1,
            Some(Problem::Cannot(cannot)) => {
                *report.skipped.entry(cannot.reason()).or_default() += 1;
            }
            Some(Problem::Wrong(why)) => {
                report.failed += 1;
                report_failure(&format!("{file}: {}: {why}", case.name));
            }
        }
    }
    if let Err(why) = suite.end() {
        // A sandbox may still exist, whose mounts must not be walked.
        let home = home.keep();
        report.testee = Some(format!("{why}; its sandboxes are in {}", home.display()));
    }
    Ok(report)
}

#[allow(clippy::print_stderr, reason = "a case that failed")]
fn report_failure(about: &str) {
    eprintln!("{about}");
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    serde_json::from_str(&text).map_err(|error| named(&error))
}

/// Reads every file of cases, terminal variants included.
fn load(folder: &Path, profiles: &Profiles) -> Result<Vec<Named>, String> {
    let files = std::fs::read_dir(folder.join("cases")).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut names = HashSet::new();
    let mut cases = Vec::new();
    for path in files {
        let file: CaseFile = parse(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for case in &file.cases {
            case.check().map_err(|why| format!("{name}: {why}"))?;
        }
        for case in file.cases.into_iter().flat_map(variants) {
            if !profiles.contains_key(&case.sandbox) {
                return Err(format!("{name}: no sandbox {:?}", case.sandbox));
            }
            if !names.insert(case.name.clone()) {
                return Err(format!("{name}: two cases are called {:?}", case.name));
            }
            cases.push((name.to_string(), case));
        }
    }
    Ok(cases)
}

fn variants(case: Case) -> Vec<Case> {
    let mut all = vec![case];
    if let Some(case) = all.first().filter(|case| case.also_tty).cloned() {
        let (name, tty) = (format!("{}, on a terminal", case.name), Some(Tty::default()));
        all.push(Case { name, tty, ..case });
    }
    all
}

/// Reads the cases that have to fail, and rejects those that have to be rejected.
fn load_wrong(folder: &Path) -> Result<Vec<Named>, String> {
    let file: WrongCases = parse(&folder.join("wrong-cases.json"))?;
    if let Some(case) = file.out_of_form.iter().find(|case| Case::unnamed(case).is_ok()) {
        return Err(format!("wrong-cases.json: {case} is in form"));
    }
    let named = |case| Ok(("wrong-cases".to_owned(), Case::unnamed(case)?));
    file.wrong.iter().map(named).collect()
}

/// Selects the requested cases that can run here.
fn choose(cases: Vec<Named>, filter: &str, report: &mut Report) -> Vec<Named> {
    let root = rustix::process::geteuid().is_root();
    let driver = std::env::var("MSB_DRIVER").unwrap_or_default();
    let mut skip = |why| *report.skipped.entry(why).or_default() += 1;
    let chosen = |(file, case): &Named| {
        let mut about = [file, &case.name].into_iter().chain(&case.promises).chain(&case.refs);
        if !about.any(|about| about.contains(filter)) {
            skip("not asked for");
        } else if case.requires.contains(&Requirement::Root) && !root {
            skip("needs root");
        } else if case.not_on.contains_key(&driver) {
            skip("the driver differs");
        } else {
            return true;
        }
        false
    };
    cases.into_iter().filter(chosen).collect()
}

/// A testee and its sandboxes.
struct Suite {
    testee: Testee,
    profiles: Profiles,
    image: PathBuf,
    /// By profile; a failed creation is not repeated.
    sandboxes: Mutex<HashMap<String, Result<u64, String>>>,
    own_path: AtomicUsize,
}

impl Suite {
    fn new(testee: Testee, profiles: Profiles, image: PathBuf) -> Self {
        let (sandboxes, own_path) = (Mutex::default(), AtomicUsize::default());
        Suite { testee, profiles, image, sandboxes, own_path }
    }

    /// Runs cases, several at a time, and returns the problem of each.
    fn run(&self, cases: &[Named]) -> Vec<Option<Problem>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut problems = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, case)) = cases.get(at) else { return problems };
                problems.push((at, self.problem(case).err()));
            }
        };
        let mut problems: Vec<_> = cases.iter().map(|_| Some("was not run".into())).collect();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            for (at, problem) in workers.into_iter().flat_map(|w| w.join().unwrap_or_default()) {
                if let Some(place) = problems.get_mut(at) {
                    *place = problem;
                }
            }
        });
        problems
    }

    /// Runs a case as often as it requests.
    fn problem(&self, case: &Case) -> Result<(), Problem> {
        let sandbox = self.sandbox(&case.sandbox)?;
        for _ in 0..case.times.map_or(1, Into::into) {
            let own_path = format!("/tmp/case-{}", self.own_path.fetch_add(1, Ordering::Relaxed));
            run::once(case, &self.testee, sandbox, &own_path)?;
        }
        Ok(())
    }

    /// Returns the sandbox of a profile, which all its cases share.
    fn sandbox(&self, profile: &str) -> Result<u64, String> {
        let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let options = self.profiles.get(profile).ok_or("no such profile")?;
            let request = create(profile, options, &self.image);
            self.ask(request).map_err(|why| format!("no sandbox: {why}"))
        };
        sandboxes.entry(profile.to_owned()).or_insert_with(make).clone()
    }

    fn ask(&self, request: Request) -> Result<u64, String> {
        let deadline = Instant::now() + scaled(SANDBOX_LIMIT);
        let answer = self.testee.ask(request, deadline, |_, _| Err("an event".to_owned()))?;
        match answer.done {
            Done::Ok => Ok(answer.id),
            _ => Err(answer.describe()),
        }
    }

    /// Ends the sandboxes and the testee.
    fn end(self) -> Result<(), String> {
        let sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let removed: Result<Vec<u64>, String> = sandboxes
            .into_values()
            .flatten()
            .map(|sandbox| self.ask(Request::of("remove", "sandbox", sandbox)))
            .collect();
        self.testee.end(scaled(SANDBOX_LIMIT))?;
        removed.map(drop)
    }
}

fn create(name: &str, profile: &Profile, image: &Path) -> Request {
    let mut request = Request::new("create")
        .bytes("name", format!("conformance-{name}").into_bytes())
        .bytes("image", image.as_os_str().as_bytes().to_vec());
    let settings =
        [("workdir", &profile.workdir), ("shell", &profile.shell), ("user", &profile.user)];
    for (field, value) in settings {
        if let Some(value) = value {
            request = request.bytes(field, value.clone().into_bytes());
        }
    }
    env(request, &profile.env, "")
}
