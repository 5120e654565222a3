//! What holds for any bytes that a peer may send or a person may write, on the way in that each of them takes.
//!
//! The same judges are fuzz targets, in `fuzz/`. Here they see a bounded number of inputs, the same ones every time.

// Always so here, but Clippy's allowances for tests look for the attribute.
#[cfg(test)]
mod definition;
#[cfg(test)]
mod envelope;
#[cfg(test)]
mod events;
#[cfg(test)]
mod inputs;

#[cfg(test)]
mod tests {
    use super::inputs::hold;
    use super::{definition, envelope, events};

    #[test]
    fn any_bytes_as_a_message() {
        hold("envelope", envelope::judge);
    }

    #[test]
    fn any_bytes_as_a_stream_of_events() {
        hold("events", events::judge);
    }

    #[test]
    fn any_bytes_as_a_definition() {
        hold("definition", definition::judge);
    }
}
