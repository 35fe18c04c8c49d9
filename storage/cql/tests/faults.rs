//! The store keeps the contract while a proxy forges timeouts, loses frames and delays them, and finds out who has the
//! lease when nobody tells it what became of a renewal.

mod support;

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use antiphon_cql_testing::{Cluster, Fate, Judge, Options, Proxy, Request, WriteTimeouts, write_timeouts};
use antiphon_storage::{
    Completion, Direction, EventLog, Op, Outcome, ReadRows, StoreError, Token,
    conformance::{
        self, Backend,
        model::{self, Plan},
        rows::{append, log},
    },
};
use antiphon_storage_cql::{Candidate, CqlConfig, Standing};
use support::{Open, candidate, config_at};
use uuid::Uuid;

/// Against a hang; what is waited for happens sooner or never.
const HANG: Duration = Duration::from_secs(120);

/// Bursts of writes, about eight operations each; see `./test --long cql`.
fn bursts() -> u64 {
    std::env::var("ANTIPHON_CQL_BURSTS").ok().and_then(|bursts| bursts.parse().ok()).unwrap_or(150)
}

/// One node for all of these tests, and its proxy for one test at a time.
struct Faulty {
    proxy: Proxy,
    _turn: MutexGuard<'static, ()>,
}

impl Faulty {
    fn new(judge: Judge) -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Cluster::start(Options::default().proxied(true)).unwrap_or_else(|error| panic!("{error}"));
        let proxy = CLUSTER.get_or_init(start).proxy(judge).unwrap_or_else(|error| panic!("{error}"));
        Self { proxy, _turn: turn }
    }

    fn config(&self, keyspace: &str) -> CqlConfig {
        config_at(self.proxy.contact_points().iter().map(ToString::to_string).collect(), keyspace)
    }
}

/// Requests that came to a forged end and were not sent again since, word for word.
#[derive(Default)]
struct Unrepeated {
    waiting: Mutex<HashSet<Vec<u8>>>,
    repeated: AtomicU64,
}

impl Unrepeated {
    fn watch(self: &Arc<Self>, judge: Judge) -> Judge {
        let this = Arc::clone(self);
        Arc::new(move |request: Request<'_>| {
            let mut waiting = this.waiting.lock().expect("nobody panics here");
            if waiting.remove(request.body) {
                this.repeated.fetch_add(1, Ordering::Relaxed);
            }
            let fate = judge(request);
            // A condition that was true once is not true again: a change of the lease is never repeated. And nobody waits
            // for what tidies up: a store that is stopped leaves it to its next start.
            let is_tidying = request.statement.starts_with("DELETE");
            if fate != Fate::Pass && !request.is_conditional() && !is_tidying {
                waiting.insert(request.body.to_vec());
            }
            fate
        })
    }
}

fn write_timeouts_watched(seed: u64) -> (Judge, Arc<WriteTimeouts>, Arc<Unrepeated>) {
    let (judge, counts) = write_timeouts(10, seed);
    let unrepeated = Arc::new(Unrepeated::default());
    (unrepeated.watch(judge), counts, unrepeated)
}

#[test]
fn the_store_answers_like_the_reference_while_every_tenth_write_times_out() {
    let (judge, counts, unrepeated) = write_timeouts_watched(1);
    let faulty = Faulty::new(judge);
    let config = faulty.config("antiphon_timeouts");
    let plan = Plan { seed: 11, stores: 2, bursts: bursts() / 2, stop_once_in: 25 };
    let compared = model::compare(&mut || Box::new(Open::fresh(&config)), plan);
    let (writes, done, undone) = (counts.writes(), counts.done(), counts.undone());
    let repeated = unrepeated.repeated.load(Ordering::Relaxed);
    let waiting = unrepeated.waiting.lock().expect("nobody panics here").len();
    eprintln!(
        "{compared} operations compared; of {writes} writes {done} timed out and were carried out, {undone} were not; \
         {repeated} were repeated word for word, {waiting} not"
    );
    assert!(compared >= bursts() * 6 && done > 10 && undone > 10);
    assert_eq!(waiting, 0, "what is unknown is repeated as it was");
}

#[test]
fn the_contract_holds_while_every_tenth_write_times_out() {
    let (judge, counts, _) = write_timeouts_watched(2);
    let faulty = Faulty::new(judge);
    let config = faulty.config("antiphon_contract_timeouts");
    conformance::run_all(&mut || Box::new(Open::fresh(&config)));
    assert!(counts.done() > 10 && counts.undone() > 10, "{counts:?}");
}

/// Two requests of a hundred get lost, one loses its answer, and two arrive after their sender has given them up.
fn lossy(late: Duration) -> (Judge, Arc<AtomicU64>) {
    let (lost, seen) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let judge: Judge = Arc::new(move |_| {
        // By turns, so that none of them is missed: the store asks in no pattern that could meet this one.
        let fate = match seen.fetch_add(1, Ordering::Relaxed) % 101 {
            13 | 57 => Fate::Silence { is_done: false },
            31 => Fate::Silence { is_done: true },
            44 | 83 => Fate::Late(late),
            _ => return Fate::Pass,
        };
        counted.fetch_add(1, Ordering::Relaxed);
        fate
    });
    (judge, lost)
}

#[test]
fn the_store_answers_like_the_reference_while_frames_are_lost_and_late() {
    let timeout = Duration::from_millis(400);
    let (judge, lost) = lossy(timeout * 2);
    let faulty = Faulty::new(judge);
    let mut config = faulty.config("antiphon_lossy");
    (config.request_timeout, config.give_up_after) = (timeout, Duration::from_secs(30));
    let plan = Plan { seed: 12, stores: 1, bursts: bursts() / 3, stop_once_in: 25 };
    let compared = model::compare(&mut || Box::new(Open::fresh(&config)), plan);
    let lost = lost.load(Ordering::Relaxed);
    eprintln!("{compared} operations compared; {lost} frames lost or late");
    assert!(compared >= bursts() * 2 && lost > 20);
}

/// Decides about changes of the lease, one after the other; what is not in the script passes.
#[derive(Default)]
struct Script {
    fates: Mutex<VecDeque<Fate>>,
}

impl Script {
    /// The judge for this script, and each fate when it has been dealt.
    fn judge(self: &Arc<Self>) -> (Judge, Receiver<Fate>) {
        let (this, (dealt, fates)) = (Arc::clone(self), channel());
        let judge: Judge = Arc::new(move |request: Request<'_>| {
            if !request.is_conditional() {
                return Fate::Pass;
            }
            let fate = this.fates.lock().expect("nobody panics here").pop_front().unwrap_or(Fate::Pass);
            // Once the test is over nobody listens.
            let _ = dealt.send(fate);
            fate
        });
        (judge, fates)
    }
}

fn append_one(store: &mut Open, seq: u64) -> Result<Outcome, StoreError> {
    result(store, append(1, seq..seq + 1))
}

fn result(store: &mut Open, op: Op) -> Result<Outcome, StoreError> {
    store.submit(op, Token(1));
    let mut completions = Vec::new();
    while completions.is_empty() {
        store.poll_completions(&mut completions);
        if completions.is_empty() {
            store.wait();
        }
    }
    let Completion { result, .. } = completions.remove(0);
    result
}

#[test]
fn a_renewal_of_unknown_outcome_loses_no_lease() {
    let script = Arc::new(Script::default());
    let (judge, fates) = script.judge();
    let faulty = Faulty::new(judge);
    let mut config = faulty.config("antiphon_renewals");
    config.request_timeout = Duration::from_secs(1);
    let (standing, stands) = channel();
    let mut store = Open::of(&config, Uuid::new_v4().as_u128(), candidate(), tells(standing));
    assert_eq!(stands.recv_timeout(HANG), Ok(Standing::Active { term: 1 }));
    assert_eq!(append_one(&mut store, 1), Ok(Outcome::Done));

    let unknown = [
        Fate::TimeOut { is_done: true },
        Fate::TimeOut { is_done: false },
        Fate::Silence { is_done: true },
        Fate::Silence { is_done: false },
    ];
    script.fates.lock().expect("nobody panics here").extend(unknown);
    let mut known_again = 0;
    // What is known after the last unknown one: a renewal that is refused would end the term, so the next one tells.
    while known_again < 2 {
        match fates.recv_timeout(HANG).expect("the lease is renewed") {
            Fate::Pass if script.fates.lock().expect("nobody panics here").is_empty() => known_again += 1,
            _ => {}
        }
    }
    assert_eq!(append_one(&mut store, 2), Ok(Outcome::Done));
    assert!(stands.try_recv().is_err(), "nobody has taken the logs over");
}

/// Tells a sender how this process stands.
fn tells(standing: Sender<Standing>) -> Arc<dyn Fn(Standing) + Send + Sync> {
    Arc::new(move |stand| drop(standing.send(stand)))
}

fn contains(body: &[u8], id: Uuid) -> bool {
    body.windows(16).any(|window| window == id.as_bytes())
}

#[test]
fn a_lease_that_was_lost_among_unknown_renewals_is_not_kept() {
    let who = |seat: &str| Candidate { seat: seat.into(), ..candidate() };
    let (first, second) = (who("first"), who("second"));
    // Each renewal by the first owner times out and is not made. The take-over by the second is made and times out too.
    let (one, two) = (first.holder, second.holder);
    let is_cut = Arc::new(AtomicU64::new(0));
    let (cut, taken) = (Arc::clone(&is_cut), AtomicU64::new(0));
    let faulty = Faulty::new(Arc::new(move |request: Request<'_>| {
        match (contains(request.body, one), contains(request.body, two)) {
            _ if !request.is_conditional() => Fate::Pass,
            (true, false) if cut.load(Ordering::Acquire) == 1 => Fate::TimeOut { is_done: false },
            (_, true) if taken.fetch_add(1, Ordering::Relaxed) == 0 => Fate::TimeOut { is_done: true },
            _ => Fate::Pass,
        }
    }));
    let config = faulty.config("antiphon_takeover");
    let own = Uuid::new_v4().as_u128();
    let (standing, stands) = channel();
    let mut old = Open::of(&config, own, first, tells(standing));
    assert_eq!(stands.recv_timeout(HANG), Ok(Standing::Active { term: 1 }));
    assert_eq!(append_one(&mut old, 1), Ok(Outcome::Done));
    is_cut.store(1, Ordering::Release);

    let (standing, news) = channel();
    let mut new = Open::of(&config, own, second, tells(standing));
    assert!(matches!(news.recv_timeout(HANG), Ok(Standing::StandingBy { .. })));
    // The second term is the one whose beginning nobody knew of.
    assert_eq!(news.recv_timeout(HANG), Ok(Standing::Active { term: 3 }));
    assert_eq!(append_one(&mut new, 2), Ok(Outcome::Done));
    assert_eq!(stands.recv_timeout(HANG), Ok(Standing::Overtaken));
    let refused = append_one(&mut old, 2);
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");

    let range = ReadRows { from: 1, to: 10, direction: Direction::Forward, rows_max: 10, bytes_max: usize::MAX };
    let Ok(Outcome::Rows(rows)) = result(&mut new, Op::Read { log: log(1), range }) else { panic!("expected rows") };
    assert_eq!(rows.iter().map(antiphon_protocol::Row::seq).collect::<Vec<_>>(), [1, 2]);
}
