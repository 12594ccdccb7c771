//! Mutated archives of the corpus: what GNU tar lists without complaint is listed the same, or
//! refused by name.

use super::{Case, all_cases, run, tar};
use crate::testing::set_checksum;
use msb_archive::{Kind, Member, TarReader};
use msb_image::{ErrorKind, Result};
use std::fs;
use std::path::Path;

/// Number of mutations, unless the environment has another one.
const MUTATIONS: u64 = 400;
const BLOCK: usize = 512;
/// Bytes that mean something in headers and records.
const BYTES: &[u8] = b"\0\x01 \n,./=-+0123789ASDKLMNVXgx\x7f\x80\xc0\xff";

/// A generator of numbers that follow from a seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        BYTES[self.below(BYTES.len())]
    }
}

fn has_checksum(block: &[u8]) -> bool {
    let mut right = block.to_vec();
    set_checksum(&mut right, i64::from);
    right == block
}

/// Changes some bytes of a block, mostly in the numbers and the type of a header.
fn change_block(block: &mut [u8], numbers: &mut Numbers) {
    let was_header = has_checksum(block);
    let start = if was_header && numbers.below(4) > 0 { 100 } else { 0 };
    let end = if was_header { 345 } else { 64.min(block.len()) };
    for _ in 0..=numbers.below(3) {
        let at = if numbers.below(4) == 0 && was_header {
            156
        } else {
            start + numbers.below(end - start)
        };
        block[at] = numbers.byte();
    }
    if was_header && numbers.below(8) > 0 {
        set_checksum(block, i64::from);
    }
}

fn mutate(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = bytes.chunks(BLOCK).map(<[u8]>::to_vec).collect();
    for _ in 0..=numbers.below(2) {
        let at = numbers.below(blocks.len());
        let other = numbers.below(blocks.len());
        match numbers.below(12) {
            0 => blocks.swap(at, other),
            1 => blocks.insert(at, blocks[other].clone()),
            2 if blocks.len() > 1 => drop(blocks.remove(at)),
            3 => blocks.truncate(at + 1),
            4 => blocks.insert(at, vec![0; BLOCK]),
            _ if blocks[at].len() == BLOCK => change_block(&mut blocks[at], numbers),
            _ => {}
        }
    }
    blocks.concat()
}

/// Type and mode, owner, size or device, date, time, and name of a member, as GNU tar lists them.
type Line = Vec<String>;

fn list_ours(bytes: &[u8]) -> Result<Vec<Line>> {
    let mut archive = TarReader::new(bytes);
    let mut lines = Vec::new();
    while let Some(member) = archive.next_member().map_err(crate::archive::unreadable)? {
        lines.push(line(&member));
    }
    archive.finish().map_err(crate::archive::unreadable)?;
    Ok(lines)
}

fn line(member: &Member) -> Line {
    let end = member.path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let name = escape(&member.path[..end]);
    let (letter, size, name) = match &member.kind {
        Kind::File => ('-', member.size.to_string(), name),
        Kind::Directory => ('d', String::new(), name),
        Kind::Symlink(target) => ('l', String::new(), format!("{name} -> {}", escape(target))),
        Kind::HardLink(target) => {
            ('h', String::new(), format!("{name} link to {}", escape(target)))
        }
        Kind::Fifo => ('p', String::new(), name),
        Kind::Character(major, minor) => ('c', format!("{major},{minor}"), name),
        Kind::Block(major, minor) => ('b', format!("{major},{minor}"), name),
    };
    let (date, time) = date_and_time(member.mtime);
    let owner = format!("{}/{}", member.uid, member.gid);
    // GNU tar aligns names, so that blanks before them are not told from its own.
    let name = name.trim_start_matches(' ').to_owned();
    let mut line =
        vec![format!("{letter}{}", permissions(member.mode)), owner, size, date, time, name];
    clear_early_fraction(&mut line);
    line
}

fn permissions(mode: u32) -> String {
    let letter = |bit: u32, letter: char| if mode & bit == 0 { '-' } else { letter };
    let execute =
        |bit: u32, special: u32, letter: char| match (mode & bit != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
    [
        letter(0o400, 'r'),
        letter(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        letter(0o40, 'r'),
        letter(0o20, 'w'),
        execute(0o10, 0o2000, 's'),
        letter(4, 'r'),
        letter(2, 'w'),
        execute(1, 0o1000, 't'),
    ]
    .iter()
    .collect()
}

/// Returns the date and time in UTC, in the proleptic Gregorian calendar.
fn date_and_time((seconds, nanos): (i64, u32)) -> (String, String) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in eras of 400 of them.
    let shifted = i128::from(days) + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i128::from(month <= 2);
    let fraction = match nanos {
        0 => String::new(),
        _ => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}-{month:02}-{day:02}"), clock + &fraction)
}

/// Escapes a name as GNU tar does.
fn escape(name: &[u8]) -> String {
    let escaped = name.iter().map(|byte| match byte {
        7..14 => format!("\\{}", char::from(b"abtnvfr"[usize::from(*byte - 7)])),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\{byte:03o}"),
    });
    escaped.collect()
}

/// Returns what GNU tar lists, or nothing if it complains.
fn list_theirs(bytes: &[u8], path: &Path) -> Option<Vec<Line>> {
    fs::write(path, bytes).unwrap();
    let output = run(tar().args(["--full-time", "--quoting-style=escape", "-tvf"]).arg(path));
    if !output.status.success() || !output.stderr.is_empty() {
        return None;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    // The labels of volumes are no members.
    let lines = text.lines().filter(|line| !line.starts_with('V'));
    lines.map(their_line).collect()
}

/// Parses a line. Nothing if GNU tar lists it in another way than it extracts it: then it skips the
/// content that a size of a link, FIFO or device stands for.
fn their_line(mut text: &str) -> Option<Line> {
    let mut line = Line::new();
    for _ in 0..5 {
        let (word, rest) = text.trim_start_matches(' ').split_once(' ').unwrap_or((text, ""));
        line.push(word.to_owned());
        text = rest;
    }
    if line[0].starts_with(['c', 'b']) || (line[0].starts_with(['l', 'p']) && line[2] != "0") {
        return None;
    }
    if line[0].starts_with(['d', 'l', 'h', 'p']) {
        line[2].clear();
    }
    clear_early_fraction(&mut line);
    if let Some(rest) = line[0].strip_prefix('C') {
        line[0] = format!("-{rest}");
    }
    let name = match line[0].starts_with(['l', 'h']) {
        true => text,
        false => text.trim_end_matches('/'),
    };
    line.push(name.trim_start_matches(' ').to_owned());
    Some(line)
}

/// Clears a fraction before 1970, which GNU tar extracts rightly and lists wrongly.
fn clear_early_fraction(line: &mut Line) {
    if line[3].as_str() <= "1970-01-01" && line[4].contains('.') {
        line[3].clear();
        line[4].clear();
    }
}

#[test]
fn g_mutated_archives_are_listed_as_by_gnu_tar() {
    let count = std::env::var("MSB_TEST_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let cases = all_cases();
    let is_plain = |case: &&Case| case.layers[0].get(..BLOCK).is_some_and(has_checksum);
    let sources: Vec<_> = cases.iter().filter(is_plain).collect();
    let scratch = tempfile::NamedTempFile::new().unwrap();
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for seed in 0..count {
        let mut numbers = Numbers(seed);
        let case = sources[numbers.below(sources.len())];
        let bytes = mutate(&case.layers[0], &mut numbers);
        let ours = list_ours(&bytes);
        if let Err(error) = &ours {
            let is_named =
                error.kind == ErrorKind::BadImage && error.message.starts_with("cannot ");
            assert!(is_named, "{}, seed {seed}: {error}", case.name);
        }
        match (ours, list_theirs(&bytes, scratch.path())) {
            (Ok(ours), Some(theirs)) if ours == theirs => same += 1,
            (Ok(ours), Some(theirs)) => {
                wrong.push(format!("{}, seed {seed}: {ours:?}, GNU tar: {theirs:?}", case.name));
            }
            (Err(_), Some(_)) => refused += 1,
            (_, None) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    // A fifth of them are archives still.
    assert!(same > refused && same * 8 > count, "{same} the same, {refused} refused");
}
