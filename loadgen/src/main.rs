//! `antiphon-loadgen`: see `--help`. Exit code 0 = all promises kept, 1 = one was broken, 2 = the run could not be made.

use std::{error::Error, io, process::ExitCode};

use antiphon_loadgen::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match Cli::parse().run(&mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("antiphon-loadgen: {}", with_causes(&*error));
            ExitCode::from(2)
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
