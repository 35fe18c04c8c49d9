//! Hands out messages when they fall due, from a thread of its own.
//!
//! The runtime's timers tick in milliseconds; a sleeping thread wakes within tens of microseconds, so that the
//! generator's own lag stays well below what is measured.

use std::{
    io,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use crate::{merge::Group, names::Names, schedule::Planned, session::Due};

/// One message, ready to be handed to its member.
#[derive(Debug)]
pub struct Handout {
    due: Duration,
    member: UnboundedSender<Due>,
    message: Due,
}

impl Handout {
    /// Prepares the schedule; `member` gives the channel of a (group, member).
    pub fn prepare(
        sends: &[Planned],
        groups: &[Group],
        names: &Names,
        member: impl Fn(u32, u32) -> UnboundedSender<Due>,
    ) -> Vec<Self> {
        let prepare = |planned: &Planned| {
            let message = &groups[planned.group as usize].messages[planned.message as usize];
            let number = names.message(planned.group, planned.message);
            let due = Due { number, body: message.text.clone() };
            Self { due: planned.due, member: member(planned.group, message.member), message: due }
        };
        sends.iter().map(prepare).collect()
    }
}

/// Starts handing out at `start`; ends after the last, or as soon as all members have gone.
pub fn spawn(handouts: Vec<Handout>, start: Instant) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("pacer".into()).spawn(move || {
        for handout in handouts {
            let wait = (start + handout.due).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if handout.member.send(handout.message).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::{
        names::MessageNumber,
        schedule::{Rate, Schedule},
        workload::WorkloadArgs,
    };

    #[test]
    fn every_message_is_handed_to_its_member_in_order() {
        let workload = WorkloadArgs { corpus: None, messages: Some(300), merge: Some(4), seed: 9 };
        let groups = workload.groups().unwrap();
        let names = Names::new("r".into(), &groups);
        let schedule = Schedule::plan(&groups, Rate::Messages(1e6), 1).unwrap();
        let (sender, mut receiver) = unbounded_channel();
        let handouts = Handout::prepare(&schedule.sends, &groups, &names, |_, _| sender.clone());
        drop(sender);
        spawn(handouts, Instant::now()).unwrap().join().unwrap();
        let mut numbers: Vec<MessageNumber> =
            std::iter::from_fn(|| receiver.try_recv().ok()).map(|due| due.number).collect();
        let expected: Vec<_> =
            schedule.sends.iter().map(|planned| names.message(planned.group, planned.message)).collect();
        assert_eq!(numbers, expected);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq((0..300).map(MessageNumber)), "each once");
    }
}
