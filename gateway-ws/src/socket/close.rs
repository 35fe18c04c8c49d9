//! WebSocket close codes: SPEC section 14.

use antiphon_protocol::{Action, ErrorCode};

/// The gateway is about to stop (RFC 6455, section 7.4.1).
pub(super) const GOING_AWAY: u16 = 1_001;
/// The client has said BYE.
const NORMAL: u16 = 1_000;

/// The close code of an error.
pub(super) fn close_code(code: ErrorCode) -> u16 {
    let within = (code as u32 % 1_000) as u16;
    match (code, code.action()) {
        (ErrorCode::Closed, _) => NORMAL,
        (_, Action::Retry) => 4_000 + within,
        (_, Action::Authenticate) => 4_100 + within,
        (_, Action::Fix) => 4_200 + within,
        (_, Action::Forbidden) => 4_240 + within,
        (_, Action::Stop) => 4_270 + within,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_error_has_a_code_of_its_own_in_the_range_of_its_action() {
        let codes: BTreeSet<u16> = ErrorCode::ALL.iter().map(|code| close_code(*code)).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL.iter().filter(|code| **code != ErrorCode::Closed) {
            let range = match code.action() {
                Action::Retry => 4_000..4_100,
                Action::Authenticate => 4_100..4_200,
                Action::Fix | Action::Forbidden | Action::Stop => 4_200..4_300,
            };
            assert!(range.contains(&close_code(*code)), "{code:?}");
        }
        assert_eq!((close_code(ErrorCode::Malformed), close_code(ErrorCode::TokenExpired)), (4_201, 4_102));
    }
}
