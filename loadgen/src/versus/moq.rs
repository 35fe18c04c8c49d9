//! A fan-out by moq-relay. Its client, `bench/moq`, is a program of its own ([`super::driver`]), on the relay's own
//! libraries and with their defaults.
//!
//! The load has the shape of moq-bench's chat presets: a room is one track, a message is a group of one frame, which is a
//! QUIC stream, and every follower has a connection of its own. A relay leaves out what is older than publisher and followers
//! find worth having, which is nothing here: whatever does not come is lost, and the measurement has no result.

use std::error::Error;

use antiphon_peers::{Certificate, Keeping, Program, Server, certificate::HOST};

use super::{
    driver::{Done, Errand, FanoutSaid, Watched},
    live::Live,
};
use crate::fanout::FanoutReport;

const PROGRAM: &str = "antiphon-moq";

/// Lets the client do a fan-out in one room.
pub(super) async fn fanout(
    server: &Server,
    program: &Program,
    certificate: &Certificate,
    load: Live,
) -> Result<FanoutReport, Box<dyn Error>> {
    let Live { rooms, members, bytes, rate, seconds, warm_up, keeping, .. } = load;
    let client = program.client.as_ref().ok_or("it has no client")?;
    if rooms != 1 || keeping != Keeping::Nothing {
        return Err("it has one room, and keeps nothing".into());
    }
    let errand = Errand::new(PROGRAM, client, "fanout", seconds + warm_up).option("--address", server.address());
    let errand = errand.option("--certificate", certificate.chain().display()).option("--host", HOST);
    let errand = errand.option("--members", members).option("--rate", rate).option("--bytes", bytes);
    let errand = errand.option("--seconds", seconds).option("--warm-up", warm_up);
    let done: Done<FanoutSaid> = errand.run(Watched::Process(server.pid())).await?;
    Ok(done.report(load))
}
