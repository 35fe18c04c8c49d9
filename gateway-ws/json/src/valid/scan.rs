//! The pieces of JSON that hold no others: strings, numbers and words.

use super::Wrong;

/// A place in a text.
pub(super) struct Scan<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Scan<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn white(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub(super) fn scalar(&mut self) -> Result<(), Wrong> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(Wrong::Syntax("is no JSON")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Wrong> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Wrong::Syntax("is no JSON"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Wrong> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(Wrong::Syntax("is no JSON")) }
    }

    /// Goes behind the string that begins here. A lone surrogate is told at its end.
    pub(super) fn string(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        let mut has_lone_surrogate = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => has_lone_surrogate |= self.escape()?,
                None | Some(..0x20) => return Err(Wrong::Syntax("is no JSON")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        if has_lone_surrogate { Err(Wrong::Meaning("holds a lone surrogate")) } else { Ok(()) }
    }

    /// Goes behind the escape that begins here; whether it is half of a pair whose other half is not there.
    fn escape(&mut self) -> Result<bool, Wrong> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        self.at += 2;
        match letter {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(false),
            Some(b'u') => {}
            _ => return Err(Wrong::Syntax("is no JSON")),
        }
        let first = self.unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok((0xdc00..0xe000).contains(&first));
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Ok(true);
        }
        let before = self.at;
        self.at += 2;
        let is_pair = (0xdc00..0xe000).contains(&self.unit()?);
        if !is_pair {
            self.at = before;
        }
        Ok(!is_pair)
    }

    fn unit(&mut self) -> Result<u32, Wrong> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Wrong::Syntax("is no JSON"))?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(Wrong::Syntax("is no JSON"))?;
            Ok(unit << 4 | digit)
        })
    }
}

/// The characters of a string that was checked, given without its quotes.
pub(in super::super) fn unescape(raw: &str) -> impl Iterator<Item = char> + '_ {
    let mut rest = raw.chars();
    std::iter::from_fn(move || match rest.next()? {
        '\\' => Some(match rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = unit(&mut rest);
                let is_first_of_two = (0xd800..0xdc00).contains(&first);
                let code = if is_first_of_two {
                    rest.by_ref().take(2).for_each(drop);
                    0x1_0000 + ((first - 0xd800) << 10) + (unit(&mut rest).wrapping_sub(0xdc00) & 0x3ff)
                } else {
                    first
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => other,
        }),
        other => Some(other),
    })
}

fn unit(chars: &mut std::str::Chars<'_>) -> u32 {
    chars.by_ref().take(4).fold(0, |unit, digit| unit << 4 | digit.to_digit(16).unwrap_or(0))
}
