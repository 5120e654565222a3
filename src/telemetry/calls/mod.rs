//! The calls of clients: those under way, and the last that have ended.
//!
//! The relay begins a [`Call`] for each request and tells it what happens; when it is over, everybody who observes calls
//! gets its [`CallRecord`]: metrics, spans, and the memory that `sidegate explain` reads.
//!
//! Invariants: a call ends once, also when whoever carries it is dropped; memory is bounded, whatever clients send; no
//! lock is held while observers are told.
//!
//! Knows nothing of how a call is carried.

mod children;
mod log;
mod record;

pub use children::Children;
pub use log::{Begin, Call, CallLog, CallLogOptions, CallObserver, MOST_FINISHED};
pub use record::{
    CallRecord, CallTimes, CallTrace, Failure, LONGEST_TEXT, Outcome, Subject, UpstreamFacts, kept,
};
