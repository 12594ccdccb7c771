//! Signals to a session's processes.

use super::refuse;
use crate::cgroup::Cgroup;
use crate::sys;
use msb_wire::{Refusal, Scope, Verdict};
use std::collections::HashSet;
use std::io;

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const ESRCH: i32 = 3;

/// Sends a signal. `reaped`: the session's own process has ended and its number is nobody's.
pub(super) fn send(
    pid: i32,
    reaped: bool,
    cgroup: Option<&Cgroup>,
    signal: i32,
    scope: Scope,
) -> Verdict {
    if !sys::valid_signal(signal) {
        return refuse(Refusal::Invalid, 0, &format!("{signal} is not a signal"));
    }
    match (scope, reaped, cgroup) {
        (Scope::Everything, _, Some(cgroup)) => in_cgroup(cgroup, signal),
        (Scope::Everything, false, None) => verdict(everything(pid, signal)),
        (Scope::Group, false, _) => verdict(sys::kill_group(pid, signal)),
        (_, true, _) => gone(),
    }
}

fn gone() -> Verdict {
    refuse(Refusal::NoSuchProcess, ESRCH, "the process has ended")
}

fn verdict(result: io::Result<()>) -> Verdict {
    match result.map_err(|error| error.raw_os_error().unwrap_or(0)) {
        Ok(()) => Verdict::default(),
        Err(ESRCH) => gone(),
        Err(errno) => refuse(Refusal::System, errno, "the signal could not be sent"),
    }
}

fn in_cgroup(cgroup: &Cgroup, signal: i32) -> Verdict {
    let members = match cgroup.members() {
        Ok(members) if members.is_empty() => return gone(),
        Ok(members) => members,
        Err(error) => return verdict(Err(error)),
    };
    if signal == SIGKILL && cgroup.kill() {
        return Verdict::default();
    }
    for pid in members {
        // One that ended since it was listed needs no signal any more.
        let _ = sys::kill_process(pid, signal);
    }
    Verdict::default()
}

/// Without a cgroup: the process group, and whoever descends from the session's process or stayed
/// in its session. A process that did neither any more cannot be told from a stranger.
fn everything(pid: i32, signal: i32) -> io::Result<()> {
    // In rounds: a process that forks while it is being listed leaves a child for the next. Who is
    // to be killed is stopped first, so that nobody sees a child die and goes on or exits by
    // itself, and no orphan loses the ancestor by which it would have been found.
    let first = if signal == SIGKILL { SIGSTOP } else { signal };
    let mut seen = HashSet::new();
    for _ in 0..16 {
        let fresh: Vec<i32> = family(pid).into_iter().filter(|pid| seen.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let _ = sys::kill_process(pid, first);
        }
    }
    if signal == SIGKILL {
        for pid in seen {
            let _ = sys::kill_process(pid, signal);
        }
    }
    sys::kill_group(pid, signal)
}

/// Processes whose session is `leader`, or whose ancestor such a process is.
fn family(leader: i32) -> Vec<i32> {
    let table = process_table();
    let mut members: HashSet<i32> = table
        .iter()
        .filter(|entry| entry.session == leader || entry.pid == leader)
        .map(|entry| entry.pid)
        .collect();
    loop {
        let before = members.len();
        for entry in &table {
            if members.contains(&entry.parent) {
                members.insert(entry.pid);
            }
        }
        if members.len() == before {
            return members.into_iter().collect();
        }
    }
}

struct Entry {
    pid: i32,
    parent: i32,
    session: i32,
}

fn process_table() -> Vec<Entry> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            parse_stat(pid, &text)
        })
        .collect()
}

/// The command name stands in parentheses and may hold any character, so the fields are counted
/// from the last one (proc_pid_stat(5)).
fn parse_stat(pid: i32, text: &str) -> Option<Entry> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Entry { pid, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name_is_read() {
        let entry = parse_stat(9, "9 (a) S) b) S 7 9 5 34816 9 4194304").unwrap();
        assert_eq!((entry.pid, entry.parent, entry.session), (9, 7, 5));
        assert!(parse_stat(9, "9 (x").is_none());
    }

    #[test]
    fn an_unknown_signal_is_invalid_and_an_ended_process_is_gone() {
        for signal in [0, -1, 65, i32::MAX] {
            let verdict = send(1, true, None, signal, Scope::Group);
            assert_eq!(verdict.refusal, Some(Refusal::Invalid), "{signal}");
        }
        for scope in [Scope::Group, Scope::Everything] {
            assert_eq!(send(1, true, None, 15, scope).refusal, Some(Refusal::NoSuchProcess));
        }
    }

    #[test]
    fn the_family_of_a_process_holds_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let child_id = i32::try_from(child.id()).unwrap();
        let own_id = i32::try_from(std::process::id()).unwrap();
        assert!(family(own_id).contains(&child_id));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
