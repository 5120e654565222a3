//! Every message that a person can meet, in one document: `snapshots/…messages….snap`, provoked with the real binary.
//!
//! Whoever writes a new text sees here how it reads among the others: it says what happened, where, why and what to do.
//! [`no_text_is_forgotten`] finds texts in the source that are neither in the document nor in [`unprovoked`].

mod book;
mod played;
mod running;
mod sources;
mod starting;
mod typing;
mod unprovoked;

use self::sources::Text;

#[tokio::test]
async fn every_message() {
    let before =
        tokio::join!(typing::arguments(), typing::settings(), typing::definitions(), typing::other_clients());
    let start = tokio::join!(
        starting::gateway(),
        starting::downloads(),
        starting::surroundings(),
        starting::telemetry()
    );
    let during = tokio::join!(
        running::servers(),
        running::catalogue(),
        running::changes(),
        running::commands(),
        running::requests(),
        running::nowhere_to_write(),
        running::tokens_and_states(),
    );
    let chapters = [
        before.0, before.1, before.2, before.3, start.0, start.1, start.2, start.3, during.0, during.1,
        during.2, during.3, during.4, during.5, during.6,
    ];
    insta::assert_snapshot!("messages", chapters.join("\n"));
}

/// A text that is new is either provoked above, or its reason not to be is written down.
#[test]
fn no_text_is_forgotten() {
    let document = fs_err::read_to_string(
        sources::root().join("tests/integration/messages/snapshots/integration__messages__messages.snap"),
    )
    .unwrap();
    let document = sources::words(&document);
    let texts = sources::texts();
    assert!(texts.len() > 300, "only {} texts were found in the source", texts.len());
    let known = |text: &Text| unprovoked::reason(&text.words).is_some();
    let (printed, silent): (Vec<&Text>, Vec<&Text>) = texts.iter().partition(|text| text.is_in(&document));
    let forgotten: Vec<String> = silent.iter().filter(|text| !known(text)).map(ToString::to_string).collect();
    assert!(
        forgotten.is_empty(),
        "{} texts are printed nowhere in the document of messages; provoke them in tests/integration/messages, or say in \
         unprovoked.rs why nobody meets them:\n{}",
        forgotten.len(),
        forgotten.join("\n")
    );
    let needless: Vec<&str> =
        unprovoked::all().filter(|words| !silent.iter().any(|text| text.words == *words)).collect();
    assert!(
        needless.is_empty(),
        "in unprovoked.rs without need ({} are printed): {needless:#?}",
        printed.len()
    );
}
