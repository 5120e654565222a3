//! Which instances of Sidegate stand behind which, so that none serves itself.
//!
//! Each instance has a random id. One that opens a session says so in `_meta` of `initialize` (`ASKS`); one that is asked so
//! says in `_meta` of the answer, and of every list in the session, whose things it lists (`BEHIND`): its own id, and those
//! of all instances behind it. Whoever finds its own id there would offer its own things as those of a server, without end,
//! and takes none of them. That is how routers find circles, too (RFC 4271 section 9.1.2: the whole AS_PATH is scanned).
//!
//! The ids travel with the things, and not with the request: sessions of instances with each other are opened before
//! anybody asks for anything, in any order, so no request goes around the circle. `_meta` goes where messages go: through gateways,
//! through `sidegate stdio`, and through programs that hand messages on as they are.
//!
//! Nobody else is told, or sees anything of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use bytestring::ByteString;

use crate::wire::json;

/// In `_meta` of `initialize`: the client is the instance of this id, and wants to be told who is behind.
const ASKS: &str = "sidegate.dev/instance";

/// In `_meta` of results: a list of ids. The first is that of the instance that answers.
const BEHIND: &str = "sidegate.dev/behind";

/// Who an instance is. One that has no id tells nobody, and finds no circles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceId(Option<Arc<str>>);

/// The instances whose things a server lists, itself included; empty where it is no Sidegate.
pub(super) type Behind = Arc<[Box<str>]>;

/// The same while it is gathered.
pub(super) type Ids = BTreeSet<Box<str>>;

/// A server would have us serve ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Circle {
    /// It is this instance.
    #[error("this server is this Sidegate itself")]
    Itself,
    /// It has this instance as a server, perhaps through others.
    #[error("this server is a Sidegate that serves this one in turn")]
    Through,
}

impl InstanceId {
    /// One that nobody else has.
    ///
    /// # Errors
    ///
    /// The operating system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(Some(hex::encode(bytes).into())))
    }

    /// The member of the parameters of `initialize` that asks who is behind, with a comma in front.
    pub(super) fn asking(&self) -> String {
        self.0.as_deref().map(|id| format!(r#","_meta":{{"{ASKS}":"{id}"}}"#)).unwrap_or_default()
    }

    /// Reads who is behind the server that gave `result`.
    ///
    /// # Errors
    ///
    /// We are.
    pub(super) fn behind(&self, result: &str) -> Result<Ids, Circle> {
        let Some(own) = self.0.as_deref() else { return Ok(Ids::new()) };
        // What is no list of texts says nothing.
        let ids = in_meta(result, BEHIND).and_then(|ids| json::elements(ids).ok()).unwrap_or_default();
        let ids: Vec<_> = ids.into_iter().filter_map(json::string).collect();
        match ids.iter().position(|id| id == own) {
            Some(0) => Err(Circle::Itself),
            Some(_) => Err(Circle::Through),
            None => Ok(ids.into_iter().map(Into::into).collect()),
        }
    }

    /// What a client that has asked is told by us, who have servers with these behind them: the member `_meta`, without
    /// braces around it.
    pub(super) fn told<'b>(&self, servers: impl Iterator<Item = &'b Behind>) -> Option<String> {
        let own = self.0.as_deref()?;
        let others: BTreeSet<&str> = servers.flat_map(|behind| &**behind).map(|id| &**id).collect();
        let mut text = format!(r#""_meta":{{"{BEHIND}":["{own}""#);
        for id in others {
            // Writing to a String cannot fail.
            let _ = write!(text, ",{}", json::quoted(id));
        }
        text.push_str("]}");
        Some(text)
    }
}

/// Whether a client with these parameters of `initialize` wants to be told who is behind.
pub(super) fn asks(params: &str) -> bool {
    in_meta(params, ASKS).is_some()
}

/// A list of ours, which has no `_meta`, with the member `told`.
pub(super) fn with(list: &ByteString, told: &str) -> ByteString {
    json::splice(list, [(1..1, &format!("{told},"))])
}

/// A member of `_meta`, raw. What is not as it should be is not there.
fn in_meta<'t>(object: &'t str, key: &str) -> Option<&'t str> {
    let [meta] = json::members(object, ["_meta"]).ok()?;
    let [value] = json::members(meta?, [key]).ok()?;
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_finds_itself_wherever_it_stands() {
        let own = InstanceId(Some("a".into()));
        let behind = |ids: &str| own.behind(&format!(r#"{{"_meta":{{"{BEHIND}":{ids}}},"tools":[]}}"#));
        assert_eq!(behind(r#"["a"]"#), Err(Circle::Itself));
        assert_eq!(behind(r#"["a","b"]"#), Err(Circle::Itself));
        assert_eq!(behind(r#"["b","c","a"]"#), Err(Circle::Through));
        assert_eq!(behind(r#"["b","c"]"#), Ok(Ids::from(["b".into(), "c".into()])));
        for other in ["[]", "7", "null", r#"[["a"],{"a":"a"},7]"#, r#""a""#] {
            assert_eq!(behind(other), Ok(Ids::new()), "{other}");
        }
        for other in ["{}", r#"{"_meta":null}"#, r#"{"_meta":7}"#, r#"{"_meta":{},"_meta":{}}"#, "7"] {
            assert_eq!(own.behind(other), Ok(Ids::new()), "{other}");
        }
        assert!(asks(&format!("{{\"a\":1{}}}", own.asking())));
    }

    #[test]
    fn nobody_is_told_by_one_without_an_id() {
        let nobody = InstanceId::default();
        assert_eq!((nobody.asking().as_str(), nobody.told([].iter())), ("", None));
    }
}
