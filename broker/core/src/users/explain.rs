//! Which sessions a question about a user has to visit, for [`crate::explain`].

use antiphon_protocol::LogName;

use super::{User, Users};
use crate::{effects::Effects, explain::Explaining};

impl Users {
    /// Names the user's connected sessions and sends the question to the first.
    pub(crate) fn explain(&self, fx: &mut Effects, mut explaining: Explaining) {
        let question = &explaining.explanation.question;
        let inbox = LogName::Inbox(question.user.clone()).key(&question.tenant);
        let seats = self.users.get(&inbox).into_iter().flat_map(User::seats);
        // The last one is visited first.
        explaining.seats = seats.rev().map(|seat| (seat.shard, seat.connection)).collect();
        explaining.travel_on(fx);
    }
}
