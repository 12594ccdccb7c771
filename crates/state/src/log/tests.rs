//! The writer and the reader of the log, without a sandbox.

use super::*;
use crate::config::{LogConfig, SandboxConfig};
use crate::home::{Home, SandboxDir};
use crate::lock::SandboxLock;
use crate::records::{Creator, Stored};
use std::fs;
use std::io::Write;
use std::time::{Duration, SystemTime};

struct Scene {
    _scratch: tempfile::TempDir,
    dir: SandboxDir,
    config: LogConfig,
}

impl Scene {
    fn new(log: Option<LogConfig>) -> Scene {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::at(scratch.path()).unwrap();
        let dir = home.sandbox(&"a".parse().unwrap());
        fs::create_dir_all(dir.path()).unwrap();
        let config = SandboxConfig { log, ..SandboxConfig::new("a".parse().unwrap(), "/") };
        let creator = Creator::this_process().unwrap();
        dir.write_config(&Stored { config, created_ms: 0, creator }).unwrap();
        Scene { _scratch: scratch, dir, config: log.unwrap_or_default() }
    }

    fn writer(&self) -> LogWriter {
        LogWriter::open(&self.dir.log(), self.config).unwrap()
    }

    fn reader(&self, options: LogOptions) -> LogReader {
        LogReader::open(&self.dir, options).unwrap()
    }

    fn sizes(&self) -> Vec<u64> {
        let numbers = files::numbers(&self.dir.log()).unwrap();
        let path = |number| files::path_of(&self.dir.log(), number);
        numbers.into_iter().map(|number| fs::metadata(path(number)).unwrap().len()).collect()
    }
}

fn small(files: u32) -> Option<LogConfig> {
    Some(LogConfig { max_bytes: 512 * 1024, files })
}

fn all(reader: LogReader) -> Vec<LogRecord> {
    reader.map(Result::unwrap).collect()
}

fn bytes_of(records: &[LogRecord], stream: LogSource) -> Vec<u8> {
    let of_stream = records.iter().filter(|record| record.stream == stream);
    of_stream.flat_map(|record| record.data.clone()).collect()
}

#[test]
fn d6_rotation_never_exceeds_its_limit_or_splits_a_record() {
    let scene = Scene::new(small(3));
    let mut writer = scene.writer();
    let mut number = 0u32;
    for _ in 0..200 {
        let chunk: Vec<u8> = (0..3000)
            .flat_map(|_| {
                number += 1;
                number.to_le_bytes()
            })
            .collect();
        writer.data("s", LogSource::Stdout, &chunk).unwrap();
        let sizes = scene.sizes();
        assert!(sizes.len() <= 3 && sizes.iter().all(|size| *size <= 512 * 1024), "{sizes:?}");
    }
    assert_eq!(scene.sizes().len(), 3);
    let kept = bytes_of(&all(scene.reader(LogOptions::default())), LogSource::Stdout);
    let mut values = kept.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap()));
    let first = values.next().unwrap();
    assert!((2..number).contains(&first), "the oldest is gone");
    assert!(values.eq(first + 1..=number), "the rest is whole and in order");
}

#[test]
fn d6_session_and_time_select_records() {
    let scene = Scene::new(small(2));
    let mut writer = scene.writer();
    let ended = LogEvent::Exited { code: 0, signal: None, core_dumped: false, timed_out: false };
    for session in ["a", "b"] {
        writer.data(session, LogSource::Stdout, session.as_bytes()).unwrap();
        writer.event(session, &ended).unwrap();
    }
    let of = |session: &str| LogOptions { session: Some(session.into()), ..LogOptions::default() };
    let records = all(scene.reader(of("b")));
    assert_eq!((records.len(), records[0].data.as_slice()), (2, &b"b"[..]));
    assert_eq!(records[1].event, Some(ended));
    let from =
        |since| all(scene.reader(LogOptions { since: Some(since), ..LogOptions::default() }));
    let everything = all(scene.reader(LogOptions::default()));
    assert_eq!(from(everything[2].time), everything[2..]);
    assert_eq!(from(everything[3].time + Duration::from_nanos(1)), []);
    assert_eq!(from(SystemTime::UNIX_EPOCH), everything);
}

#[test]
fn d6_follower_reads_across_rotation_until_the_end() {
    let scene = Scene::new(small(1000));
    let lock = SandboxLock::open(&scene.dir.lock()).unwrap();
    assert!(lock.try_running().unwrap());
    // It starts before the directory exists.
    let reader = scene.reader(LogOptions { follow: true, ..LogOptions::default() });
    let reading = std::thread::spawn(move || {
        let mut reader = reader;
        let records: Vec<LogRecord> = reader.by_ref().map(Result::unwrap).collect();
        (records, reader.missed_files())
    });
    let mut writer = scene.writer();
    for number in 0..3000u32 {
        let stream = if number % 3 == 0 { LogSource::Stderr } else { LogSource::Stdout };
        writer.data("s", stream, &number.to_le_bytes().repeat(200)).unwrap();
    }
    assert!(scene.sizes().len() > 3);
    drop(lock);
    let (records, missed) = reading.join().unwrap();
    assert_eq!((records.len(), missed), (3000, 0));
    assert!(
        records.iter().zip(0u32..).all(|(record, n)| record.data == n.to_le_bytes().repeat(200))
    );
}

#[test]
fn d6_removed_file_is_read_to_its_end_gaps_are_counted() {
    let scene = Scene::new(small(2));
    let mut writer = scene.writer();
    writer.data("s", LogSource::Stdout, b"first").unwrap();
    let mut reader = scene.reader(LogOptions::default());
    assert_eq!(reader.next().unwrap().unwrap().data, b"first");
    writer.data("s", LogSource::Stdout, b"second").unwrap();
    while files::numbers(&scene.dir.log()).unwrap()[0] < 4 {
        writer.data("s", LogSource::Stderr, &[0xff; 60_000]).unwrap();
    }
    assert_eq!(reader.next().unwrap().unwrap().data, b"second");
    for record in reader.by_ref() {
        assert_eq!(record.unwrap().stream, LogSource::Stderr);
    }
    assert_eq!(reader.missed_files(), 2);
}

#[test]
fn d6_truncated_line_is_never_a_record() {
    let scene = Scene::new(small(2));
    scene.writer().data("s", LogSource::Stdout, b"whole").unwrap();
    let path = files::path_of(&scene.dir.log(), 1);
    let line = fs::read(&path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&line[..line.len() - 1]).unwrap();
    let read = || bytes_of(&all(scene.reader(LogOptions::default())), LogSource::Stdout);
    assert_eq!(read(), b"whole", "incomplete without a newline");
    file.set_len(line.len() as u64 + 20).unwrap();
    assert_eq!(read(), b"whole");
    scene.writer().data("s", LogSource::Stdout, b"more").unwrap();
    assert_eq!(read(), b"wholemore");
}

#[test]
fn d6_full_disk_leaves_whole_records_and_the_reason() {
    let scene = Scene::new(small(2));
    scene.writer().data("s", LogSource::Stdout, b"whole").unwrap();
    std::os::unix::fs::symlink("/dev/full", files::path_of(&scene.dir.log(), 2)).unwrap();
    let mut writer = scene.writer();
    let error = writer.data("s", LogSource::Stdout, b"more").unwrap_err();
    assert_eq!(error.os_error(), Some(28));
    writer.record_failure(&format!("{error}\n{}", "ä".repeat(600)));
    fs::remove_file(files::path_of(&scene.dir.log(), 2)).unwrap();
    let mut reader = scene.reader(LogOptions::default());
    assert_eq!(reader.next().unwrap().unwrap().data, b"whole");
    assert!(reader.next().is_none());
    let note = reader.failure().unwrap();
    assert!(note.contains("No space left") && note.lines().count() == 1, "{note}");
    drop(scene.writer());
    assert_eq!(reader.failure(), None, "a new start clears it");
}

#[test]
fn d6_sandbox_without_a_log_is_an_error() {
    let scene = Scene::new(None);
    let error = LogReader::open(&scene.dir, LogOptions::default()).unwrap_err();
    assert!(error.to_string().contains("keeps no log"), "{error}");
    let with = Scene::new(small(2));
    assert_eq!(all(with.reader(LogOptions::default())), [], "before its first start");
}
