//! Where the messages of a run come from: a corpus file or a made-up one, cut to size and merged into groups.

use std::path::PathBuf;

use clap::Args;

use crate::{
    corpus::{Conversation, CorpusError, CorpusReader},
    merge::{self, Group},
    schedule::Rate,
    synthetic::Synthetic,
};

/// Messages of a run without a corpus file and without `--messages`.
pub const SYNTHETIC_MESSAGES: u64 = 10_000;

/// What is sent.
#[derive(Debug, Clone, Args)]
pub struct WorkloadArgs {
    /// Conversations to replay: JSON lines, plain or gzip. Without it, conversations are made up from the seed.
    #[arg(long, env = "ANTIPHON_CORPUS", value_name = "FILE")]
    pub corpus: Option<PathBuf>,
    /// Send only the first N messages. Default: all of the corpus, or 10,000 made-up ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Merge conversations into groups of N members.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub merge: Option<u32>,
    /// Everything random follows from it.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// How fast it is sent.
#[derive(Debug, Clone, Copy, Args)]
pub struct RateArgs {
    /// Messages per second, over all conversations.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    pub rate: f64,
    /// Deliveries per second instead: a message to N members counts N times.
    #[arg(long, value_name = "R", conflicts_with = "rate")]
    pub deliveries: Option<f64>,
}

impl RateArgs {
    /// The rate that was asked for.
    pub fn rate(&self) -> Rate {
        self.deliveries.map_or(Rate::Messages(self.rate), Rate::Deliveries)
    }
}

impl WorkloadArgs {
    /// Reads or makes the conversations, cuts them to `--messages` and merges them as asked.
    pub fn groups(&self) -> Result<Vec<Group>, CorpusError> {
        let conversations = self.conversations()?;
        Ok(match self.merge {
            Some(members) => merge::merged(conversations, members),
            None => merge::separate(conversations),
        })
    }

    fn conversations(&self) -> Result<Vec<Conversation>, CorpusError> {
        match &self.corpus {
            Some(path) => first(CorpusReader::open(path)?, self.messages.unwrap_or(u64::MAX)),
            None => first(Synthetic::new(self.seed).map(Ok), self.messages.unwrap_or(SYNTHETIC_MESSAGES)),
        }
    }
}

/// The first `messages` messages; the last conversation is cut where they end.
fn first(
    conversations: impl Iterator<Item = Result<Conversation, CorpusError>>,
    messages: u64,
) -> Result<Vec<Conversation>, CorpusError> {
    let mut taken = Vec::new();
    let mut left = messages;
    for conversation in conversations {
        let mut conversation = conversation?;
        conversation.messages.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= conversation.messages.len() as u64;
        taken.push(conversation);
        if left == 0 {
            break;
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_exactly_the_messages_asked_for() {
        let workload = WorkloadArgs { corpus: None, messages: Some(777), merge: Some(8), seed: 3 };
        let groups = workload.groups().unwrap();
        assert_eq!(groups.iter().map(|group| group.messages.len()).sum::<usize>(), 777);
        assert!(groups.iter().all(|group| group.members == 8));
    }

    #[test]
    fn without_merging_every_conversation_stays_alone() {
        let workload = WorkloadArgs { corpus: None, messages: None, merge: None, seed: 3 };
        let groups = workload.groups().unwrap();
        assert!(groups.iter().all(|group| group.members == 2));
        assert_eq!(groups.iter().map(|group| group.messages.len() as u64).sum::<u64>(), SYNTHETIC_MESSAGES);
    }
}
