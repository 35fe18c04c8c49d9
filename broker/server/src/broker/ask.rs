//! An operator's question, from the admin thread to a shard's and back.

use std::sync::mpsc;

use antiphon_core::explain::Question;
use antiphon_sys::doorbell::Ringer;
use tokio::sync::oneshot;

use crate::{admin::ExplainFn, shard::Command};

/// Asks the shard behind these; which one it is makes no difference.
pub(super) fn explainer(commands: mpsc::Sender<Command>, ringer: Ringer) -> ExplainFn {
    Box::new(move |question: Question| {
        let (answer, answered) = oneshot::channel();
        let sent = commands.send(Command::Explain(Box::new(question), answer));
        ringer.ring();
        Box::pin(async move {
            sent.ok()?;
            // A shard that stops drops the questions that it holds.
            answered.await.ok().map(|explanation| *explanation)
        })
    })
}
