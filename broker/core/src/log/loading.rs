//! Taking a log up: its rows and its records are read together; nothing is carried out before all are there.

use antiphon_protocol::{Row, fold, frames};
use antiphon_storage_contract::{Loaded, Op, Outcome, StoreError, Token};
use bytes::Bytes;

use super::{Contents, Log, Purpose, Stall, State, blocks, cursors};
use crate::{effect::is_direct, effects::Effects, limits::MEMBERS_LOADED_CURSORS_MAX, refusal::Refusal};

/// The two reads that take a log up. Answers to those of an earlier attempt are not taken for these.
#[derive(Debug)]
pub(super) struct Loading {
    rows: Token,
    records: Token,
    /// Asked of direct conversations only, until answered.
    blocks: Option<Token>,
    loaded: Option<Loaded>,
    cursors: Option<Vec<(Bytes, Bytes)>>,
}

impl Log {
    pub(super) fn reload(&mut self, fx: &mut Effects) {
        // A send that waits for the store keeps its place before later ones.
        self.stall = self.stall.filter(|stall| *stall == Stall::Store);
        let cursors = Op::ScanRecords {
            log: self.key,
            prefix: Bytes::from_static(cursors::RECORD_PREFIX),
            after: None,
            records_max: MEMBERS_LOADED_CURSORS_MAX,
        };
        let rows = fx.store(Op::Load { log: self.key }, Purpose::Load);
        let records = fx.store(cursors, Purpose::LoadCursors);
        let blocks = is_direct(&self.name).then(|| {
            let prefix = Bytes::from_static(blocks::RECORD_PREFIX);
            fx.store(Op::ScanRecords { log: self.key, prefix, after: None, records_max: 16 }, Purpose::LoadBlocks)
        });
        self.state = State::Loading(Loading { rows, records, blocks, loaded: None, cursors: None });
    }

    /// Whether a load failed, so that the next request has to load again.
    pub(crate) fn is_unloaded(&self) -> bool {
        matches!(self.state, State::Failing { outstanding: 0 })
    }

    /// Starts another load after a failed one.
    pub(crate) fn load_again(&mut self, fx: &mut Effects) {
        self.reload(fx);
    }

    pub(super) fn load_answered(&mut self, fx: &mut Effects, token: Token, result: Result<Outcome, StoreError>) {
        let State::Loading(loading) = &mut self.state else { return };
        match result {
            Ok(Outcome::Loaded(found)) if token == loading.rows => loading.loaded = Some(found),
            Ok(Outcome::Records(found)) if token == loading.records => loading.cursors = Some(found),
            Ok(Outcome::Records(found)) if Some(token) == loading.blocks => {
                loading.blocks = None;
                if !found.is_empty() {
                    self.blocks.restore(&found);
                }
            }
            Err(error) if [Some(loading.rows), Some(loading.records), loading.blocks].contains(&Some(token)) => {
                return self.load_failed(fx, &error);
            }
            _ => return,
        }
        if loading.blocks.is_none()
            && loading.loaded.is_some()
            && let Some(records) = loading.cursors.take()
            && let Some(loaded) = loading.loaded.take()
        {
            self.loaded(fx, loaded, &records);
        }
    }

    fn loaded(&mut self, fx: &mut Effects, loaded: Loaded, records: &[(Bytes, Bytes)]) {
        let rows: Vec<Row> = loaded.tail.iter().filter(|row| fold::target(row).is_some()).cloned().collect();
        self.unsettled =
            loaded.tail.iter().filter(|row| self.told.is_none_or(|told| row.seq() > told)).cloned().collect();
        // An append that failed may have been stored all the same; its live readers have not heard of it.
        let told = self.told.take().unwrap_or(loaded.head);
        let untold: Vec<Row> = loaded.tail.iter().filter(|row| row.seq() > told).cloned().collect();
        let Ok(mut contents) = Contents::new(loaded, &mut fx.ids, fx.hash_key) else {
            self.told = Some(told);
            self.load_failed(fx, &StoreError::Degraded("the checkpoint cannot be read".into()));
            return;
        };
        if let Some(kept) = self.cursors.take() {
            contents.cursors.merge(kept);
        }
        if !records.is_empty() {
            contents.cursors.restore(records);
        }
        for row in &untold {
            self.tell_event(fx, &frames::event(self.handle, row), row);
        }
        self.restore(fx, contents, rows);
    }

    /// Refuses what waits; the next request tries again.
    pub(super) fn load_failed(&mut self, fx: &mut Effects, error: &StoreError) {
        let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(error) };
        for request in std::mem::take(&mut self.waiting) {
            self.refuse(fx, &request, &refusal);
        }
        self.state = State::Failing { outstanding: 0 };
        self.settle_later(fx);
    }
}
