//! Reading JSON that was checked: values by the type that is wanted, members by name.
//!
//! Invariant: a [`Value`] lies in a line that `valid::check` has passed, or, while a frame is looked for in a line that
//! it has not, whatever is read of it is used to name the request in the error only. Nothing here panics on either.

use std::{borrow::Cow, str::FromStr};

use antiphon_protocol::{ErrorCode, limits::COUNTER_MAX};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use smallvec::SmallVec;
use uuid::Uuid;

use super::{error::JsonError, valid};

/// Members of an object whose members have fixed names. No object has as many, so one more cannot all be known.
const MEMBERS_MAX: usize = 64;

type Read<T> = Result<T, JsonError>;

/// One value, without white space around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text.trim_matches([' ', '\t', '\n', '\r']))
    }

    /// Its text as it came.
    pub(super) fn raw(self) -> &'a str {
        self.0
    }

    pub(super) fn members(self) -> Read<Members<'a>> {
        let mut members = Members(SmallVec::new());
        for (name, value) in self.entries()? {
            if members.0.len() == MEMBERS_MAX {
                return Err(unknown().within(&name));
            }
            members.0.push((name, value));
        }
        Ok(members)
    }

    /// Names and values of an object.
    pub(super) fn entries(self) -> Read<impl Iterator<Item = (Cow<'a, str>, Value<'a>)>> {
        let inner = self.inside('{', '}').ok_or(JsonError::malformed("is not an object"))?;
        let mut rest = inner;
        Ok(std::iter::from_fn(move || {
            let name = next_value(&mut rest, ':')?;
            let value = next_value(&mut rest, ',')?;
            Some((name.text().ok()?, value))
        }))
    }

    pub(super) fn items(self) -> Read<impl Iterator<Item = Value<'a>>> {
        let inner = self.inside('[', ']').ok_or(JsonError::malformed("is not a list"))?;
        let mut rest = inner;
        Ok(std::iter::from_fn(move || next_value(&mut rest, ',')))
    }

    fn inside(self, open: char, close: char) -> Option<&'a str> {
        self.0.strip_prefix(open)?.strip_suffix(close)
    }

    pub(super) fn text(self) -> Read<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let raw = inner.ok_or(JsonError::malformed("is not a string"))?;
        Ok(if raw.contains('\\') { valid::unescape(raw).collect::<String>().into() } else { raw.into() })
    }

    /// A number that is written in digits and is at most `max`.
    pub(super) fn number(self, max: u64) -> Read<u64> {
        let is_whole = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        if !is_whole {
            return Err(JsonError::malformed("is not a whole number"));
        }
        self.0.parse().ok().filter(|number| *number <= max).ok_or(JsonError::malformed("is out of range"))
    }

    pub(super) fn counter(self) -> Read<u64> {
        self.number(COUNTER_MAX)
    }

    pub(super) fn u32(self) -> Read<u32> {
        // Invariant: the bound is that of the type.
        self.number(u32::MAX.into()).map(|number| number as u32)
    }

    pub(super) fn flag(self) -> Read<bool> {
        match self.0 {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(JsonError::malformed("is neither true nor false")),
        }
    }

    pub(super) fn uuid(self) -> Read<Uuid> {
        let text = self.text()?;
        let uuid = Uuid::try_parse(&text).ok().filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH);
        uuid.ok_or(JsonError::malformed("is not a UUID"))
    }

    pub(super) fn base64(self) -> Read<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(&*self.text()?).map_err(|_| JsonError::malformed("is not base64url without padding"))
    }

    pub(super) fn hex64(self) -> Read<u64> {
        let text = self.text()?;
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        number.ok_or(JsonError::malformed("is not of 16 hexadecimal digits"))
    }

    /// An id, or the name of a log.
    pub(super) fn id<T: FromStr>(self) -> Read<T> {
        self.text()?.parse().map_err(|_| JsonError::invalid("is not an id"))
    }
}

/// Takes the next value off `rest`, and `separator` behind it.
fn next_value<'a>(rest: &mut &'a str, separator: char) -> Option<Value<'a>> {
    let begin = Value::new(rest).0;
    if begin.is_empty() {
        return None;
    }
    let (value, behind) = begin.split_at(value_len(begin));
    let behind = behind.trim_start_matches([' ', '\t', '\n', '\r']);
    *rest = behind.strip_prefix(separator).unwrap_or(behind);
    (!value.is_empty()).then_some(Value(value))
}

/// Length of the value that `text` begins with.
fn value_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += string_len(&bytes[at..]) - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            // Inside a container everything is part of it; outside, a scalar ends where something else begins.
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Length of the string that `bytes` begin with, both quotes included; all of them if it does not end.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn unknown() -> JsonError {
    JsonError::new(ErrorCode::UnknownFields, "is not known")
}

/// The members of an object that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Members<'a>(SmallVec<[(Cow<'a, str>, Value<'a>); 16]>);

impl<'a> Members<'a> {
    pub(super) fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let place = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// The member, read with `read`.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl FnOnce(Value<'a>) -> Read<T>) -> Read<Option<T>> {
        self.take(name).map(read).transpose().map_err(|error| error.within(name))
    }

    /// The member, read with `read`; refused if it is not there.
    pub(super) fn required<T>(&mut self, name: &str, read: impl FnOnce(Value<'a>) -> Read<T>) -> Read<T> {
        self.optional(name, read)?.ok_or_else(|| JsonError::malformed("is missing").within(name))
    }

    pub(super) fn flag(&mut self, name: &str) -> Read<bool> {
        Ok(self.optional(name, Value::flag)?.unwrap_or_default())
    }

    /// Refuses what nobody has asked for.
    pub(super) fn finish(self) -> Read<()> {
        match self.0.first() {
            Some((name, _)) => Err(unknown().within(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_any_order_and_with_any_white_space() {
        let line = "\t{ \"b\" : [1, {\"x\":\"}]\"} ,2] ,\"\\u0061\":\"\\\"\\\\\" , \"c\":{}\r}";
        let mut members = Value::new(line).members().unwrap();
        assert_eq!(members.required("a", Value::text).unwrap(), "\"\\");
        let items: Vec<&str> = members.take("b").unwrap().items().unwrap().map(Value::raw).collect();
        assert_eq!(items, ["1", "{\"x\":\"}]\"}", "2"]);
        assert_eq!(members.take("d").map(Value::raw), None);
        assert_eq!(members.finish().unwrap_err().field, "c");
    }

    #[test]
    fn numbers_are_whole_and_within_their_range() {
        let number = |text| Value(text).counter().ok();
        assert_eq!((number("0"), number("9007199254740991")), (Some(0), Some(COUNTER_MAX)));
        for text in ["9007199254740992", "1.0", "1e3", "-1", "-0", "\"1\"", "null", "1e400", "99999999999999999999999"]
        {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!((Value("4294967295").u32().ok(), Value("4294967296").u32().ok()), (Some(u32::MAX), None));
    }

    #[test]
    fn a_uuid_has_its_hyphens() {
        let uuid = |text: &str| Value(text).uuid().ok();
        assert!(uuid("\"0192f3a1-4c00-7abc-8def-0123456789ab\"").is_some());
        assert!(uuid("\"0192F3A1-4C00-7ABC-8DEF-0123456789AB\"").is_some());
        for text in ["\"0192f3a14c007abc8def0123456789ab\"", "\"{0192f3a1-4c00-7abc-8def-0123456789ab}\"", "\"\"", "1"]
        {
            assert_eq!(uuid(text), None, "{text}");
        }
    }

    #[test]
    fn base64_has_one_form() {
        let bytes = |text: &str| Value(text).base64().ok();
        assert_eq!(bytes("\"-w\""), Some(vec![0xfb]));
        for text in ["\"-w==\"", "\"+w\"", "\"-x\"", "\"a\"", "\"Y W\""] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
