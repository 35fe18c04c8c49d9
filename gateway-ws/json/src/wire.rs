//! The wire form of Protobuf: fields as they come, and how a field is written.

use std::iter;

use bytes::BufMut;

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

/// What a field holds, by how it is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a form that no field of this version has.
    Fixed,
}

/// Bytes that are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The fields of a message in the order in which they come; ends after the first that cannot be read.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Payload<'_>), Unreadable>> {
    let mut rest = message;
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest).ok_or(Unreadable);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Payload<'a>)> {
    let tag = varint(rest)?;
    let payload = match tag & 7 {
        VARINT => Payload::Varint(varint(rest)?),
        LENGTH => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Payload::Bytes(take(rest, length)?)
        }
        FIXED_64 => take(rest, 8).map(|_| Payload::Fixed)?,
        FIXED_32 => take(rest, 4).map(|_| Payload::Fixed)?,
        _ => return None,
    };
    Some((tag >> 3, payload))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

/// Takes a varint of at most 64 bits.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3 | VARINT);
    put_varint(out, value);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | LENGTH);
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_longer_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, 1 << 53, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&mut &out[..]), Some(value));
            for len in 0..out.len() {
                assert_eq!(varint(&mut &out[..len]), None);
            }
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), None);
        assert_eq!(varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]), None);
    }

    #[test]
    fn a_field_that_is_cut_off_ends_the_message() {
        let mut out = Vec::new();
        put_number(&mut out, 3, 300);
        put_bytes(&mut out, 16, b"abc");
        assert_eq!(fields(&out).filter(Result::is_ok).count(), 2);
        let cut: Vec<bool> = fields(&out[..out.len() - 1]).map(|field| field.is_ok()).collect();
        assert_eq!(cut, [true, false]);
        assert!(fields(&[0x0b]).all(|field| field.is_err()), "groups");
    }
}
