//! Sparse files.

use super::cases::{MAGIC_AT, POSIX, between, kind};
use super::{Case, refused, same};
use crate::testing::Archive;
use tar::EntryType;

/// Two segments in a file of 4 MiB: the first at 1 MiB, the last at its end.
const MEBI: u64 = 1 << 20;
const DATA: [u8; 612] = [b'x'; 612];

fn old_sparse(segments: &[(u64, u64)], length: u64, content: &[u8]) -> Archive {
    between(|a| {
        let header = a.raw(kind(b'S'), b"s", content.len() as u64, b"", |header| {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.set_real_size(length);
            for (entry, (offset, count)) in gnu.sparse.iter_mut().zip(segments) {
                entry.set_offset(*offset);
                entry.set_length(*count);
            }
            gnu.set_is_extended(segments.len() > 4);
        });
        let rest = segments.get(4..).unwrap_or_default();
        let blocks = rest.chunks(21).enumerate().fold(header, |archive, (index, some)| {
            let mut next = tar::GnuExtSparseHeader::new();
            for (entry, (offset, count)) in next.sparse.iter_mut().zip(some) {
                entry.set_offset(*offset);
                entry.set_length(*count);
            }
            next.set_is_extended(rest.len() > 21 * (index + 1));
            archive.content(next.as_bytes())
        });
        blocks.content(content)
    })
}

fn pax_sparse(records: &[(&str, &[u8])], content: &[u8]) -> Archive {
    between(|a| {
        let size = content.len() as u64;
        let name = b"GNUSparseFile.1/s";
        a.pax(records).raw(EntryType::Regular, name, size, content, |_| {}).edit(MAGIC_AT, POSIX)
    })
}

/// Format 1.0: the map precedes the content.
fn pax_map(map: &str, content: &[u8]) -> Archive {
    let mut bytes = map.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(content);
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"4194304"),
    ];
    pax_sparse(&records, &bytes)
}

pub(super) fn sparse() -> Vec<Case> {
    let end = 4 * MEBI;
    let two = [(MEBI, 512), (end - 100, 100)];
    let many = (0..60).map(|n| (n * 65536, 512)).chain([(end, 0)]);
    let many: Vec<(u64, u64)> = many.collect();
    let many_data: Vec<u8> = (0..60_u8).flat_map(|n| [n; 512]).collect();
    let length: (&str, &[u8]) = ("GNU.sparse.size", b"4194304");
    let count: (&str, &[u8]) = ("GNU.sparse.numblocks", b"2");
    let pieces: [(&str, &[u8]); 6] = [
        length,
        count,
        ("GNU.sparse.offset", b"1048576"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4194204"),
        ("GNU.sparse.numbytes", b"100"),
    ];
    let map: (&str, &[u8]) = ("GNU.sparse.map", b"1048576,512,4194204,100");
    let name: (&str, &[u8]) = ("GNU.sparse.name", b"s");
    let version = |major: &'static [u8]| -> [(&str, &[u8]); 2] {
        [("GNU.sparse.major", major), ("GNU.sparse.minor", b"0")]
    };
    let lines = "2\n1048576\n512\n4194204\n100\n";
    let holes: String = (0..200).map(|n| format!("{}\n512\n", n * 8192)).collect();
    vec![
        same("sparse, old", old_sparse(&two, end, &DATA)),
        same("sparse, old, in many pieces", old_sparse(&many, end, &many_data)),
        same("sparse, old, a hole only", old_sparse(&[(end, 0)], end, b"")),
        same(
            "sparse, old, a hole at the end",
            old_sparse(&[(0, 512), (end, 0)], end, &DATA[..512]),
        ),
        same("sparse, old, empty", old_sparse(&[(0, 0)], 0, b"")),
        same("sparse 0.0", pax_sparse(&pieces, &DATA)),
        same("sparse 0.1", pax_sparse(&[length, count, map, name], &DATA)),
        same("sparse 1.0", pax_map(lines, &DATA)),
        same(
            "sparse 1.0, many pieces",
            pax_map(&format!("201\n{holes}4194304\n0\n"), &[b'y'; 200 * 512]),
        ),
        same("sparse 1.0, a hole only", pax_map("1\n4194304\n0\n", b"")),
        refused(
            "an overlap",
            old_sparse(&[(512, 512), (0, 100)], end, &DATA),
            "\"s\": the map of a sparse file is wrong",
        ),
        refused("beyond the end", old_sparse(&two, MEBI, &DATA), "do not fit"),
        refused("less content", old_sparse(&two, end, &DATA[..512]), "do not fit"),
        refused("odd pieces", old_sparse(&[(0, 100), (MEBI, 512)], end, &DATA), "no whole blocks"),
        refused("0.0 without a length", pax_sparse(&pieces[1..], &DATA), "is missing"),
        refused("0.0 with another count", pax_sparse(&pieces[..4], &DATA), "is missing"),
        refused(
            "0.1 with half a pair",
            pax_sparse(&[length, ("GNU.sparse.map", b"1,2,3")], &DATA),
            "is \"1,2,3\"",
        ),
        refused("format 2.0", pax_sparse(&version(b"2"), &DATA), "format 2.0 is not known"),
        refused("1.0 of letters", pax_map("2\nx\n", &DATA), "it is not made of numbers"),
        refused("1.0 cut", pax_map("9\n1\n", b""), "not made of numbers"),
        refused("1.0 without a length", pax_sparse(&version(b"1"), b"0\n"), "truncated"),
        refused("1.0 of too many pieces", pax_map("99999999\n", &DATA), "too many segments"),
    ]
}
