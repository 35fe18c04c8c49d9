//! A moment on the command line.

use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What was given is no moment.
#[derive(Debug, Error)]
#[error("expected a time as 2026-05-01T12:00:00Z (RFC 3339), or Unix milliseconds: {0}")]
pub(crate) struct NoDate(String);

/// Unix milliseconds, written in digits or as RFC 3339 has it. A moment before 1970 counts as its first millisecond: no
/// event is older.
pub(crate) fn parse(text: &str) -> Result<u64, NoDate> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(at_least_one).map_err(|error: std::num::ParseIntError| NoDate(error.to_string()));
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| NoDate(error.to_string()))?;
    // Times of events are whole milliseconds, so a fraction of one is passed over.
    let ms = moment.unix_timestamp_nanos().div_euclid(1_000_000);
    Ok(at_least_one(u64::try_from(ms).unwrap_or_default()))
}

/// A FETCH takes 0 for no date.
fn at_least_one(ms: u64) -> u64 {
    ms.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_digits_or_rfc_3339() {
        for (text, ms) in [
            ("1700000000000", 1_700_000_000_000),
            ("0", 1),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14t22:13:20.123z", 1_700_000_000_123),
            ("2023-11-14T22:13:20.1239Z", 1_700_000_000_123),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000_000),
            ("1969-12-31T23:59:59Z", 1),
            ("1970-01-01T00:00:00Z", 1),
        ] {
            assert_eq!(parse(text).unwrap(), ms, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_says_what_is_expected() {
        for text in ["", "yesterday", "2023-11-14", "2023-13-14T22:13:20Z", "-5", "99999999999999999999999"] {
            assert!(parse(text).unwrap_err().to_string().contains("RFC 3339"), "{text}");
        }
    }
}
