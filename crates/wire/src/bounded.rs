//! Decoders of lists with a bound, for messages that an agent sends.

use crate::limits::{ARGV_SHOWN, ENDED_SESSIONS, SESSIONS};
use minicbor::Decode;
use minicbor::bytes::ByteVec;
use minicbor::decode::{Decoder, Error};

/// Decodes a displayed argument list of at most [`ARGV_SHOWN`] bytes.
pub(crate) fn argv<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<ByteVec>, Error> {
    let (mut argv, mut length) = (Vec::new(), 0_usize);
    for argument in d.array_iter::<ByteVec>()? {
        let argument = argument?;
        length = length.saturating_add(argument.len()).saturating_add(1);
        if length > ARGV_SHOWN {
            return Err(Error::message("argument list longer than its bound"));
        }
        argv.push(argument);
    }
    Ok(argv)
}

/// Decodes a list of at most as many sessions as an agent keeps.
pub(crate) fn sessions<'b, C, T: Decode<'b, ()>>(
    d: &mut Decoder<'b>,
    _: &mut C,
) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    for session in d.array_iter::<T>()? {
        if list.len() >= SESSIONS + ENDED_SESSIONS {
            return Err(Error::message("more sessions than an agent keeps"));
        }
        list.push(session?);
    }
    Ok(list)
}
