//! An operator's question, from the admin thread to a shard's and back.

use antiphon_core::explain::Question;
use tokio::sync::oneshot;

use crate::{
    admin::ExplainFn,
    shard::{Command, Control},
};

/// Asks this shard; which one it is makes no difference.
pub(super) fn explainer(shard: Control) -> ExplainFn {
    Box::new(move |question: Question| {
        let (answer, answered) = oneshot::channel();
        let is_asked = shard.tell(Command::Explain(Box::new(question), answer));
        Box::pin(async move {
            if !is_asked {
                return None;
            }
            // A shard that stops drops the questions that it holds.
            answered.await.ok().map(|explanation| *explanation)
        })
    })
}
