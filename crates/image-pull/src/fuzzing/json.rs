//! The entry point of the fuzzer of JSON documents.

use crate::credentials;
use crate::manifest::{DockerImage, Document, parse, parse_index};
use crate::select::{select_entry, select_platform};
use msb_image::{Error, ImageConfig, Platform};
use serde_json::Value;

/// A registry, an archive or a user gives an arbitrary document of the kind that the first byte
/// names: it is read, or refused by one line of bounded length. Its layout does not matter.
pub fn image_json(data: &[u8]) {
    let Some((kind, document)) = data.split_first() else { return };
    match read(*kind, document) {
        Ok(_) => {}
        Err(error) => {
            let text = error.to_string();
            let is_line = !text.is_empty() && !text.chars().any(char::is_control);
            assert!(is_line && text.len() < 4000, "{text}");
        }
    }
    let Ok(value) = serde_json::from_slice::<Value>(document) else { return };
    let compact = read(*kind, value.to_string().as_bytes());
    let pretty = read(*kind, format!("{value:#}").as_bytes());
    assert_eq!(compact.ok(), pretty.ok());
}

/// Reads a document, and selects from one that has images.
fn read(kind: u8, document: &[u8]) -> Result<String, Error> {
    let platform = Platform::host();
    Ok(match kind {
        b'm' => {
            let document = Document::parse(document)?;
            if let Document::Index(all) = &document {
                select_platform(all, &platform)?;
            }
            format!("{document:?}")
        }
        b'i' => format!("{:?}", select_entry(parse_index(document)?, None, &platform)?),
        b'c' => format!("{:?}", ImageConfig::from_document(document)?),
        b'd' => format!("{:?}", parse::<Vec<DockerImage>>("manifest.json", document)?),
        _ => format!("{:?}", credentials::parse(document).map_err(Error::invalid)?),
    })
}
