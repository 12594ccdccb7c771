//! The second process: it unpacks, and it removes what it has unpacked.
//!
//! Told apart from the first because it works with other users: in an ordinary user's case in the
//! user namespace that a sandbox of the image has as well. It ends with the first one, whose end
//! closes its standard input.

use crate::layer::{Bounds, Layer, Unpacked, unpack};
use crate::tree::{Owners, Tree};
use msb_image::{Digest, Error, ErrorKind, Result};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often the second process says how far it is.
const PERIOD: Duration = Duration::from_millis(50);

/// How the second process is started: a program and its arguments.
#[derive(Debug, Clone)]
pub struct Helper {
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Unpack layers into an empty directory, and make the working directory.
    Unpack { layers: Vec<Layer>, into: PathBuf, workdir: Option<String> },
    /// Remove a tree.
    Remove { path: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// So many layers, and so many bytes of all that there are to read.
    At(u32, u64),
    Done {
        bytes: u64,
        diff_ids: Vec<Digest>,
    },
    Failed(Error),
}

impl Helper {
    /// Unpacks layers into a directory that does not exist yet.
    pub(crate) fn unpack(
        &self,
        layers: Vec<Layer>,
        into: &Path,
        workdir: Option<String>,
        each: impl FnMut(u32, u64),
    ) -> Result<Unpacked> {
        let failed = |error| Error::io("create directory", into, error);
        fs::create_dir_all(into).map_err(failed)?;
        fs::set_permissions(into, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        self.order(&Order::Unpack { layers, into: into.to_path_buf(), workdir }, each)
    }

    /// Removes a directory with all it contains, whoever it belongs to.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        match remove(path) {
            Err(error) if is_denied(&error) => {
                self.order(&Order::Remove { path: path.to_path_buf() }, |_, _| {}).map(drop)
            }
            result => result,
        }
    }

    fn order(&self, order: &Order, mut each: impl FnMut(u32, u64)) -> Result<Unpacked> {
        let died = |what: String| Error::new(ErrorKind::Died, format!("cannot unpack: {what}"));
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(died("no program for it".to_owned()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("run", Path::new(program), error))?;
        let mut line = serde_json::to_vec(order).map_err(|error| died(error.to_string()))?;
        line.push(b'\n');
        // Stays open until the end: its closing is what ends the other process.
        let mut input = child.stdin.take();
        let output = child.stdout.take();
        let sent = input.as_mut().map(|input| input.write_all(&line));
        let mut last = None;
        for line in BufReader::new(output.ok_or_else(|| died("no pipe".to_owned()))?).lines() {
            let line = line.map_err(|error| died(error.to_string()))?;
            match serde_json::from_str(&line) {
                Ok(Word::At(layers, bytes)) => each(layers, bytes),
                Ok(word) => last = Some(word),
                Err(error) => return Err(died(format!("it said {line:?}: {error}"))),
            }
        }
        drop(input);
        let ended = child.wait();
        match (last, sent) {
            (Some(Word::Done { bytes, diff_ids }), _) => Ok(Unpacked { bytes, diff_ids }),
            (Some(Word::Failed(error)), _) => Err(error),
            (_, Some(Err(error))) => Err(died(error.to_string())),
            _ => Err(died(format!("the process that unpacks ended, {ended:?}"))),
        }
    }
}

/// What an order to unpack works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The layers, which are read.
    pub layers: Vec<PathBuf>,
    /// The directory that they are unpacked into.
    pub into: PathBuf,
}

/// Finds what the second process needs for an order to unpack. `None` for another order, which
/// reads nothing of an image.
pub fn places(order: &str) -> Option<Places> {
    match serde_json::from_str(order) {
        Ok(Order::Unpack { layers, into, .. }) => {
            Some(Places { layers: layers.into_iter().map(|(path, _)| path).collect(), into })
        }
        _ => None,
    }
}

/// Is the second process: carries out an order, which was read from `input`, and ends when that
/// does. True when that succeeded. To be called in the namespaces that the files are made for.
pub fn help(order: &str, input: impl Read + Send + 'static, owners: Owners) -> bool {
    let order = serde_json::from_str(order).map_err(|error| Error::invalid(error.to_string()));
    end_with(input);
    let word = match order.and_then(|order| carry_out(order, owners)) {
        Ok(Unpacked { bytes, diff_ids }) => Word::Done { bytes, diff_ids },
        Err(error) => Word::Failed(error),
    };
    say(&word);
    matches!(word, Word::Done { .. })
}

/// Tells the first process that an order was not carried out.
pub fn refuse(why: &str) {
    say(&Word::Failed(Error::new(ErrorKind::Died, format!("cannot unpack: {why}"))));
}

/// Ends this process once nobody holds the other end of its standard input any more.
#[allow(clippy::exit, reason = "nobody is left for whom to clean up, and what is half is tidied")]
pub fn end_with(mut input: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut input, &mut std::io::sink());
        std::process::exit(1);
    });
}

fn carry_out(order: Order, owners: Owners) -> Result<Unpacked> {
    match order {
        Order::Remove { path } => {
            remove(&path)?;
            Ok(Unpacked::default())
        }
        Order::Unpack { layers, into, workdir } => {
            let mut said = Instant::now();
            let each = |layer: usize, bytes| {
                if said.elapsed() >= PERIOD {
                    said = Instant::now();
                    say(&Word::At(u32::try_from(layer).unwrap_or(u32::MAX), bytes));
                }
            };
            let unpacked = unpack(&layers, &into, owners, Bounds::of_disk(&into)?, each)?;
            if let Some(workdir) = workdir {
                Tree::open(&into, owners)?.make_directory(&workdir)?;
            }
            Ok(unpacked)
        }
    }
}

fn say(word: &Word) {
    let mut line = serde_json::to_vec(word).unwrap_or_default();
    line.push(b'\n');
    // Nobody listens when the other process is gone, and then this one goes as well.
    let _ = std::io::stdout().write_all(&line);
}

fn is_denied(error: &Error) -> bool {
    let denied = [Errno::ACCESS, Errno::PERM].map(Errno::raw_os_error);
    error.os_error.is_some_and(|code| denied.contains(&code))
}

fn remove(path: &Path) -> Result<()> {
    msb_state::remove_tree(path).map_err(|error| match error {
        msb_state::Error::Io { source, .. } => Error::io("remove", path, source),
        error => Error::new(ErrorKind::Died, error.to_string()),
    })
}
