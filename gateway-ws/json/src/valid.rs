//! Whether a text is JSON as the protocol wants it: RFC 8259, no member twice, no lone surrogate, bounded nesting.
//!
//! One pass without recursion. The names of an object's members wait on one stack until it closes, then they are
//! compared; so a text costs its length, the sorting of its names, and eight bytes for each name of an open object.

mod scan;

use std::cmp::Ordering;

use smallvec::SmallVec;

use self::scan::Scan;
pub(super) use self::scan::unescape;

/// Deepest nesting of application data.
pub(super) const DATA_DEPTH_MAX: usize = 32;
/// Deepest nesting of a line: data inside an edit inside a page of messages.
pub(super) const LINE_DEPTH_MAX: usize = DATA_DEPTH_MAX + 5;

/// Names that are compared without taking memory.
const NAMES_INLINE: usize = 32;
/// Names that are compared in pairs; more are sorted.
const NAMES_IN_PAIRS: usize = 8;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    /// Names of the members around it, from the outside in.
    pub(super) path: Vec<String>,
    /// Whether the text is JSON for others: only then is it sure where its members end.
    pub(super) is_json: bool,
}

/// Checks that `text` is one value, with white space around it or not.
pub(super) fn check(text: &str, depth_max: usize) -> Result<(), Fault> {
    debug_assert!(depth_max <= LINE_DEPTH_MAX);
    let mut checker = Checker {
        scan: Scan { text, at: 0 },
        open: [Open::default(); LINE_DEPTH_MAX],
        depth: 0,
        names: SmallVec::new(),
    };
    match checker.run(depth_max) {
        Ok(()) => Ok(()),
        Err(wrong) => {
            let is_json = !matches!(wrong, Wrong::Syntax(_));
            let (Wrong::Syntax(what) | Wrong::Meaning(what)) = wrong;
            Err(Fault { what, path: checker.path(), is_json })
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Wrong {
    Syntax(&'static str),
    Meaning(&'static str),
}

/// A name without its quotes, as offsets into the text, which is shorter than 4 GiB.
type Name = (u32, u32);

#[derive(Debug, Clone, Copy, Default)]
struct Open {
    is_object: bool,
    /// Where its names begin on the stack of names.
    names: u32,
}

struct Checker<'a> {
    scan: Scan<'a>,
    open: [Open; LINE_DEPTH_MAX],
    depth: usize,
    names: SmallVec<[Name; NAMES_INLINE]>,
}

impl Checker<'_> {
    fn run(&mut self, depth_max: usize) -> Result<(), Wrong> {
        loop {
            self.scan.white();
            let has_opened = match self.scan.peek() {
                Some(bracket @ (b'{' | b'[')) => self.open(bracket == b'{', depth_max)?,
                _ => {
                    self.scan.scalar()?;
                    false
                }
            };
            if !has_opened && !self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Whether a value comes next: not if the container is empty and thereby closed.
    fn open(&mut self, is_object: bool, depth_max: usize) -> Result<bool, Wrong> {
        if self.depth == depth_max {
            return Err(Wrong::Meaning("is nested too deep"));
        }
        self.open[self.depth] = Open { is_object, names: self.names.len() as u32 };
        self.depth += 1;
        self.scan.at += 1;
        self.scan.white();
        let close = if is_object { b'}' } else { b']' };
        if self.scan.eat(close) {
            self.depth -= 1;
            return Ok(false);
        }
        if is_object {
            self.name()?;
        }
        Ok(true)
    }

    /// Goes on behind a value; whether another one follows.
    fn after_value(&mut self) -> Result<bool, Wrong> {
        loop {
            self.scan.white();
            let Some(open) = self.depth.checked_sub(1).map(|top| self.open[top]) else {
                return if self.scan.peek().is_none() {
                    Ok(false)
                } else {
                    Err(Wrong::Syntax("has something behind its end"))
                };
            };
            match (self.scan.peek(), open.is_object) {
                (Some(b','), true) => {
                    self.scan.at += 1;
                    self.scan.white();
                    self.name()?;
                    return Ok(true);
                }
                (Some(b','), false) => {
                    self.scan.at += 1;
                    return Ok(true);
                }
                (Some(b'}'), true) => self.close_object(open)?,
                (Some(b']'), false) => {}
                _ => return Err(Wrong::Syntax("is no JSON")),
            }
            self.scan.at += 1;
            self.depth -= 1;
        }
    }

    fn name(&mut self) -> Result<(), Wrong> {
        if self.scan.peek() != Some(b'"') {
            return Err(Wrong::Syntax("is no JSON"));
        }
        let begin = self.scan.at + 1;
        let found = self.scan.string();
        // Pushed also if it is wrong, so that the error names it.
        self.names.push((begin as u32, self.scan.at.saturating_sub(1).max(begin) as u32));
        found?;
        self.scan.white();
        if self.scan.eat(b':') { Ok(()) } else { Err(Wrong::Syntax("is no JSON")) }
    }

    fn close_object(&mut self, open: Open) -> Result<(), Wrong> {
        let text = self.scan.text;
        let names = &mut self.names[open.names as usize..];
        let repeated = if names.len() <= NAMES_IN_PAIRS {
            names
                .iter()
                .enumerate()
                .find(|(place, name)| names[..*place].iter().any(|other| same(text, *other, **name)))
                .map(|(_, name)| *name)
        } else {
            names.sort_unstable_by(|a, b| compare(text, *a, *b));
            names.windows(2).find(|pair| same(text, pair[0], pair[1])).map(|pair| pair[0])
        };
        match repeated {
            Some(name) => {
                // The path ends with the last name of each open object.
                self.names.push(name);
                Err(Wrong::Meaning("is there twice"))
            }
            None => {
                self.names.truncate(open.names as usize);
                Ok(())
            }
        }
    }

    /// The last name of every open object.
    fn path(&self) -> Vec<String> {
        let ends = self.open[..self.depth].iter().skip(1).map(|open| open.names as usize).chain([self.names.len()]);
        let levels =
            self.open[..self.depth].iter().zip(ends).filter(|(open, end)| open.is_object && *end > open.names as usize);
        levels.map(|(_, end)| unescape(slice(self.scan.text, self.names[end - 1])).collect()).collect()
    }
}

fn slice(text: &str, (begin, end): Name) -> &str {
    // Invariant: both lie beside a quote, or the string is broken and its name is not worth showing.
    text.get(begin as usize..end as usize).unwrap_or_default()
}

fn same(text: &str, a: Name, b: Name) -> bool {
    compare(text, a, b) == Ordering::Equal
}

/// By the characters that the names stand for. UTF-8 orders like its characters, so the short way gives the same order.
fn compare(text: &str, a: Name, b: Name) -> Ordering {
    let (a, b) = (slice(text, a), slice(text, b));
    match a.contains('\\') || b.contains('\\') {
        true => unescape(a).cmp(unescape(b)),
        false => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<(&'static str, String)> {
        check(text, DATA_DEPTH_MAX).err().map(|fault| (fault.what, fault.path.join(".")))
    }

    #[test]
    fn what_is_json_passes() {
        for text in [
            "0",
            "-0",
            "1e400",
            "-12.5E-3",
            "null",
            " true ",
            "\"\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[1, [2], {}]",
            r#"{"a":{"a":{"a":[]}},"b":[{"a":1},{"a":2}]}"#,
            r#""\ud83d\ude00 \u00e9 \/ \b""#,
        ] {
            assert_eq!(fault(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_does_not() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "}",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "nulll",
            "[1 2]",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "[}",
            "{]",
            "1 1",
            "'a'",
            "NaN",
        ] {
            let fault = check(text, DATA_DEPTH_MAX).expect_err(text);
            assert!(!fault.is_json, "{text}");
        }
    }

    #[test]
    fn a_member_named_twice_is_refused_however_it_is_written() {
        assert_eq!(fault(r#"{"a":1,"b":{"c":1,"\u0063":2}}"#), Some(("is there twice", "b.c".into())));
        assert_eq!(fault(r#"{"a":1,"a":2}"#), Some(("is there twice", "a".into())));
        let many: Vec<String> = (0..500).map(|n| format!("\"k{n}\":0")).collect();
        assert_eq!(fault(&format!("{{{}}}", many.join(","))), None);
        let twice = format!("{{{},\"k\\u0037\":1}}", many.join(","));
        assert_eq!(fault(&twice), Some(("is there twice", "k7".into())));
    }

    #[test]
    fn a_lone_surrogate_is_refused_in_names_and_values() {
        for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83dx""#, r#""\ud83d\u0041""#, r#""\ud83d\ud83d\ude00""#] {
            assert_eq!(fault(text), Some(("holds a lone surrogate", String::new())), "{text}");
            let fault = check(&format!("{{\"a\":[{text}]}}"), DATA_DEPTH_MAX).unwrap_err();
            assert_eq!((fault.path, fault.is_json), (vec!["a".to_owned()], true), "{text}");
            assert!(check(&format!("{{{text}:1}}"), DATA_DEPTH_MAX).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(fault(&nested(32)), None);
        assert_eq!(fault(&nested(33)).map(|fault| fault.0), Some("is nested too deep"));
        assert_eq!(fault(&"{\"a\":".repeat(200_000)).map(|fault| fault.0), Some("is nested too deep"));
    }
}
