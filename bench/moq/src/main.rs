//! A room of moq-relay with one publisher and many followers, for `antiphon-loadgen versus`, which cannot hold this client:
//! its libraries ask for other versions.
//!
//! The room is one track; each message is a group of one frame, as in moq-bench's chat presets; every follower has a QUIC
//! connection of its own. Nobody asks the relay to leave anything out, and each follower puts what comes in its order.
//!
//! It says `ready` when nothing is under way and waits for a line; then it does the work, says `settled` when nothing is
//! under way again, and waits for a line once more; the last line is its report.

use std::{error::Error, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tokio::io::{AsyncBufReadExt, BufReader, Stdin, stdin};

mod dialer;
mod follower;
mod order;
mod report;
mod room;

use room::Room;

/// Why it cannot go on, for people.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(name = "antiphon-moq", version)]
struct Command {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// A room with one publisher and many followers.
    Fanout(Fanout),
}

/// The load.
#[derive(Debug, Args)]
struct Fanout {
    /// Address of the relay.
    #[arg(long, value_name = "ADDRESS")]
    address: SocketAddr,
    /// PEM file with the relay's certificate, or with who issued it.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The name in it.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,
    /// Followers.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    members: u32,
    /// Bytes of a message.
    #[arg(long, value_name = "B", default_value_t = 200)]
    bytes: usize,
    /// Messages per second.
    #[arg(long, value_name = "R", default_value_t = 50.0, value_parser = rate)]
    rate: f64,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Load before it.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warm_up: f64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number")?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("a rate is above 0".into()) }
}

fn main() -> ExitCode {
    let Work::Fanout(load) = Command::parse().work;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(fanout(load))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("antiphon-moq: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything came.
async fn fanout(load: Fanout) -> Result<bool, Failure> {
    let mut room = Room::open(&load).await?;
    room.send(count(load.warm_up, load.rate).max(1), false).await?;
    room.settle().await;

    let mut orders = BufReader::new(stdin());
    tell("ready", &mut orders).await?;
    let messages = count(load.seconds, load.rate).max(1);
    room.send(messages, true).await?;
    room.settle().await;
    tell("settled", &mut orders).await?;
    let report = room.end(messages).await;
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.holds())
}

fn count(seconds: f64, rate: f64) -> u64 {
    (seconds * rate).round() as u64
}

/// Says a word and waits for a line. The end of the orders is one, too: to go on.
async fn tell(word: &str, orders: &mut BufReader<Stdin>) -> Result<(), Failure> {
    println!("{word}");
    orders.read_line(&mut String::new()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_told_by_the_options_that_versus_gives() {
        let line = "antiphon-moq fanout --address 127.0.0.1:7 --certificate a.pem --members 3 --rate 2.5 --warm-up 0";
        let Work::Fanout(load) = Command::try_parse_from(line.split(' ')).unwrap().work;
        assert_eq!((load.members, load.bytes, count(load.seconds, load.rate)), (3, 200, 25));
        for wrong in ["--rate 0", "--rate NaN", "--members 0"] {
            assert!(Command::try_parse_from(format!("{line} {wrong}").split(' ')).is_err(), "{wrong}");
        }
    }
}
