//! Promises A12 and B6 over time: nothing grows with the number of commands or with unread output.
//! The numbers are printed.
//!
//! `MSB_SOAK_EXECS` (100000) and `MSB_SOAK_PAUSE` (60, in seconds) set the duration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "its purpose is to print numbers")]

mod common;

use common::{block_on, sandbox};
use microsandbox::{ErrorKind, ExecEvent, Sandbox};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn all_processes() -> impl Iterator<Item = i32> {
    let pids = fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_of(pid: i32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).into_owned()
}

/// Returns the agent of a sandbox of this test program.
fn agent_of(name: &str) -> i32 {
    let home = PathBuf::from(std::env::var("MSB_HOME").unwrap());
    let dir = format!("{}\0", home.join("sandboxes").join(name).display());
    let is_runner = |pid: i32| command_of(pid).contains(&dir);
    let is_agent = |pid: i32| command_of(pid).contains("\0--listen-fd\0");
    let below_runner = |pid: i32| {
        let above = std::iter::successors(Some(pid), |pid| parent_of(*pid));
        above.take_while(|pid| *pid > 1).any(is_runner)
    };
    let first = |pid: &i32| {
        is_agent(*pid) && below_runner(*pid) && parent_of(*pid).is_some_and(|p| !is_agent(p))
    };
    all_processes().find(first).expect("no agent")
}

/// Resources of a process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    resident: u64,
    threads: u64,
    descriptors: usize,
    /// Children that were not reaped.
    zombies: usize,
}

impl Usage {
    fn of(pid: i32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let is_zombie = |child: &i32| {
            parent_of(*child) == Some(pid)
                && fs::read_to_string(format!("/proc/{child}/stat"))
                    .is_ok_and(|stat| stat.contains(") Z "))
        };
        Usage {
            resident: field("VmRSS:") * 1024,
            threads: field("Threads:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            zombies: all_processes().filter(is_zombie).count(),
        }
    }

    fn line(&self, who: &str, when: &str) {
        println!(
            "{who:5} {when:24} VmRSS {:7} KiB, {} threads, {} descriptors, {} zombies",
            self.resident / 1024,
            self.threads,
            self.descriptors,
            self.zombies
        );
    }
}

/// Both sides of a sandbox.
struct Watched {
    host: i32,
    agent: i32,
}

impl Watched {
    fn new(name: &str) -> Watched {
        Watched { host: i32::try_from(std::process::id()).unwrap(), agent: agent_of(name) }
    }

    fn look(&self, when: &str) -> [Usage; 2] {
        let usage = [Usage::of(self.host), Usage::of(self.agent)];
        usage[0].line("host", when);
        usage[1].line("agent", when);
        usage
    }

    /// Checks that nothing but a little memory has grown. Recently ended commands may need a
    /// moment.
    fn check(&self, before: [Usage; 2], when: &str, memory: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let settled = |now: &Usage, before: &Usage| {
            now.zombies == 0
                && now.descriptors <= before.descriptors
                && now.threads <= before.threads
        };
        while Instant::now() < deadline
            && !(settled(&Usage::of(self.host), &before[0])
                && settled(&Usage::of(self.agent), &before[1]))
        {
            thread::sleep(Duration::from_millis(50));
        }
        for (now, before) in self.look(when).iter().zip(before) {
            assert!(settled(now, &before), "{now:?}, {before:?} before");
            let grown = now.resident.saturating_sub(before.resident);
            assert!(grown <= memory, "{} KiB more", grown / 1024);
        }
    }
}

fn run(sb: &Sandbox) {
    let output = block_on(sb.exec("echo", ["hello"])).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"hello\n");
}

#[test]
#[ignore = "takes minutes: make check runs it"]
fn a12_hundred_thousand_commands_leak_nothing() {
    let execs = number("MSB_SOAK_EXECS", 100_000);
    let sb = sandbox("soak");
    let watched = Watched::new("soak");
    // Fill the list of ended sessions first.
    let warm = 2_000.min(execs / 2);
    (0..warm).for_each(|_| run(&sb));
    let before = watched.look(&format!("after {warm}"));
    let start = Instant::now();
    for done in 1..=execs {
        run(&sb);
        if done % (execs / 5).max(1) == 0 {
            watched.look(&format!("after {}", warm + done));
        }
    }
    let each = start.elapsed() / u32::try_from(execs).unwrap();
    println!("{execs} commands in {:?}, {each:?} each", start.elapsed());
    watched.check(before, "in the end", 2 * MIB);
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "takes minutes: make check runs it"]
fn a12_thousand_concurrent_commands_leak_nothing() {
    const AT_ONCE: usize = 1_000;
    let sb = sandbox("at-once");
    let watched = Watched::new("at-once");
    let round = |when: &str| {
        let start = Instant::now();
        let mut handles: Vec<_> = (0..AT_ONCE)
            .map(|_| block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap())
            .collect();
        for handle in &mut handles {
            assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
        }
        println!("{AT_ONCE} run after {:?}", start.elapsed());
        watched.look(when);
        for (number, handle) in handles.iter_mut().enumerate() {
            let sink = handle.take_stdin().unwrap();
            block_on(sink.write(format!("to {number}"))).unwrap();
        }
        for (number, handle) in handles.iter_mut().enumerate() {
            let output = block_on(handle.collect()).unwrap();
            assert_eq!(output.stdout().unwrap(), format!("to {number}"));
        }
        println!("{AT_ONCE} over after {:?}", start.elapsed());
    };
    let before = watched.look("before");
    round("all at once");
    // The allocators keep some memory, which the next round reuses.
    watched.check(before, "after the first round", 48 * MIB);
    let before = watched.look("before the second round");
    round("all at once again");
    watched.check(before, "after the second round", 4 * MIB);
    block_on(sb.kill()).unwrap();
}

fn median_round_trip(sb: &Sandbox) -> Duration {
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            run(sb);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "takes minutes: make check runs it"]
fn b6_paused_reader_costs_no_memory_and_no_output() {
    let pause = Duration::from_secs(number("MSB_SOAK_PAUSE", 60));
    let sb = sandbox("pause");
    let watched = Watched::new("pause");
    // Fill the list of ended sessions first, so that only the pause can cost memory.
    (0..1_200).for_each(|_| run(&sb));
    let free = median_round_trip(&sb);
    let mut handle = block_on(sb.exec_stream("yes", [""; 0])).unwrap();
    let mut read = 0;
    while read < 8 * MIB {
        match block_on(handle.recv()) {
            Some(ExecEvent::Stdout(data)) => read += data.len() as u64,
            Some(ExecEvent::Started { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // Let the windows fill up.
    thread::sleep(Duration::from_millis(500));
    let before = watched.look("paused");
    let start = Instant::now();
    let mut paused = Vec::new();
    while start.elapsed() < pause {
        paused.push(median_round_trip(&sb));
        thread::sleep(Duration::from_secs(5).min(pause / 4));
        watched.look(&format!("paused for {:.0?}", start.elapsed()));
    }
    watched.check(before, "before it goes on", MIB);
    let slowest = paused.iter().max().copied().unwrap_or_default();
    println!("median round trip: {free:?} before, at most {slowest:?} during the pause");
    assert!(slowest < 3 * free + Duration::from_millis(5));
    let goal = read + 64 * MIB;
    while read < goal {
        match block_on(handle.recv()) {
            Some(ExecEvent::Stdout(data)) => {
                // Whole lines of one letter: nothing was lost in between.
                let expected = |at: u64| if at.is_multiple_of(2) { b'y' } else { b'\n' };
                assert!((read..).zip(data.iter()).all(|(at, byte)| *byte == expected(at)));
                read += data.len() as u64;
            }
            other => panic!("{other:?}"),
        }
    }
    block_on(handle.kill()).unwrap();
    let status = block_on(handle.wait()).unwrap();
    assert_eq!(status.signal, Some(9));
    block_on(sb.kill()).unwrap();
    let error = block_on(sb.exec("true", [""; 0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotRunning);
}
