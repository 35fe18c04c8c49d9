//! Writing JSON: what a value looks like, and the commas between members.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// An object that is being written.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pub(super) out: &'a mut BytesMut,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut BytesMut) -> Self {
        out.put_u8(b'{');
        Self { out, is_empty: true }
    }

    /// Begins the member `name`, which needs no escape; its value is to be written next.
    pub(super) fn key(&mut self, name: &str) -> &mut BytesMut {
        self.out.reserve(name.len() + 4);
        if !self.is_empty {
            self.out.put_u8(b',');
        }
        self.is_empty = false;
        self.out.put_u8(b'"');
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
        self.out
    }

    /// The same for a name that may need escapes.
    pub(super) fn any_key(&mut self, name: &str) -> &mut BytesMut {
        if !self.is_empty {
            self.out.put_u8(b',');
        }
        self.is_empty = false;
        text(self.out, name);
        self.out.put_u8(b':');
        self.out
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        number(self.key(name), value);
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        text(self.key(name), value);
    }

    /// Writes the member only if it is true.
    pub(super) fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.key(name).put_slice(b"true");
        }
    }

    pub(super) fn uuid(&mut self, name: &str, value: Uuid) {
        uuid(self.key(name), value);
    }

    pub(super) fn base64(&mut self, name: &str, value: &[u8]) {
        base64(self.key(name), value);
    }

    /// Writes a member with `write`, or leaves the object as it was if that fails.
    pub(super) fn attempt<E>(&mut self, name: &str, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> bool {
        let (length, was_empty) = (self.out.len(), self.is_empty);
        let is_written = write(self.key(name)).is_ok();
        if !is_written {
            self.out.truncate(length);
            self.is_empty = was_empty;
        }
        is_written
    }

    pub(super) fn end(self) {
        self.out.put_u8(b'}');
    }
}

/// Writes a list with one entry for each of `entries`.
pub(super) fn list<T, E>(
    out: &mut BytesMut,
    entries: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut BytesMut, T) -> Result<(), E>,
) -> Result<(), E> {
    out.put_u8(b'[');
    for (place, entry) in entries.enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        write(out, entry)?;
    }
    out.put_u8(b']');
    Ok(())
}

pub(super) fn number(out: &mut BytesMut, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

pub(super) fn uuid(out: &mut BytesMut, value: Uuid) {
    let mut text = [0; 38];
    text[0] = b'"';
    value.hyphenated().encode_lower(&mut text[1..37]);
    text[37] = b'"';
    out.put_slice(&text);
}

/// base64url without padding (RFC 4648).
pub(super) fn base64(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u8(b'"');
    let begin = out.len();
    // Four characters for three bytes, rounded up, is the exact length without padding.
    out.resize(begin + (bytes.len() * 4).div_ceil(3), 0);
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[begin..]).unwrap_or_default();
    debug_assert_eq!(begin + written, out.len());
    out.put_u8(b'"');
}

/// Sixteen hexadecimal digits.
pub(super) fn hex64(out: &mut BytesMut, value: u64) {
    let mut text = [b'"'; 18];
    for (place, digit) in text[1..17].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (60 - 4 * place)) as usize & 15];
    }
    out.put_slice(&text);
}

/// A string; only what must be escaped is.
pub(super) fn text(out: &mut BytesMut, text: &str) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at(plain_len(rest));
        out.put_slice(plain);
        let Some((&byte, behind)) = behind.split_first() else { break };
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                let low = b"0123456789abcdef"[usize::from(byte & 15)];
                out.put_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
            letter => out.put_slice(&[b'\\', letter]),
        }
        rest = behind;
    }
    out.put_u8(b'"');
}

/// Bytes before the first that needs an escape. Most texts have none, so eight are looked at together.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // The high bit of each byte that is below `bound`, and at times of bytes after one.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
    let is_plain = |eight: &[u8; 8]| {
        let word = u64::from_le_bytes(*eight);
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        below(word, 0x20) | equal(b'"') | equal(b'\\') == 0
    };
    let (eights, _) = bytes.as_chunks();
    let begin = 8 * eights.iter().take_while(|eight| is_plain(eight)).count();
    let behind = bytes[begin..].iter().position(|byte| ESCAPES[usize::from(*byte)] != 0);
    behind.map_or(bytes.len(), |length| begin + length)
}

/// The letter behind the backslash for each byte that needs one; 0 for the others.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x08] = b'b';
    escapes[0x09] = b't';
    escapes[0x0a] = b'n';
    escapes[0x0c] = b'f';
    escapes[0x0d] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn only_what_must_be_escaped_is() {
        let all: String = (0..0x30).map(char::from).chain("\"\\\u{7f}\u{2028}\u{1f600}".chars()).collect();
        assert_eq!(written(|out| text(out, &all)), serde_json::to_string(&all).unwrap());
        for at in 0..24 {
            for byte in (0..0x80).map(char::from).chain(['é', '\u{ffff}']) {
                let one = format!("{}{byte}{}", "x".repeat(at), "\u{7f}~é!#[]^".repeat(2));
                assert_eq!(written(|out| text(out, &one)), serde_json::to_string(&one).unwrap());
            }
        }
        assert_eq!(written(|out| text(out, "\u{1}\u{1f}\n")), r#""\u0001\u001f\n""#);
    }

    #[test]
    fn numbers_and_hashes_have_all_their_digits() {
        for value in [0, 9, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
            assert_eq!(written(|out| hex64(out, value)), format!("\"{value:016x}\""));
        }
    }

    #[test]
    fn bytes_are_base64url_without_padding() {
        for (bytes, expected) in
            [(&b""[..], r#""""#), (b"\xfb", r#""-w""#), (b"\xff\xff", r#""__8""#), (b"abc", r#""YWJj""#)]
        {
            assert_eq!(written(|out| base64(out, bytes)), expected);
        }
    }
}
