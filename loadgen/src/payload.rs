//! Bodies of messages that say which message they are, so that whoever gets one can tell.

/// Digits at the beginning.
const NUMBER_BYTES: usize = 20;

/// A body of so many bytes, or what its number takes.
pub(crate) fn numbered(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = format!("{number:0NUMBER_BYTES$}").into_bytes();
    body.resize(bytes.max(NUMBER_BYTES), b'x');
    body
}

/// The number of a body, if all of it is as it was made.
pub(crate) fn number(body: &[u8]) -> Option<u64> {
    let (number, rest) = body.split_at_checked(NUMBER_BYTES)?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    rest.iter().all(|byte| *byte == b'x').then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_its_number_unless_it_is_another() {
        let mut body = numbered(42, 200);
        assert_eq!((body.len(), number(&body)), (200, Some(42)));
        body[100] = b'y';
        assert_eq!(number(&body), None);
        assert_eq!(number(&numbered(u64::MAX, 0)), Some(u64::MAX));
        assert_eq!(number(b"7"), None);
    }
}
