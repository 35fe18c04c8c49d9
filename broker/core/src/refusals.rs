//! How many requests were refused, by code.

use antiphon_protocol::ErrorCode;

/// A count for each code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals([u64; ErrorCode::ALL.len()]);

impl Default for Refusals {
    fn default() -> Self {
        Self([0; ErrorCode::ALL.len()])
    }
}

impl Refusals {
    pub(crate) fn add(&mut self, code: ErrorCode) {
        if let Ok(at) = ErrorCode::ALL.binary_search(&code) {
            self.0[at] += 1;
        }
    }

    /// Every code with its count, by number.
    pub fn iter(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::ALL.iter().copied().zip(self.0)
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_count_of_its_own() {
        let mut refusals = Refusals::default();
        for (times, code) in ErrorCode::ALL.iter().enumerate() {
            (0..times).for_each(|_| refusals.add(*code));
        }
        let counted: Vec<_> = refusals.iter().map(|(code, count)| (code, count as usize)).collect();
        assert_eq!(counted, ErrorCode::ALL.iter().copied().zip(0..).collect::<Vec<_>>());
        assert_eq!(refusals.total() as usize, ErrorCode::ALL.len() * (ErrorCode::ALL.len() - 1) / 2);
    }
}
