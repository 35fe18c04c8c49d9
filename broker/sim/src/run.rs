//! One run: the world is set up, goes through its workload, comes to rest, and is judged.

use std::time::Duration;

use crate::{
    audit::Audit, fading, network::Quality, person::LogIndex, recorder, stage::Happening, tally::Tally, workload::Plan,
    world::World,
};

/// Longest virtual time for the beginning.
const BEGINNING_MAX: Duration = Duration::from_secs(60);
/// Longest virtual time of a workload; far more than any needs.
const WORK_MAX: Duration = Duration::from_secs(3_600);
/// Longest virtual time for coming to rest: several of the longest backoffs.
const REST_MAX: Duration = Duration::from_secs(180);

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which run.
    pub seed: u64,
    /// Digest of everything that happened.
    pub digest: u64,
    /// What was done.
    pub tally: Tally,
    /// Broken promises; empty if the run is good.
    pub violations: Vec<String>,
    /// Everything that happened as text, if that was wanted.
    pub trace: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, with_trace: bool) -> Report {
    run_plan(seed, Plan::new(seed), with_trace)
}

/// Runs one seed with other sizes than its own.
pub fn run_plan(seed: u64, plan: Plan, with_trace: bool) -> Report {
    let mut world = World::new(seed, plan, with_trace);
    if let Err(error) = go_through(&mut world) {
        world.recorder.violation(&mut world.stage, None, error);
    }
    finish(seed, world)
}

fn go_through(world: &mut World) -> Result<(), String> {
    set_up(world)?;
    world.begin_acting();
    let is_done = |world: &World| {
        let crashes = world.stage.tally.of(crate::tally::Fault::Crash);
        (world.stage.tally.operations >= world.plan.operations && crashes >= world.plan.crashes)
            || !world.recorder.violations.is_empty()
    };
    if !world.run_until_so(WORK_MAX, is_done) {
        return Err("the workload did not end".into());
    }
    if !world.recorder.violations.is_empty() {
        return Ok(());
    }
    world.heal();
    come_to_rest(world)?;
    // Whatever anybody has seen must still be there after the power was cut once more.
    world.broker.crash(&mut world.stage);
    come_to_rest(world)?;
    world.recorder.settle();
    audit(world)
}

fn set_up(world: &mut World) -> Result<(), String> {
    world.stage.at(world.stage.now, Happening::Start);
    world.run_until(world.stage.now + Duration::from_millis(1));
    for n in 0..world.plan.clients {
        let quality = Quality::any(world.workload.random());
        world.add_client(n as u32 % world.plan.users, quality);
    }
    let manager = world.add_client(recorder::manager(), Quality::PERFECT);
    for room in 0..world.plan.rooms + world.plan.fading_rooms {
        world.create_room(LogIndex(world.plan.open_logs + room));
    }
    let is_ready = |world: &World| world.recorder.people[manager.0].requests.is_empty();
    if world.run_until_so(BEGINNING_MAX, is_ready) { Ok(()) } else { Err("the rooms could not be made".into()) }
}

/// Waits until every client has got everything and has no question left.
fn come_to_rest(world: &mut World) -> Result<(), String> {
    let is_at_rest = |world: &World| {
        let recorder = &world.recorder;
        world.broker.is_up()
            && !world.broker.is_draining()
            && recorder.people.iter().all(|person| person.is_settled(&recorder.heads))
    };
    if world.run_until_so(REST_MAX, is_at_rest) {
        return Ok(());
    }
    let recorder = &world.recorder;
    let restless = recorder.people.iter().enumerate().filter(|(_, person)| !person.is_settled(&recorder.heads));
    let about = restless.map(|(n, person)| {
        let readers = person.readers.values().map(|r| (r.log.0, r.last, r.is_attached)).collect::<Vec<_>>();
        let (out, asked, requests) = (person.outgoing.len(), person.asked.len(), person.requests.len());
        format!("client {n} {:?}: {out} sends, {asked} pages, {requests} requests, {readers:?}", person.standing)
    });
    let about = about.collect::<Vec<_>>().join("; ");
    Err(format!("the world does not come to rest; heads {:?}; {about}", recorder.heads))
}

fn audit(world: &mut World) -> Result<(), String> {
    let client = world.add_client(recorder::manager(), Quality::PERFECT);
    world.audit = Some(Audit::new(client));
    for log in (0..world.recorder.logs.len()).map(LogIndex) {
        let mut events = world.read_history(log)?;
        if world.recorder.is_fading(log) {
            // Reading has made the broker take the log up, and what is too old goes.
            world.run_until(world.stage.now + fading::REMOVAL_MAX);
            events = world.read_history(log)?;
        }
        world.stage.tally.rows += events.len() as u64;
        world.recorder.history(&mut world.stage, log, &events);
    }
    Ok(())
}

fn finish(seed: u64, mut world: World) -> Report {
    let behind: u64 = world.broker.counters().iter().map(|counters| counters.behind).sum();
    world.stage.tally.add(crate::tally::Fault::Behind, behind);
    world.stage.tally.virtual_ms = world.stage.now.0 / 1_000_000;
    let (verdict, mut violations) = world.recorder.finish();
    // A run that was broken off has no history to be judged by.
    if violations.is_empty() {
        violations.extend(verdict.to_string().lines().map(str::to_owned));
    }
    let trace = world.stage.take_trace();
    Report { seed, digest: world.stage.digest.value(), tally: world.stage.tally, violations, trace }
}
