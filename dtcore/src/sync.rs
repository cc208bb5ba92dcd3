//! A mutex that a panic elsewhere does not poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guards state that is valid after each step of a change; it is never held across a wait.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // Every change of guarded state is complete in itself, so a panic leaves a valid one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
