//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks for a moment, never across an await. A panic of another holder is no reason to stop: what these locks guard is
/// whole after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
