//! How long calls take, told apart by few enough labels.
//!
//! What clients and servers choose may only be a label where it is bounded: a method of MCP, a name that is offered, and of
//! those the first [`MOST_NAMES`]. Everything else is `_OTHER`, or left out.
//!
//! The labels of a series are made once; to measure a call that is like one before it allocates nothing.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use super::MOST_SERIES;
use super::definitions::{CLIENT_DURATION, ERROR, METHOD, PROMPT, SERVER, SERVER_DURATION, STATUS, TOOL};
use crate::mcpserver::ServerName;
use crate::telemetry::calls::{CallObserver, CallRecord, Outcome, Subject};
use crate::telemetry::secrets::Secrets;

/// How many names of tools and prompts become labels, those of servers that have gone included. Later ones are `_OTHER`.
pub const MOST_NAMES: usize = 1000;

/// What stands for what is not told apart (OpenTelemetry, "Attribute Requirement Levels", as for `error.type`).
const OTHER: &str = "_OTHER";

/// The bounds that the conventions for MCP give (docs/gen-ai/mcp.md, "Metrics").
const BOUNDARIES: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1., 2., 5., 10., 30., 60., 120., 300.];

/// Knows what there is to be called.
pub trait Offered: Send + Sync {
    /// Whether there is a tool or prompt that clients call so, of `server` or, where that is `None`, of our own. A name that
    /// nobody has must not become a label.
    fn is_offered(&self, server: Option<&ServerName>, subject: &Subject) -> bool;
}

/// Measures calls.
pub struct CallMetrics {
    server: Histogram<f64>,
    client: Histogram<f64>,
    offered: Arc<dyn Offered>,
    secrets: Secrets,
    known: RwLock<Known>,
}

/// The series there are.
#[derive(Default)]
struct Known {
    labels: HashMap<Series, Arc<[KeyValue]>>,
    names: HashSet<(Option<ServerName>, Name)>,
}

/// What tells series apart. Cloning one allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    method: &'static str,
    server: Option<ServerName>,
    subject: Option<Name>,
    outcome: Outcome,
}

/// The name of what is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Tool(Arc<str>),
    Prompt(Arc<str>),
    OtherTool,
    OtherPrompt,
}

impl Name {
    fn of(subject: &Subject) -> Option<Self> {
        match subject {
            Subject::Tool(name) => Some(Self::Tool(Arc::clone(name))),
            Subject::Prompt(name) => Some(Self::Prompt(Arc::clone(name))),
            // There can be as many as a client likes.
            Subject::Resource(_) => None,
        }
    }

    fn other(&self) -> Self {
        match self {
            Self::Tool(_) | Self::OtherTool => Self::OtherTool,
            Self::Prompt(_) | Self::OtherPrompt => Self::OtherPrompt,
        }
    }

    fn label(&self, secrets: &Secrets) -> KeyValue {
        let shown = |name: &str| secrets.redact(name).into_owned();
        match self {
            Self::Tool(name) => KeyValue::new(TOOL.key, shown(name)),
            Self::Prompt(name) => KeyValue::new(PROMPT.key, shown(name)),
            Self::OtherTool => KeyValue::new(TOOL.key, OTHER),
            Self::OtherPrompt => KeyValue::new(PROMPT.key, OTHER),
        }
    }
}

impl Series {
    /// The name that it has, where that is one of somebody's choice.
    fn name(&self) -> Option<(Option<ServerName>, Name)> {
        let name = self.subject.clone().filter(|name| *name != name.other())?;
        Some((self.server.clone(), name))
    }

    fn labels(&self, secrets: &Secrets) -> Arc<[KeyValue]> {
        let mut labels = vec![KeyValue::new(METHOD.key, self.method)];
        labels.extend(self.subject.as_ref().map(|subject| subject.label(secrets)));
        labels.extend(self.server.as_ref().map(|server| KeyValue::new(SERVER.key, server.to_string())));
        if let Some(error) = self.outcome.error_type() {
            if let Outcome::Error { .. } = self.outcome {
                labels.push(KeyValue::new(STATUS.key, error.clone()));
            }
            labels.push(KeyValue::new(ERROR.key, error));
        }
        // In the order in which the library keeps them.
        labels.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        labels.into()
    }
}

impl CallMetrics {
    pub(super) fn new(meter: &Meter, offered: Arc<dyn Offered>, secrets: Secrets) -> Self {
        Self {
            server: SERVER_DURATION.histogram(meter, &BOUNDARIES),
            client: CLIENT_DURATION.histogram(meter, &BOUNDARIES),
            offered,
            secrets,
            known: RwLock::default(),
        }
    }

    /// A call has ended so, after `whole`, of which the server took `upstream`, where it was asked.
    fn record(&self, series: Series, subject: Option<&Subject>, whole: Duration, upstream: Option<Duration>) {
        let labels = self.labels(series, subject);
        self.server.record(whole.as_secs_f64(), &labels);
        if let Some(upstream) = upstream {
            self.client.record(upstream.as_secs_f64(), &labels);
        }
    }

    fn labels(&self, mut series: Series, subject: Option<&Subject>) -> Arc<[KeyValue]> {
        if let Some(labels) = self.known(&series) {
            return labels;
        }
        let is_offered = |subject| self.offered.is_offered(series.server.as_ref(), subject);
        if !subject.is_none_or(is_offered) {
            series.subject = series.subject.as_ref().map(Name::other);
            if let Some(labels) = self.known(&series) {
                return labels;
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = series.name()
            && !known.names.contains(&name)
        {
            if known.names.len() < MOST_NAMES {
                known.names.insert(name);
            } else {
                series.subject = series.subject.as_ref().map(Name::other);
            }
        }
        if known.labels.len() < MOST_SERIES {
            return Arc::clone(
                known.labels.entry(series).or_insert_with_key(|series| series.labels(&self.secrets)),
            );
        }
        drop(known);
        series.labels(&self.secrets)
    }

    fn known(&self, series: &Series) -> Option<Arc<[KeyValue]>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).labels.get(series).cloned()
    }
}

impl CallObserver for CallMetrics {
    fn finished(&self, call: &CallRecord) {
        let Some(outcome) = call.outcome else { return };
        let series = Series {
            method: match call.method {
                Cow::Borrowed(known) => known,
                Cow::Owned(_) => OTHER,
            },
            server: call.server.clone(),
            subject: call.subject.as_ref().and_then(Name::of),
            outcome: told_apart(outcome),
        };
        self.record(series, call.subject.as_ref(), call.times.whole, call.times.upstream);
    }
}

/// `outcome`, but for codes that are servers' own: all are one.
fn told_apart(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Error { code } if !(-32768..=-32000).contains(&code) => Outcome::Error { code: 0 },
        other => other,
    }
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallMetrics")
    }
}
