//! The broker and its command line. Without a subcommand it serves.

mod admin;
mod chaos;
mod cli;
mod command;
mod connect;
mod date;
mod failure;
mod logging;
mod running;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or_else(|| Command::Serve(Box::default())) {
        Command::Serve(serve) => command::serve::run(&serve),
        Command::CheckConfig(check) => command::check_config::run(&check),
        Command::Token(token) => command::token::run(&token),
        Command::Pub(publish) => wait(command::publish::run(publish)),
        Command::Sub(sub) => wait(command::subscribe::run(sub)),
        Command::History(history) => wait(command::history::run(history)),
        Command::Import(import) => wait(command::import::run(import)),
        Command::Explain(explain) => wait(command::explain::run(explain)),
        Command::Backup(backup) => wait(command::backup::run(backup)),
        Command::Restore(restore) => command::restore::run(&restore),
        Command::Schema(schema) => command::schema::run(&schema),
        Command::Copy(copy) => command::copy::run(&copy),
        Command::Verify(verify) => command::verify::run(&verify),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("antiphon: {failure}");
            failure.exit_code()
        }
    }
}

fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(command)
}
