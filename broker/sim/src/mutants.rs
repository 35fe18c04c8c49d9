//! Planted bugs: each is a branch in the code under test, off unless it is planted here.

use clap::ValueEnum;

/// A bug that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// The store acknowledges writes before they are durable.
    AckBeforeSync,
    /// The broker knows nothing of earlier sends after a restart.
    ForgetDuplicates,
    /// The client goes on one event too late when it subscribes again.
    ResumeOffByOne,
}

impl Mutant {
    /// Every planted bug.
    pub const ALL: [Self; 3] = [Self::AckBeforeSync, Self::ForgetDuplicates, Self::ResumeOffByOne];

    /// Plants this bug, and no other, for all later runs of the process.
    pub fn plant(self) {
        antiphon_storage::mutants::set_acknowledge_before_sync(self == Self::AckBeforeSync);
        antiphon_core::mutants::set_forget_duplicates(self == Self::ForgetDuplicates);
        antiphon_sdk_core::mutants::set_resume_off_by_one(self == Self::ResumeOffByOne);
    }
}
