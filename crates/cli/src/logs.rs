//! `msb logs`.

use crate::args::Logs;
use crate::failure::{Failure, SIGPIPE};
use crate::stdio;
use microsandbox::{LogOptions, LogRecord, LogSource, LogStream, logs};
use std::collections::BTreeSet;
use std::fs::File;

/// How many digits the id of a session has.
const SESSION_ID: usize = 32;

/// Prints what the sessions of a sandbox have put out: bytes as they were, each on its stream, or
/// records as the log has them.
pub(crate) async fn print(args: Logs) -> Result<u8, Failure> {
    let Logs { name, session, follow, since, json } = args;
    let session = match session {
        Some(id) => Some(whole(&name, id).await?),
        None => None,
    };
    let mut stream = logs(&name, LogOptions { session, since, follow }).await?;
    let outputs = Outputs::open()?;
    let result = tokio::select! {
        result = outputs.all(&mut stream, json) => result,
        () = stdio::reader_gone() => Err(Failure::signalled(SIGPIPE)),
    };
    if let Some(warning) = stream.warning() {
        stdio::complain(warning);
    }
    result.map(|()| 0)
}

/// The one session in the log whose id begins like that. Of a whole id nothing is asked: it may be
/// that of a session that is still to come.
async fn whole(name: &str, id: String) -> Result<String, Failure> {
    if id.len() == SESSION_ID {
        return Ok(id);
    }
    let mut found = BTreeSet::new();
    let mut stream = logs(name, LogOptions::default()).await?;
    while let Some(record) = stream.next().await {
        let session = record?.session;
        if session.starts_with(&id) {
            found.insert(session);
        }
    }
    match (found.pop_first(), found.len()) {
        (Some(session), 0) => Ok(session),
        (Some(_), more) => Err(Failure::own(format!(
            "{} sessions in the log of sandbox {name} begin with {id}; give more of the id",
            more + 1
        ))),
        (None, _) => Err(Failure::own(format!(
            "no session in the log of sandbox {name} is {id}; msb logs {name} --json has their ids"
        ))),
    }
}

struct Outputs {
    stdout: File,
    stderr: File,
}

impl Outputs {
    fn open() -> Result<Self, Failure> {
        let stdout = stdio::output().map_err(|error| Failure::write("standard output", &error))?;
        let stderr = stdio::errors().map_err(|error| Failure::write("standard error", &error))?;
        Ok(Outputs { stdout, stderr })
    }

    async fn all(&self, stream: &mut LogStream, json: bool) -> Result<(), Failure> {
        while let Some(record) = stream.next().await {
            self.one(&record?, json)?;
        }
        Ok(())
    }

    fn one(&self, record: &LogRecord, json: bool) -> Result<(), Failure> {
        if json {
            let json = record.to_json();
            let line = format!("{}\n", microsandbox::escape_json(&json));
            return stdio::write_all(&self.stdout, line.as_bytes())
                .map_err(|error| Failure::write("standard output", &error));
        }
        let (file, what) = match record.stream {
            LogSource::Stdout => (&self.stdout, "standard output"),
            LogSource::Stderr => (&self.stderr, "standard error"),
            _ => return Ok(()),
        };
        stdio::write_all(file, &record.data).map_err(|error| Failure::write(what, &error))
    }
}
