//! A made-up corpus of two-person conversations, for machines without a real one.
//!
//! The text is meaningless; what is modelled is shape: how many messages a conversation has, how long they are, who
//! writes next and how long people wait. The figures are log-normal fits to a public corpus of casual two-person chats
//! of some 5,700 conversations and 200,000 messages: text median 36 bytes, mean 48, maximum 672; messages of a
//! conversation median 6, mean 36, maximum 2,895; pauses median 13 s, one in a hundred above 5 minutes.

use crate::{
    chance::Chance,
    corpus::{Conversation, Message},
};

/// Log-normal by median and standard deviation of the logarithm.
struct Fit {
    median: f64,
    sigma: f64,
}

const MESSAGES: Fit = Fit { median: 7.7, sigma: 1.77 };
const MESSAGES_MAX: f64 = 2_895.0;
/// Nearly all texts end at the length that the original's input field allowed.
const TEXT_BYTES: Fit = Fit { median: 40.0, sigma: 1.1 };
const TEXT_BYTES_USUAL_MAX: f64 = 175.0;
const TEXT_BYTES_MAX: f64 = 672.0;
const LONG_TEXT_SHARE: f64 = 0.000_6;
/// Short conversations in which nobody answers, whoever was expected to.
const UNANSWERED_SHARE: f64 = 0.35;
const UNANSWERED_MESSAGES_MAX: usize = 10;
/// The same person goes on writing this often.
const SAME_SENDER_SHARE: f64 = 0.478;
const PAUSE_MS_SAME: Fit = Fit { median: 10_500.0, sigma: 1.0 };
const PAUSE_MS_OTHER: Fit = Fit { median: 17_000.0, sigma: 1.1 };
/// People leave and come back.
const LONG_PAUSE_SHARE: f64 = 0.007;
const LONG_PAUSE_MS: (f64, f64) = (300_000.0, 848_000_000.0);

/// An endless iterator of conversations; equal seeds give equal ones.
#[derive(Debug, Clone)]
pub struct Synthetic(Chance);

impl Synthetic {
    /// All text and times follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Chance::new(seed))
    }

    fn message_count(&mut self) -> usize {
        self.0.log_normal(MESSAGES.median, MESSAGES.sigma).round().clamp(1.0, MESSAGES_MAX) as usize
    }

    fn text_bytes(&mut self) -> usize {
        if self.0.happens(LONG_TEXT_SHARE) {
            return self.0.log_uniform(TEXT_BYTES_USUAL_MAX + 1.0, TEXT_BYTES_MAX) as usize;
        }
        loop {
            let bytes = self.0.log_normal(TEXT_BYTES.median, TEXT_BYTES.sigma).round();
            if (1.0..=TEXT_BYTES_USUAL_MAX).contains(&bytes) {
                return bytes as usize;
            }
        }
    }

    fn pause_ms(&mut self, same_sender: bool) -> u64 {
        let pause = if self.0.happens(LONG_PAUSE_SHARE) {
            self.0.log_uniform(LONG_PAUSE_MS.0, LONG_PAUSE_MS.1)
        } else {
            let fit = if same_sender { PAUSE_MS_SAME } else { PAUSE_MS_OTHER };
            self.0.log_normal(fit.median, fit.sigma)
        };
        pause as u64
    }

    /// Words of open syllables, cut to exactly `bytes`.
    fn text(&mut self, bytes: usize) -> String {
        const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
        const VOWELS: &[u8; 5] = b"aeiou";
        let mut text = String::with_capacity(bytes + 8);
        while text.len() < bytes {
            for _ in 0..=self.0.below(3) {
                text.push(char::from(CONSONANTS[self.0.below(CONSONANTS.len())]));
                text.push(char::from(VOWELS[self.0.below(VOWELS.len())]));
            }
            text.push(' ');
        }
        text.truncate(bytes);
        text
    }
}

impl Iterator for Synthetic {
    type Item = Conversation;

    fn next(&mut self) -> Option<Conversation> {
        let id = uuid::Builder::from_random_bytes(self.0.bytes()).into_uuid();
        let mut conversation = Conversation { id, participants: 2, messages: Vec::new() };
        let (mut sender, mut at_ms) = (0, 0);
        let count = self.message_count();
        let is_unanswered = count <= UNANSWERED_MESSAGES_MAX && self.0.happens(UNANSWERED_SHARE);
        for index in 0..count {
            if index > 0 {
                let same_sender = is_unanswered || self.0.happens(SAME_SENDER_SHARE);
                sender = if same_sender { sender } else { 1 - sender };
                at_ms += self.pause_ms(same_sender);
            }
            let bytes = self.text_bytes();
            conversation.messages.push(Message { sender, at_ms, text: self.text(bytes) });
        }
        Some(conversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(sorted: &[u64], q: f64) -> u64 {
        sorted[(sorted.len() as f64 * q) as usize]
    }

    fn sorted(values: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        values
    }

    fn mean(values: &[u64]) -> f64 {
        values.iter().sum::<u64>() as f64 / values.len() as f64
    }

    #[test]
    fn equal_seeds_give_equal_corpora() {
        let corpus = |seed| Synthetic::new(seed).take(20).collect::<Vec<_>>();
        assert_eq!(corpus(3), corpus(3));
        assert_ne!(corpus(3), corpus(4));
    }

    #[test]
    fn the_shape_is_that_of_real_chats() {
        let corpus: Vec<_> = Synthetic::new(1).take(6_000).collect();
        let counts = sorted(corpus.iter().map(|c| c.messages.len() as u64));
        let texts = sorted(corpus.iter().flat_map(|c| &c.messages).map(|m| m.text.len() as u64));
        let pauses =
            sorted(corpus.iter().flat_map(|c| c.messages.windows(2)).map(|pair| pair[1].at_ms - pair[0].at_ms));
        let one_sided = corpus.iter().filter(|c| c.messages.iter().all(|m| m.sender == 0)).count();

        assert!((33.0..40.0).contains(&mean(&counts)), "{}", mean(&counts));
        assert!((6..=9).contains(&quantile(&counts, 0.5)), "{}", quantile(&counts, 0.5));
        assert!((34..=38).contains(&quantile(&texts, 0.5)), "{}", quantile(&texts, 0.5));
        assert!((46.0..50.0).contains(&mean(&texts)), "{}", mean(&texts));
        assert!(texts[texts.len() - 1] <= 672);
        assert!((12_000..=14_500).contains(&quantile(&pauses, 0.5)), "{}", quantile(&pauses, 0.5));
        assert!((250_000..=400_000).contains(&quantile(&pauses, 0.99)), "{}", quantile(&pauses, 0.99));
        assert!((0.35..0.5).contains(&(one_sided as f64 / corpus.len() as f64)), "{one_sided}");
    }
}
