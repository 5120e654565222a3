//! The sessions of one stdio server that are being opened.
//!
//! Invariant: a session is in here from before its child is started until it is open; one that was given up before, until
//! nothing of its child is left.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// How long a session's child is to live, and whether anything of it is left.
#[derive(Debug)]
pub(super) struct Life {
    /// Fires when the child is to end.
    pub(super) end: CancellationToken,
    /// Fires when nothing of the child is left.
    pub(super) gone: CancellationToken,
}

impl Life {
    /// A life that is to end with `stop`, too.
    pub(super) fn until(stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self { end: stop.child_token(), gone: CancellationToken::new() })
    }
}

/// Sessions that are being opened, and those that were given up and have not ended yet.
#[derive(Debug, Default)]
pub(super) struct Openings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lives: Vec<Arc<Life>>,
    /// How many want none to be opened.
    refusals: usize,
}

/// As long as it lives, no session of a server is opened.
#[derive(Debug)]
pub struct Refusal(Arc<Openings>);

impl Openings {
    /// Enters a session whose child is about to be started. Whether that may be.
    pub(super) fn enter(&self, life: &Arc<Life>) -> bool {
        let mut state = lock(&self.0);
        let may = state.refusals == 0;
        if may {
            state.lives.push(Arc::clone(life));
        }
        may
    }

    /// A session is open, or has ended.
    pub(super) fn leave(&self, life: &Arc<Life>) {
        lock(&self.0).lives.retain(|other| !Arc::ptr_eq(other, life));
    }

    /// Gives up all that are being opened.
    pub(super) fn refuse(self: &Arc<Self>) -> Refusal {
        let mut state = lock(&self.0);
        state.refusals += 1;
        state.lives.iter().for_each(|life| life.end.cancel());
        Refusal(Arc::clone(self))
    }

    /// Waits until nothing is left of those that were given up.
    pub(super) async fn given_up(&self) {
        let is_given_up = |life: &&Arc<Life>| life.end.is_cancelled();
        let given_up: Vec<_> = lock(&self.0).lives.iter().filter(is_given_up).cloned().collect();
        for life in given_up {
            life.gone.cancelled().await;
        }
    }
}

impl Refusal {
    /// Waits until nothing is left of the sessions that were being opened.
    pub async fn enforced(&self) {
        self.0.given_up().await;
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        lock(&self.0.0).refusals -= 1;
    }
}
