//! `antiphon-bench-bare-driver`: one fan-out on bare `quinn-proto`, one on bare UDP, their CPU time as JSON.

use std::{error::Error, process::ExitCode};

use antiphon_bench::{
    bare::{self, Load},
    floor,
};
use clap::Parser;
use serde_json::json;

/// Fans frames out on a bare QUIC driver, and datagrams on bare UDP; prints what each took.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Receivers, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 500)]
    members: usize,
    /// Payload of a frame.
    #[arg(long, value_name = "B", default_value_t = 200)]
    bytes: usize,
    /// Rounds per second.
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    rate: f64,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Rounds before it.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warm_up: f64,
    /// Processor of the driver.
    #[arg(long, value_name = "N")]
    server_core: Option<usize>,
    /// Processor of the receivers.
    #[arg(long, value_name = "N")]
    core: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antiphon-bench-bare-driver: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let Args { members, bytes, rate, seconds, warm_up, server_core, core } = *args;
    let load = Load { members, bytes, rate, seconds, warm_up, server_core, core };
    let quic = bare::measure(load)?;
    let udp = floor::measure(load)?;
    let figures = json!({
        "cpu_us_per_delivery": quic.cpu_us_per_delivery,
        "datagrams_out_per_delivery": quic.datagrams_out_per_delivery,
        "datagrams_in_per_delivery": quic.datagrams_in_per_delivery,
        "udp_cpu_us_per_datagram": udp,
    });
    println!("{figures}");
    Ok(())
}
