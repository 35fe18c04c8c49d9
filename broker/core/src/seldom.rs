//! What few of many have, such as rows in flight of all the logs in memory.

use std::ops::{Deref, DerefMut};

/// A value that takes no more than a pointer until it is changed for the first time; until then it reads as empty.
#[derive(Debug)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

/// What has a state from which everything begins.
pub(crate) trait Empty: Default + 'static {
    /// That state.
    fn empty() -> &'static Self;
}

impl<T> Seldom<T> {
    /// For a change that is one only if the value is not empty.
    pub(crate) fn existing(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Takes the value out, if it is not empty.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.0.take().map(|value| *value)
    }
}

impl<T: Empty + PartialEq> From<T> for Seldom<T> {
    fn from(value: T) -> Self {
        Self((value != *T::empty()).then(|| Box::new(value)))
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Empty> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::empty(),
        }
    }
}

impl<T: Empty> DerefMut for Seldom<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Empty for String {
        fn empty() -> &'static Self {
            static EMPTY: String = String::new();
            &EMPTY
        }
    }

    #[test]
    fn only_a_change_takes_memory() {
        let mut word = Seldom::<String>::default();
        assert_eq!((word.len(), word.existing()), (0, None));
        assert!(Seldom::from(String::new()).existing().is_none());
        word.push('x');
        assert_eq!(word.as_str(), "x");
        assert_eq!(word.existing().map(|word| word.len()), Some(1));
        assert_eq!(Seldom::from(word.clone()).existing(), Some(&mut word.clone()));
    }

    #[test]
    fn a_value_that_nothing_has_has_the_size_of_a_pointer() {
        assert_eq!(size_of::<Seldom<[u64; 100]>>(), size_of::<usize>());
    }
}
