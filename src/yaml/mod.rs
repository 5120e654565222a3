//! YAML files that people write, read so that every mistake of a file is reported at once and with its place.
//!
//! A file is read within limits ([`read_file`]). Text becomes a small tree of nodes that know their line and column (`parse`); readers walk it with [`Value`] and
//! [`Fields`], which note mistakes and go on instead of stopping at the first. Scalars follow the core schema of YAML
//! 1.2.2 (section 10.3): `no` and `on` are text.
//!
//! Built on `saphyr-parser`'s events rather than on a serde deserializer: serde stops at the first mistake, turns
//! scalars into values before anyone can say what was wrong with them, and hides the position of keys. Text edits of
//! the same files use the same parser, so what is read and what is edited can never be two grammars.
//!
//! Invariants: time and memory are bounded for any input ([`MAX_BYTES`], depth, node and alias budgets); nothing
//! panics; no message holds the value of a scalar unless the reader asked for it.
//!
//! [`edit`] changes one entry of a text and nothing else; [`emit`] writes values.
//!
//! Knows nothing of what the keys mean.

mod compose;
pub(crate) mod edit;
pub(crate) mod emit;
mod file;
mod mistake;
mod node;
mod scalar;
mod spans;
mod value;

pub(crate) use compose::{MAX_BYTES, parse_bytes};
pub(crate) use file::{FileError, read_file};
pub(crate) use mistake::{Collector, shown};
pub use mistake::{Mistake, Position};
pub(crate) use spans::place_of;
pub(crate) use value::{Fields, Value};
