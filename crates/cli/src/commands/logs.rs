//! `msb logs`.

use crate::args::Logs;
use crate::failure::{Failure, SIGPIPE};
use crate::output::{Outputs, Stream};
use crate::{sandbox, stdio};
use microsandbox::{LogOptions, LogRecord, LogSource, LogStream, logs};
use std::collections::BTreeSet;

/// Digits of a session id.
const SESSION_ID: usize = 32;

/// Prints the log of a sandbox: output as it was, each on its stream, or the records.
pub(crate) async fn print(args: Logs) -> Result<u8, Failure> {
    let Logs { name, session, follow, since, json } = args;
    let session = match session {
        Some(id) => Some(resolve(&name, id).await?),
        None => None,
    };
    let mut stream = logs(&name, LogOptions { session, since, follow }).await?;
    let outputs = Outputs::open()?;
    let result = tokio::select! {
        result = print_all(&mut stream, &outputs, json) => result,
        () = stdio::stdout_closed() => Err(Failure::by_signal(SIGPIPE)),
    };
    if let Some(warning) = stream.warning() {
        stdio::report(warning);
    }
    result.map(|()| 0)
}

/// Returns the id of the only session in the log with this prefix. A full id is returned unchecked:
/// its session may be yet to come.
async fn resolve(name: &str, id: String) -> Result<String, Failure> {
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
    let (place, list) = (format!("the log of sandbox {name}"), format!("msb logs {name} --json"));
    sandbox::only(found.into_iter().collect(), &id, &place, &list)
}

async fn print_all(stream: &mut LogStream, outputs: &Outputs, json: bool) -> Result<(), Failure> {
    while let Some(record) = stream.next().await {
        print_record(&record?, outputs, json)?;
    }
    Ok(())
}

fn print_record(record: &LogRecord, outputs: &Outputs, json: bool) -> Result<(), Failure> {
    if json {
        let line = format!("{}\n", microsandbox::escape_json(&record.to_json()));
        return outputs.write(Stream::Stdout, line.as_bytes());
    }
    match record.stream {
        LogSource::Stdout => outputs.write(Stream::Stdout, &record.data),
        LogSource::Stderr => outputs.write(Stream::Stderr, &record.data),
        _ => Ok(()),
    }
}
