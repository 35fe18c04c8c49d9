//! WebSocket close codes as the numbers that QUIC closes with: SPEC section 14.

/// The number of the broker's last error, if a close code says one.
pub(super) fn number(close_code: u16) -> Option<u32> {
    let code = u32::from(close_code);
    match code {
        4_000..4_100 => Some(code - 4_000 + 1_000),
        4_100..4_200 => Some(code - 4_100 + 2_000),
        4_200..4_240 => Some(code - 4_200 + 3_000),
        4_240..4_270 => Some(code - 4_240 + 4_000),
        4_270..4_300 => Some(code - 4_270 + 5_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{Action, ErrorCode};

    use super::*;

    /// As section 14 has it.
    fn close_code(code: ErrorCode) -> u16 {
        let within = (code as u32 % 1_000) as u16;
        within
            + match code.action() {
                Action::Retry => 4_000,
                Action::Authenticate => 4_100,
                Action::Fix => 4_200,
                Action::Forbidden => 4_240,
                Action::Stop => 4_270,
            }
    }

    #[test]
    fn every_error_is_told_by_its_close_code_and_other_codes_tell_nothing() {
        for code in ErrorCode::ALL {
            assert_eq!(number(close_code(*code)), Some(*code as u32), "{code:?}");
        }
        for other in [1_000, 1_001, 1_006, 3_999, 4_300, u16::MAX] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
