//! `antiphon restore`: a data directory from a backup, in a new epoch.

use antiphon_storage::embedded::restore;

use crate::{cli::Restore, failure::Failure};

pub(crate) fn run(command: &Restore) -> Result<(), Failure> {
    let format = restore(&command.from, &command.data)?;
    println!("{} is ready; its logs are in epoch {}", command.data.display(), format.epoch);
    Ok(())
}
