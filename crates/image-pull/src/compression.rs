//! Decompression. The format is detected by magic bytes, and not by a declared media type.

use crate::tarball::archive_error;
use flate2::bufread::MultiGzDecoder;
use msb_image::{Error, Result};
use std::io::{BufRead, BufReader, Chain, Cursor, Read};

/// Maximum window of a zstd frame: 128 MiB, the limit of the zstd tools.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The bytes that were read for detection, and the rest.
type Peeked<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Returns the uncompressed content of a file that may be compressed.
pub(crate) fn decompress<'a, R: Read + 'a>(mut from: R) -> Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    (&mut from).take(6).read_to_end(&mut head).map_err(archive_error)?;
    let begins = |magic: &[u8]| head.starts_with(magic);
    let named = match () {
        () if begins(b"\xfd7zXZ") => Some("xz"),
        () if begins(b"BZh") => Some("bzip2"),
        () if begins(b"\x04\x22\x4d\x18") => Some("lz4"),
        () => None,
    };
    if let Some(name) = named {
        let error = Error::bad(format!("cannot read a layer: compressed with {name}"));
        return Err(error.hint("use gzip, zstd or no compression"));
    }
    let (gzip, zstd) = (begins(b"\x1f\x8b"), begins(b"\x28\xb5\x2f\xfd") || is_skippable(&head));
    let whole: Peeked<R> = BufReader::with_capacity(64 * 1024, Cursor::new(head).chain(from));
    if gzip {
        return Ok(Box::new(MultiGzDecoder::new(whole)));
    }
    if zstd {
        return zstd_decoder(whole);
    }
    Ok(Box::new(whole))
}

/// Whether it is a zstd frame without data, which some tools write first.
fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn zstd_decoder<'a>(from: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(from).map_err(archive_error)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(archive_error)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Vec<u8> {
        let mut found = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut found).unwrap();
        found
    }

    #[test]
    fn compression_is_detected_by_magic_bytes() {
        let text = b"some text".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        // Two gzip members in one file, as parallel compressors write.
        assert_eq!(read(&[gzip.clone(), gzip].concat()).len(), 2 * text.len());
        assert_eq!(read(&zstd::encode_all(&text[..], 1).unwrap()), text);
        assert_eq!(read(&text), text);
        assert_eq!(read(b""), b"");
        let error = decompress(&b"\xfd7zXZ\0...."[..]).err().unwrap();
        assert!(error.to_string().contains("xz"), "{error}");
    }
}
