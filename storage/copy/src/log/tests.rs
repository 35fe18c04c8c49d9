#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{cell::Cell, rc::Rc, sync::Arc};

use antiphon_storage::{
    conformance::{
        made_up::MadeUp,
        rows::{append, log, put},
    },
    dice::Dice,
    memory::MemoryLog,
};
use antiphon_storage_contract::{Completion, EventLog, Outcome, Token};
use tokio::sync::Notify;

use super::*;

/// A store in memory that several ports show, and that loses its patience after so many operations.
#[derive(Clone)]
struct Shown {
    store: Rc<std::cell::RefCell<MemoryLog>>,
    patience: Rc<Cell<u64>>,
    refused: Rc<std::cell::RefCell<Vec<Completion>>>,
}

impl Shown {
    fn new(store: MemoryLog) -> Self {
        let store = Rc::new(std::cell::RefCell::new(store));
        Self { store, patience: Rc::new(Cell::new(u64::MAX)), refused: Rc::default() }
    }

    fn perform(&mut self, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            let mut completions = Vec::new();
            self.submit(op, Token(0));
            self.poll_completions(&mut completions);
            assert!(completions[0].result.is_ok(), "{completions:?}");
        }
    }

    fn port(&self) -> Port {
        Port::new(Box::new(self.clone()), Arc::new(Notify::new()))
    }
}

impl EventLog for Shown {
    fn submit(&mut self, op: Op, token: Token) {
        match self.patience.get() {
            0 => {
                let result = Err(StoreError::Unavailable("patience is lost".into()));
                self.refused.borrow_mut().push(Completion { token, result });
            }
            left => {
                self.patience.set(left - 1);
                self.store.borrow_mut().submit(op, token);
            }
        }
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.store.borrow_mut().poll_completions(completions);
        completions.append(&mut self.refused.borrow_mut());
    }
}

fn copied(from: &Shown, to: &Shown, key: LogKey) -> Result<Option<Copied>, LogError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (from, to) = (from.port(), to.port());
    runtime.block_on(async {
        tokio::select! {
            never = from.serve() => match never {},
            never = to.serve() => match never {},
            copied = copy_log(&from, &to, key) => copied,
        }
    })
}

fn empty() -> Shown {
    Shown::new(MemoryLog::new())
}

#[test]
fn a_copy_holds_what_its_source_holds() {
    for seed in 0..40 {
        let mut made_up = MadeUp::new(seed, 6);
        let (mut from, to) = (empty(), empty());
        from.perform(made_up.ops(300));
        for key in made_up.keys() {
            let first = copied(&from, &to, key).unwrap();
            // Back to a third place, and once more to the same: nothing else comes out.
            assert_eq!(copied(&to, &empty(), key).unwrap(), first, "seed {seed}");
            to.patience.set(u64::MAX);
            assert_eq!(copied(&from, &to, key).unwrap(), first, "seed {seed}");
        }
    }
}

#[test]
fn an_older_copy_is_brought_up_to_its_source() {
    for seed in 0..40 {
        let mut made_up = MadeUp::new(seed, 4);
        let mut from = empty();
        from.perform(made_up.ops(150));
        let to = Shown::new(from.store.borrow().clone());
        let before: Vec<_> = (0..4).map(|n| made_up.bounds(n)).collect();
        from.perform(made_up.ops(60));
        for (n, before) in (0..).zip(before) {
            let floor = *made_up.bounds(n).start();
            let result = copied(&from, &to, log(n));
            // What the source has lost since, nobody can add.
            if floor > before.end() + 1 && *before.end() > 0 {
                assert!(matches!(result, Err(LogError::Diverged { .. })), "seed {seed}: {result:?}");
            } else {
                assert_eq!(result.unwrap(), copied(&from, &empty(), log(n)).unwrap(), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_copy_that_breaks_off_anywhere_is_finished_by_the_next() {
    for seed in 0..15 {
        let mut dice = Dice::new(seed);
        let mut made_up = MadeUp::new(seed, 2);
        let (mut from, to) = (empty(), empty());
        from.perform(made_up.ops(200));
        let expected = copied(&from, &empty(), log(0)).unwrap();
        let mut attempts = 0;
        let result = loop {
            to.patience.set(dice.below(8 + 40 * attempts));
            attempts += 1;
            match copied(&from, &to, log(0)) {
                Err(LogError::Destination(_)) => {}
                other => break other,
            }
        };
        assert_eq!(result.unwrap(), expected, "seed {seed}");
        assert!(attempts > 2, "seed {seed}: nothing broke off");
    }
}

#[test]
fn a_long_log_gets_checkpoints_on_the_way_and_its_own_in_the_end() {
    let (mut from, to) = (empty(), empty());
    from.perform((0..30).map(|at| append(1, at * 1_000 + 1..=(at + 1) * 1_000)));
    from.perform([Op::Checkpoint { log: log(1), through: 29_990, value: Bytes::from_static(b"own") }]);
    to.patience.set(60);
    assert!(copied(&from, &to, log(1)).is_err());
    let Ok(Outcome::Loaded(half)) = performed(&to, Op::Load { log: log(1) }) else { panic!() };
    assert!(half.head > 8_192 && half.tail.len() < 8_192 + 1_024, "{} of {}", half.tail.len(), half.head);
    to.patience.set(u64::MAX);
    let whole = copied(&from, &to, log(1)).unwrap().unwrap();
    assert_eq!(whole.rows, 30_000);
    let Ok(Outcome::Loaded(loaded)) = performed(&to, Op::Load { log: log(1) }) else { panic!() };
    assert_eq!(loaded.checkpoint, Some((29_990, Bytes::from_static(b"own"))));
}

fn performed(store: &Shown, op: Op) -> Result<Outcome, StoreError> {
    let mut store = store.clone();
    store.patience.set(u64::MAX);
    let mut completions = Vec::new();
    store.submit(op, Token(0));
    store.poll_completions(&mut completions);
    completions.pop().unwrap().result
}

#[test]
fn what_is_no_copy_is_not_touched() {
    let (mut from, mut to) = (empty(), empty());
    from.perform([append(1, 1..=3)]);
    to.perform([append(1, 1..=4)]);
    let before = performed(&to, Op::Load { log: log(1) });
    assert!(matches!(copied(&from, &to, log(1)), Err(LogError::Diverged { .. })));
    assert_eq!(performed(&to, Op::Load { log: log(1) }), before);
}

#[test]
fn a_log_without_content_does_not_count() {
    let (mut from, to) = (empty(), empty());
    from.perform([put(1, "key", Some("value")), put(1, "key", None)]);
    assert_eq!(copied(&from, &to, log(1)).unwrap(), None);
    from.perform([put(1, "key", Some(""))]);
    assert!(copied(&from, &to, log(1)).unwrap().is_some());
}
