//! Payloads: raw bytes, numbers, CBOR.

use crate::error::WireError;
use crate::kind::Kind;
use crate::limits::COPY_BELOW;
use bytes::{Bytes, BytesMut};
use minicbor::{Decode, Encode};

/// Copies a short payload, so that a few bytes do not pin a whole receive buffer.
pub(crate) fn data(payload: BytesMut) -> Bytes {
    if payload.len() < COPY_BELOW { Bytes::copy_from_slice(&payload) } else { payload.freeze() }
}

/// Decodes a payload that is one number.
pub(crate) fn number(kind: Kind, payload: &[u8]) -> Result<u64, WireError> {
    let bytes = <[u8; 8]>::try_from(payload).map_err(|_| WireError::Malformed {
        kind,
        detail: format!("{} bytes instead of 8", payload.len()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Decodes a payload that is one CBOR map.
pub(crate) fn cbor<'b, T: Decode<'b, ()>>(kind: Kind, payload: &'b [u8]) -> Result<T, WireError> {
    minicbor::decode(payload)
        .map_err(|error| WireError::Malformed { kind, detail: error.to_string() })
}

/// Appends raw bytes and returns their kind.
pub(crate) fn raw(kind: Kind, bytes: &[u8], out: &mut BytesMut) -> Kind {
    out.extend_from_slice(bytes);
    kind
}

/// Writes for minicbor into a `BytesMut`, which cannot fail.
struct Sink<'a>(&'a mut BytesMut);

impl minicbor::encode::Write for Sink<'_> {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a message as CBOR and returns its kind.
pub(crate) fn put_cbor<T: Encode<()>>(kind: Kind, message: &T, out: &mut BytesMut) -> Kind {
    // Neither the sink nor any encoder of our types fails.
    let _ = minicbor::encode(message, Sink(out));
    kind
}
