//! Keys that a thread keeps ready for use, each on behalf of an owner somewhere else that can make it again.
//!
//! Invariant: an owner is served by its own key only. Its number is never given twice in a process, so a place that has
//! meanwhile been taken by another owner, or one that another thread meant, is not mistaken for its own.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Who a key is kept for.
#[derive(Debug)]
pub(super) struct Owner {
    number: u64,
    /// Where the thread that used the key last keeps it, if it still does.
    place: AtomicU32,
}

impl Owner {
    pub(super) fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self { number: NUMBERS.fetch_add(1, Relaxed), place: AtomicU32::new(0) }
    }
}

/// The keys of a thread. As many as there are owners at most.
#[derive(Debug)]
pub(super) struct Expanded<K>(RefCell<Places<K>>);

#[derive(Debug)]
struct Places<K> {
    kept: Vec<Option<Kept<K>>>,
    /// Places without a key.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Kept<K> {
    owner: u64,
    key: K,
    /// Since the thread last let keys rest.
    was_used: bool,
}

impl<K> Expanded<K> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Places { kept: Vec::new(), free: Vec::new() }))
    }

    /// Does something with the owner's key, which is made if it is not kept.
    pub(super) fn with<R>(&self, owner: &Owner, expand: impl FnOnce() -> K, work: impl FnOnce(&K) -> R) -> R {
        let places = &mut *self.0.borrow_mut();
        let place = owner.place.load(Relaxed) as usize;
        if let Some(Some(kept)) = places.kept.get_mut(place)
            && kept.owner == owner.number
        {
            kept.was_used = true;
            return work(&kept.key);
        }
        let key = expand();
        let result = work(&key);
        places.keep(owner, key);
        result
    }

    /// Gives up the keys that were not used since the last call.
    pub(super) fn let_rest(&self) {
        let places = &mut *self.0.borrow_mut();
        for (place, slot) in places.kept.iter_mut().enumerate() {
            match slot {
                Some(kept) if kept.was_used => kept.was_used = false,
                Some(_) => {
                    *slot = None;
                    places.free.push(place as u32);
                }
                None => {}
            }
        }
        if places.free.len() == places.kept.len() {
            (places.kept, places.free) = (Vec::new(), Vec::new());
        }
    }

    /// The owner needs its key no more.
    pub(super) fn forget(&self, owner: &Owner) {
        let places = &mut *self.0.borrow_mut();
        let place = owner.place.load(Relaxed);
        if let Some(slot) = places.kept.get_mut(place as usize)
            && slot.as_ref().is_some_and(|kept| kept.owner == owner.number)
        {
            *slot = None;
            places.free.push(place);
        }
    }

    /// How many keys are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let places = self.0.borrow();
        places.kept.len() - places.free.len()
    }
}

impl<K> Places<K> {
    fn keep(&mut self, owner: &Owner, key: K) {
        let kept = Some(Kept { owner: owner.number, key, was_used: true });
        let place = match self.free.pop() {
            Some(place) => place,
            // Invariant: far fewer than 2^32, each being 300 bytes at least.
            None => self.kept.len() as u32,
        };
        match self.kept.get_mut(place as usize) {
            Some(slot) => *slot = kept,
            None => self.kept.push(kept),
        }
        owner.place.store(place, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a key: whose it is.
    fn used(keys: &Expanded<u64>, owner: &Owner) -> u64 {
        keys.with(owner, || owner.number, |key| *key)
    }

    #[test]
    fn everybody_gets_the_own_key_whatever_happens_to_places() {
        let keys = Expanded::new();
        let mut owners: Vec<_> = (0..50).map(|_| Owner::new()).collect();
        for round in 0..100 {
            for (index, owner) in owners.iter().enumerate() {
                if (index + round) % 3 == 0 {
                    assert_eq!(used(&keys, owner), owner.number);
                }
            }
            if round % 2 == 0 {
                keys.let_rest();
            }
            let gone = owners.swap_remove(round % owners.len());
            keys.forget(&gone);
            owners.push(Owner::new());
            assert!(keys.len() <= owners.len());
        }
        (0..2).for_each(|_| keys.let_rest());
        assert_eq!((keys.len(), keys.0.borrow().kept.capacity(), keys.0.borrow().free.capacity()), (0, 0, 0));
    }

    #[test]
    fn a_place_is_given_again() {
        let keys = Expanded::new();
        for _ in 0..10 {
            let owner = Owner::new();
            used(&keys, &owner);
            keys.forget(&owner);
        }
        assert_eq!(keys.0.borrow().kept.len(), 1);
    }
}
