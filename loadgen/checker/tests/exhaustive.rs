//! Compares the checker with an exhaustive search on small random histories, correct and damaged.
//!
//! The search knows nothing of the checker's rules. It plays a run event by event against every log that a broker could
//! have built meanwhile, and accepts if one of them explains all answers, deliveries, heads and the final history.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_checker::{
    At, Attempt, Author, BodyHash, Checker, Instance, Log, OpId, Outcome, Row, Subscriber, User, Verdict,
};

const LOG: Log = Log(0);
const READERS: u32 = 2;
/// The one row that the broker itself makes.
const BROKER_ROW: (Option<Author>, BodyHash) = (None, BodyHash(99));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Invoke { op: usize, attempt: Attempt },
    End { op: usize, outcome: Outcome },
    Deliver { reader: u32, row: Row },
    Reset { reader: u32, next: u64 },
    HeadAsked { read: usize },
    HeadAnswered { read: usize, head: u64 },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct History {
    events: Vec<Event>,
    rows: Vec<Row>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// An honest broker and its clients, driven by chance.
struct Honest {
    random: Random,
    history: History,
    /// Attempts with their outcome once they have one.
    attempts: Vec<(Attempt, Option<Outcome>)>,
    /// Messages that reached the broker and wait, in the order of their arrival.
    waiting: Vec<(Author, BodyHash)>,
    next: [u64; READERS as usize],
    open_reads: Vec<(usize, usize)>,
    reads: usize,
}

impl Honest {
    fn run(seed: u64) -> History {
        let mut run = Self {
            random: Random(seed),
            history: History::default(),
            attempts: Vec::new(),
            waiting: Vec::new(),
            next: [1; READERS as usize],
            open_reads: Vec::new(),
            reads: 0,
        };
        for _ in 0..run.random.below(30) {
            run.step();
        }
        for reader in 0..READERS {
            while run.deliver(reader) {}
        }
        run.history
    }

    fn step(&mut self) {
        match self.random.below(9) {
            0 | 1 => self.invoke(),
            2 | 3 => self.append(),
            4 | 5 => self.end(),
            6 => {
                let reader = self.random.below(READERS as usize) as u32;
                self.deliver(reader);
            }
            7 => self.read_head(),
            _ => self.rare(),
        }
    }

    fn invoke(&mut self) {
        if self.attempts.len() >= 5 {
            return;
        }
        let user = self.random.below(2) as u32;
        let unknown = self.attempts.iter().find(|(_, outcome)| *outcome == Some(Outcome::Unknown));
        let attempt = match unknown {
            Some(&(attempt, _)) if self.random.below(2) == 0 => {
                Attempt { instance: Instance(attempt.instance.0 + 2 * self.random.below(2) as u32), ..attempt }
            }
            _ => {
                let message = self.attempts.len() as u128;
                let author = Author { user: User(user), message };
                Attempt { log: LOG, author, instance: Instance(user), hash: BodyHash(message as u64) }
            }
        };
        self.history.events.push(Event::Invoke { op: self.attempts.len(), attempt });
        self.attempts.push((attempt, None));
        self.waiting.push((attempt.author, attempt.hash));
    }

    /// Stores a waiting message unless it is there; an instance's messages wait in its order.
    fn append(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let chosen = self.random.below(self.waiting.len());
        let user = self.waiting[chosen].0.user;
        let first = self.waiting.iter().position(|(author, _)| author.user == user).unwrap_or(chosen);
        let (author, hash) = self.waiting.remove(first);
        if self.position(author).is_none() {
            self.store((Some(author), hash));
        }
    }

    fn store(&mut self, (author, hash): (Option<Author>, BodyHash)) {
        let seq = self.history.rows.len() as u64 + 1;
        self.history.rows.push(Row { seq, author, hash });
    }

    fn position(&self, author: Author) -> Option<u64> {
        self.history.rows.iter().find(|row| row.author == Some(author)).map(|row| row.seq)
    }

    fn end(&mut self) {
        let open: Vec<usize> = (0..self.attempts.len()).filter(|&op| self.attempts[op].1.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let op = open[self.random.below(open.len())];
        let author = self.attempts[op].0.author;
        let tries = self.attempts.iter().filter(|(attempt, _)| attempt.author == author).count();
        let outcome = match self.position(author) {
            Some(seq) if self.random.below(4) > 0 => Outcome::Ok { seq },
            None if tries == 1 && self.random.below(3) == 0 => {
                self.waiting.retain(|&(waiting, _)| waiting != author);
                Outcome::Refused
            }
            _ => Outcome::Unknown,
        };
        self.attempts[op].1 = Some(outcome);
        self.history.events.push(Event::End { op, outcome });
    }

    fn deliver(&mut self, reader: u32) -> bool {
        let next = &mut self.next[reader as usize];
        let Some(&row) = self.history.rows.get(*next as usize - 1) else { return false };
        *next += 1;
        self.history.events.push(Event::Deliver { reader, row });
        true
    }

    /// Begins to read the head, or answers with any head that the log had meanwhile.
    fn read_head(&mut self) {
        let length = self.history.rows.len();
        if self.open_reads.is_empty() || self.random.below(2) == 0 {
            self.history.events.push(Event::HeadAsked { read: self.reads });
            self.open_reads.push((self.reads, length));
            self.reads += 1;
        } else {
            let (read, at_start) = self.open_reads.swap_remove(self.random.below(self.open_reads.len()));
            let head = (at_start + self.random.below(length - at_start + 1)) as u64;
            self.history.events.push(Event::HeadAnswered { read, head });
        }
    }

    fn rare(&mut self) {
        if self.random.below(2) == 0 && self.history.rows.iter().all(|row| row.author.is_some()) {
            self.store(BROKER_ROW);
        } else if self.history.rows.len() > 2 {
            let reader = self.random.below(READERS as usize) as u32;
            let next = self.history.rows.len() as u64;
            self.next[reader as usize] = next;
            self.history.events.push(Event::Reset { reader, next });
        }
    }
}

/// Changes one thing, anywhere. Not every change is a fault.
fn damage(history: &mut History, random: &mut Random) {
    let (events, rows) = (history.events.len(), history.rows.len());
    if events < 2 || rows < 2 {
        return;
    }
    match random.below(8) {
        0 | 1 => history.events.swap(random.below(events), random.below(events)),
        2 => drop(history.events.remove(random.below(events))),
        3 => {
            let copy = history.events[random.below(events)];
            if matches!(copy, Event::Deliver { .. }) {
                history.events.insert(random.below(events), copy);
            }
        }
        4 => match &mut history.events[random.below(events)] {
            Event::End { outcome: Outcome::Ok { seq }, .. } => *seq = 1 + random.below(rows) as u64,
            Event::End { outcome, .. } => *outcome = Outcome::Refused,
            Event::Deliver { row, .. } => row.hash = BodyHash(random.below(4) as u64),
            Event::HeadAnswered { head, .. } => *head = random.below(rows + 2) as u64,
            Event::Reset { next, .. } => *next = 1 + random.below(rows) as u64,
            _ => {}
        },
        5 => drop(history.rows.remove(random.below(rows))),
        6 => {
            let (a, b) = (random.below(rows), random.below(rows));
            (history.rows[a].seq, history.rows[b].seq) = (history.rows[b].seq, history.rows[a].seq);
        }
        // What the broker itself writes is its own affair, so a row never becomes the broker's.
        _ if history.rows[0].author.is_some() => history.rows[random.below(rows)].author = history.rows[0].author,
        _ => {}
    }
}

/// Every answer follows its question; otherwise it is no recording at all.
fn is_well_formed(history: &History) -> bool {
    let (mut invoked, mut ended, mut asked, mut answered) = Default::default();
    fn once(set: &mut BTreeSet<usize>, id: usize) -> bool {
        set.insert(id)
    }
    history.events.iter().all(|event| match *event {
        Event::Invoke { op, .. } => once(&mut invoked, op),
        Event::End { op, .. } => invoked.contains(&op) && once(&mut ended, op),
        Event::HeadAsked { read } => once(&mut asked, read),
        Event::HeadAnswered { read, .. } => asked.contains(&read) && once(&mut answered, read),
        Event::Deliver { .. } | Event::Reset { .. } => true,
    })
}

fn check(history: &History) -> Verdict {
    let mut checker = Checker::new();
    let mut ops: BTreeMap<usize, OpId> = BTreeMap::new();
    let mut asked: BTreeMap<usize, At> = BTreeMap::new();
    for reader in 0..READERS {
        checker.subscribe(Subscriber(reader), LOG, 1);
    }
    for (now, event) in (1..).map(At).zip(&history.events) {
        match *event {
            Event::Invoke { op, attempt } => drop(ops.insert(op, checker.invoke(now, attempt))),
            Event::End { op, outcome } => checker.complete(now, ops[&op], outcome),
            Event::Deliver { reader, row } => checker.deliver(now, Subscriber(reader), LOG, row),
            Event::Reset { reader, next } => checker.reset(Subscriber(reader), LOG, next),
            Event::HeadAsked { read } => drop(asked.insert(read, now)),
            Event::HeadAnswered { read, head } => checker.read_head(LOG, asked[&read], now, head),
        }
    }
    (0..READERS).for_each(|reader| checker.settle(Subscriber(reader), LOG));
    checker.history(LOG, history.rows.iter().copied());
    checker.finish()
}

/// A moment of the search: events played so far, and what a broker could have built by then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    played: usize,
    log: Vec<(Option<Author>, BodyHash)>,
    next: [u64; READERS as usize],
    /// Length of the log when each open head was asked for.
    asked: BTreeMap<usize, usize>,
}

struct Search<'a> {
    history: &'a History,
    /// The numbers in the recording of all attempts that were not refused, and their instances.
    effective: BTreeMap<(Author, BodyHash), Vec<(usize, Instance)>>,
    seen: BTreeSet<Moment>,
}

impl<'a> Search<'a> {
    fn explains(history: &'a History) -> bool {
        let refused = |op: usize| history.events.contains(&Event::End { op, outcome: Outcome::Refused });
        let mut effective: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, event) in history.events.iter().enumerate() {
            if let Event::Invoke { op, attempt } = *event
                && !refused(op)
            {
                effective.entry((attempt.author, attempt.hash)).or_default().push((index, attempt.instance));
            }
        }
        let mut search = Self { history, effective, seen: BTreeSet::new() };
        search.from(Moment { played: 0, log: Vec::new(), next: [1; READERS as usize], asked: BTreeMap::new() })
    }

    fn from(&mut self, moment: Moment) -> bool {
        if self.is_explained(&moment) {
            return true;
        }
        if !self.seen.insert(moment.clone()) {
            return false;
        }
        let mut further: Vec<Moment> = self.play(moment.clone()).into_iter().collect();
        for &(author, hash) in self.effective.keys() {
            if self.may_append(&moment, author, hash) {
                let mut moment = moment.clone();
                moment.log.push((Some(author), hash));
                further.push(moment);
            }
        }
        if !moment.log.contains(&BROKER_ROW) {
            let mut moment = moment;
            moment.log.push(BROKER_ROW);
            further.push(moment);
        }
        further.into_iter().any(|moment| self.from(moment))
    }

    fn is_explained(&self, moment: &Moment) -> bool {
        let mut rows = self.history.rows.clone();
        rows.sort();
        let log = moment.log.iter().zip(1..).map(|(&(author, hash), seq)| Row { seq, author, hash });
        let read_all = moment.next.iter().all(|&next| next > moment.log.len() as u64);
        moment.played == self.history.events.len() && read_all && log.eq(rows)
    }

    /// Sent by now, not yet there, and not behind a later one of the only instance that sent it.
    fn may_append(&self, moment: &Moment, author: Author, hash: BodyHash) -> bool {
        let attempts = &self.effective[&(author, hash)];
        let sent = attempts.iter().any(|&(index, _)| index < moment.played);
        let there = moment.log.iter().any(|&(other, _)| other == Some(author));
        let overtaken = moment.log.iter().filter_map(|&(other, hash)| Some((other?, hash))).any(|other| {
            let others = &self.effective[&other];
            let instances: BTreeSet<Instance> = attempts.iter().chain(others).map(|&(_, instance)| instance).collect();
            instances.len() == 1 && attempts[attempts.len() - 1].0 < others[0].0
        });
        sent && !there && !overtaken
    }

    /// Plays the next event, if the log as it is allows it.
    fn play(&self, mut moment: Moment) -> Option<Moment> {
        let holds = |log: &[_], row: Row| log.get(row.seq as usize - 1) == Some(&(row.author, row.hash));
        let event = *self.history.events.get(moment.played)?;
        moment.played += 1;
        let allowed = match event {
            Event::End { op, outcome: Outcome::Ok { seq } } => {
                let attempt = self.history.events.iter().find_map(|event| match *event {
                    Event::Invoke { op: other, attempt } if other == op => Some(attempt),
                    _ => None,
                })?;
                holds(&moment.log, Row { seq, author: Some(attempt.author), hash: attempt.hash })
            }
            Event::Invoke { .. } | Event::End { .. } => true,
            Event::Deliver { reader, row } => {
                let next = &mut moment.next[reader as usize];
                let is_next = *next == row.seq;
                *next = row.seq + 1;
                is_next && holds(&moment.log, row)
            }
            Event::Reset { reader, next } => {
                moment.next[reader as usize] = next;
                true
            }
            Event::HeadAsked { read } => moment.asked.insert(read, moment.log.len()).is_none(),
            Event::HeadAnswered { read, head } => {
                let at_start = moment.asked.remove(&read)?;
                (at_start..=moment.log.len()).contains(&(head as usize))
            }
        };
        allowed.then_some(moment)
    }
}

#[test]
fn every_honest_run_is_accepted_by_both() {
    for seed in 0..2_000 {
        let history = Honest::run(seed);
        assert!(Search::explains(&history), "seed {seed}: the search refuses an honest run: {history:#?}");
        let verdict = check(&history);
        assert!(verdict.holds(), "seed {seed}: {verdict}{history:#?}");
    }
}

#[test]
fn the_checker_agrees_with_an_exhaustive_search() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..12_000 {
        let mut history = Honest::run(seed);
        let honest = history.clone();
        let mut random = Random(seed ^ 0x5eed);
        for _ in 0..=random.below(2) {
            damage(&mut history, &mut random);
        }
        if history == honest || !is_well_formed(&history) {
            continue;
        }
        let explained = Search::explains(&history);
        let verdict = check(&history);
        assert_eq!(verdict.holds(), explained, "seed {seed}: {verdict}{history:#?}");
        if explained { accepted += 1 } else { refused += 1 }
    }
    // Both answers must have been put to the test, or the comparison says nothing.
    assert!(accepted > 500 && refused > 3_000, "{accepted} accepted, {refused} refused");
}
