//! Decompression. The format is detected by magic bytes, and not by a declared media type.

use crate::archive::archive_error;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use msb_image::{Error, Result};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// Maximum window of a zstd frame: 128 MiB, the limit of the zstd tools.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Maximum memory of xz in KiB, which its dictionary takes: 128 MiB, and 64 MiB for `xz -9`.
const XZ_MEMORY: u32 = 128 * 1024 + 1024;

/// The bytes that were read for detection, and the rest.
type Peeked<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Returns the uncompressed content of a file that may be compressed.
pub(crate) fn decompress<'a, R: Read + 'a>(mut from: R) -> Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    (&mut from).take(6).read_to_end(&mut head).map_err(archive_error)?;
    let begins = |magic: &[u8]| head.starts_with(magic);
    let (gzip, zstd) = (begins(b"\x1f\x8b"), begins(b"\x28\xb5\x2f\xfd") || is_skippable(&head));
    let (xz, bzip2) = (begins(b"\xfd7zXZ\0"), is_bzip2(&head));
    if begins(b"\x04\x22\x4d\x18") {
        let error = Error::bad("cannot read a layer: compressed with lz4");
        return Err(error.hint("use gzip, zstd, xz, bzip2 or no compression"));
    }
    let whole: Peeked<R> = BufReader::with_capacity(64 * 1024, Cursor::new(head).chain(from));
    let from: Box<dyn Read + 'a> = match () {
        () if gzip => Box::new(MultiGzDecoder::new(whole)),
        () if zstd => zstd_decoder(whole)?,
        () if bzip2 => Box::new(MultiBzDecoder::new(whole)),
        () if xz => Box::new(XzReader::new_mem_limit(whole, true, XZ_MEMORY)),
        () => return Ok(Box::new(whole)),
    };
    Ok(Box::new(Decoder { from, has_failed: false }))
}

/// Whether it is a zstd frame without data, which some tools write first.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Whether it begins as bzip2 does: the level, and a block's or the stream's own magic bytes. A tar
/// may begin with a name such as `BZh`.
fn is_bzip2(head: &[u8]) -> bool {
    matches!(
        head,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72]
    )
}

fn zstd_decoder<'a>(from: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(from).map_err(archive_error)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(archive_error)?;
    Ok(Box::new(decoder))
}

/// A decoder that fails again after it has failed: those of the libraries may panic then.
struct Decoder<R> {
    from: R,
    has_failed: bool,
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_failed {
            return Err(io::Error::other("it could not be decompressed before"));
        }
        self.from.read(buffer).map_err(|error| {
            self.has_failed = error.kind() != io::ErrorKind::Interrupted;
            match error.kind() {
                // Only the decoder of xz has a limit.
                io::ErrorKind::OutOfMemory => {
                    io::Error::other("its xz dictionary is larger than 128 MiB")
                }
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bzip2, gzip, xz, xz_with, zstd};

    fn try_read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut found).map(|_| found)
    }

    fn read(bytes: &[u8]) -> Vec<u8> {
        try_read(bytes).unwrap()
    }

    #[test]
    fn compression_is_detected_by_magic_bytes() {
        let text = b"some text".repeat(1000);
        for pack in [gzip, bzip2, zstd, xz] {
            let packed = pack(&text);
            assert!(packed.len() < text.len());
            assert_eq!(read(&packed), text);
            // Two streams in one file, as parallel compressors write.
            assert_eq!(read(&[packed.clone(), packed].concat()), text.repeat(2));
            assert_eq!(read(&pack(b"")), b"");
        }
        assert_eq!(read(&text), text);
        assert_eq!(read(b""), b"");
        assert_eq!(read(b"BZhello"), b"BZhello", "a name in a tar");
        let error = decompress(&b"\x04\x22\x4d\x18...."[..]).err().unwrap();
        assert!(error.to_string().contains("lz4"), "{error}");
    }

    #[test]
    fn broken_or_followed_streams_are_refused() {
        let text = b"some text".repeat(1000);
        for pack in [gzip, bzip2, zstd, xz] {
            let packed = pack(&text);
            for end in 7..packed.len() {
                assert!(try_read(&packed[..end]).is_err(), "cut at {end} of {}", packed.len());
            }
            assert!(try_read(&[&packed[..], b"garbage garbage"].concat()).is_err());
            let mut changed = packed.clone();
            changed[packed.len() / 2] ^= 1;
            let mut from = decompress(changed.as_slice()).unwrap();
            assert!(from.read_to_end(&mut Vec::new()).is_err(), "a changed byte");
            assert!(from.read(&mut [0; 9]).is_err(), "again");
        }
    }

    #[test]
    fn frames_without_data_are_skipped() {
        let empty = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
        let whole = [&empty[..], &zstd(b"one"), empty, &zstd(b"two"), empty].concat();
        assert_eq!(read(&whole), b"onetwo");
        // Padding between and after streams of xz.
        assert_eq!(read(&[&xz(b"one")[..], &[0; 8], &xz(b"two"), &[0; 4]].concat()), b"onetwo");
    }

    #[test]
    fn j4_memory_of_decompression_is_bounded() {
        assert_eq!(read(&xz_with(b"text", 128 << 20)), b"text");
        let error = try_read(&xz_with(b"text", 192 << 20)).unwrap_err();
        assert_eq!(error.to_string(), "its xz dictionary is larger than 128 MiB");
    }
}
