//! Until when a certificate is valid: the one field of X.509 that an operator has to watch. Everything else of it is the
//! business of the TLS library.

/// Second of the Unix time at which the certificate (DER) ends. `None` if this is no certificate.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut fields = Reader(certificate.expect(SEQUENCE)?);
    let (tag, _) = fields.next()?;
    // Version 1 has no version; then this was the serial number.
    let before_validity = if tag == VERSION { 3 } else { 2 };
    for _ in 0..before_validity {
        fields.next()?;
    }
    let mut validity = Reader(fields.expect(SEQUENCE)?);
    validity.next()?;
    let (tag, time) = validity.next()?;
    seconds(tag, std::str::from_utf8(time).ok()?)
}

/// What is left of some DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value and its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

/// UTCTime `YYMMDDhhmmssZ` or GeneralizedTime `YYYYMMDDhhmmssZ`, as RFC 5280 has them.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[2 * at..2 * at + 2].parse::<i64>().ok();
    let (month, day) = (part(0).filter(|m| (1..=12).contains(m))?, part(1).filter(|d| (1..=31).contains(d))?);
    Some(days(year, month, day) * 86_400 + part(2)? * 3_600 + part(3)? * 60 + part(4)?)
}

/// Days from 1970-01-01, in the Gregorian calendar, for years from 0 on.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin with March here, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_kinds_are_read_and_others_are_none() {
        let cases = [
            (0x17, "700101000000Z", Some(0)),
            (0x17, "491231235959Z", Some(2_524_607_999)),
            (0x17, "500101000000Z", Some(-631_152_000)),
            (0x18, "20000229120000Z", Some(951_825_600)),
            (0x18, "99991231235959Z", Some(253_402_300_799)),
            (0x17, "20000229120000Z", None),
            (0x18, "20001329120000Z", None),
            (0x18, "20000029120000Z", None),
            (0x17, "700101000000", None),
            (0x17, "70010100000xZ", None),
            (0x02, "700101000000Z", None),
        ];
        for (tag, text, expected) in cases {
            assert_eq!(seconds(tag, text), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_says_its_end_and_any_part_of_one_nothing_or_the_same() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 7, 4);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let der = certificate.der();
        assert_eq!(not_after(der), Some(1_940_889_600));
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None, "cut at {end}");
        }
        assert_eq!(not_after(b"no certificate"), None);
    }
}
