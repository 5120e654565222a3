//! The page at `/ui`: what runs, the tools and a form to call each, logs, calls, and start, stop and restart.
//!
//! Rendered here, on request, from what is known at that moment; a small script only replaces the parts that have changed.
//! Without it everything works, and reloading is the browser's.
//!
//! | part | owns |
//! | --- | --- |
//! | [`Page`] | which address shows what, and what forms do |
//! | `access` | who may see it, and whose forms count |
//! | `answer` | the headers of every answer; refusals |
//! | `form` | forms and queries as browsers send them |
//! | `call` | a call of a tool, as a client of the aggregate |
//! | `tools`, `fields`, `result`, `calls`, `reloads`, `log`, `paging` | what is shown, as values |
//! | `text` | text that others chose |
//! | `view` | the same as HTML; nothing else writes any |
//! | `assets` | the style sheet and the script, as they are served |
//!
//! Invariants: nothing that others chose gets into a page but through a template, which escapes it; a GET changes nothing; a
//! POST does nothing without the secret of this run; every list is paged, every text cut.
//!
//! Knows nothing of how tools are carried and servers started.

mod access;
mod answer;
mod call;
mod calls;
mod fields;
mod form;
mod log;
mod paging;
mod reloads;
mod result;
mod text;
mod tools;
mod view;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

pub use self::access::TokenCheck;
pub use self::reloads::Reloads;

use self::access::Access;
use self::answer::{Answer, Refusal};
use self::call::Called;
use self::fields::{Fields, Mistakes};
use self::form::{Form, SECRET};
use self::paging::Paged;
use self::result::Shown;
use self::tools::{Tool, Wish};
use self::view::{Filled, Frame};
use crate::admin::status::{ServerEntry, Status};
use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::error::chain;
use crate::mcpserver::{ServerName, log_name};
use crate::reconciler::{OperateError, Operator};
use crate::telemetry::calls::CallLog;
use crate::wire::server::{Body, StreamableHttp};

/// Where the page begins.
pub const ROOT: &str = "/ui";

/// The name of the gateway's log.
const GATEWAY: &str = "gateway";

/// How many servers are on a page.
const SERVERS_A_PAGE: usize = 100;

/// Calls that are shown of one server on its page.
const CALLS_OF_A_SERVER: usize = 8;

/// Calls of tools from the page at once.
const MOST_CALLS: usize = 16;

/// An operation that takes longer goes on by itself, and the page shows how far it is.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the page is made of.
pub struct PageOptions {
    /// The port that it is served on.
    pub port: u16,
    /// What the instance says of itself, at the moment.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Which tools there are.
    pub registry: Arc<Registry>,
    /// Where tools are called.
    pub aggregate: Arc<StreamableHttp<Aggregate>>,
    /// Starts and stops servers.
    pub operator: Operator,
    /// What clients have called.
    pub calls: Arc<CallLog>,
    /// How the gateway's configuration has changed.
    pub reloads: Arc<Reloads>,
    /// The directory of the logs.
    pub logs: PathBuf,
    /// The token that is needed first, where one is set.
    pub token: Option<TokenCheck>,
    /// Where calls and operations run.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

/// The page of one instance.
pub struct Page {
    /// Without the token, which `access` has.
    options: PageOptions,
    access: Access,
    /// Calls that this page may make.
    permits: Arc<Semaphore>,
}

impl Page {
    /// The page.
    ///
    /// # Errors
    ///
    /// The system has no random bytes for its secrets.
    pub fn new(mut options: PageOptions) -> Result<Arc<Self>, getrandom::Error> {
        let access = Access::new(options.port, options.token.take())?;
        Ok(Arc::new(Self { options, access, permits: Arc::new(Semaphore::new(MOST_CALLS)) }))
    }

    /// Whether an address is the page's.
    pub fn is_at(path: &str) -> bool {
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request whose `Host` and `Origin` were checked.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let answer = match parts.method {
            _ if !Self::is_at(parts.uri.path()) => Err(Refusal::NothingHere),
            Method::GET | Method::HEAD => self.get(&parts).await,
            Method::POST => self.post(&parts, body).await,
            _ => Err(Refusal::Method),
        };
        answer.unwrap_or_else(|refusal| self.refused(&refusal)).into_response()
    }

    async fn get(&self, parts: &Parts) -> Result<Answer, Refusal> {
        Access::check_source(&parts.method, &parts.headers)?;
        let (path, query) = (below(parts.uri.path()), Form::of_query(parts.uri.query()));
        match path {
            // Without these not even the form to sign in looks right; there is nothing in them.
            "style.css" => return Ok(asset("text/css; charset=utf-8", include_str!("assets/style.css"))),
            "live.js" => return Ok(asset("text/javascript; charset=utf-8", include_str!("assets/live.js"))),
            _ => self.access.check_token(&parts.headers)?,
        }
        let frame = self.frame();
        let status = || (self.options.status)();
        let page = match path {
            "" => {
                let status = status();
                let servers = Paged::of(status.servers.clone(), SERVERS_A_PAGE, query.page());
                view::overview(&frame, &status, &servers)
            }
            "tools" => {
                let wish = Wish {
                    words: query.get("q").unwrap_or_default(),
                    server: query.get("server").unwrap_or_default(),
                    page: query.page(),
                };
                view::tools(&frame, wish, &tools::find(&self.options.registry.catalogue(), wish))
            }
            "tool" => {
                let tool = self.tool(query.get("name"))?;
                view::tool(&frame, &tool, &Filled::new(Fields::of(&tool.input)), None)
            }
            "logs" => {
                let status = status();
                let name = query.get("of").unwrap_or(GATEWAY);
                self.log(&frame, &status, name).await?
            }
            "calls" => {
                let server = query.get("server").unwrap_or_default();
                if !server.is_empty() {
                    find_server(&status(), server)?;
                }
                view::calls(&frame, server, &calls::find(&self.options.calls, server, query.page()))
            }
            "gateway" => view::gateway(&frame, &status(), &self.options.reloads.newest_first()),
            // Forms lead there; who asks for it by its address wants what was before.
            "call" => return Ok(Answer::Go { to: format!("{ROOT}/tools"), cookie: None }),
            "sign-in" | "sign-out" => return Ok(Answer::Go { to: ROOT.to_owned(), cookie: None }),
            path => match path.strip_prefix("servers/") {
                Some(name) => self.server(&frame, &status(), name).await?,
                None => return Err(Refusal::NothingHere),
            },
        };
        Ok(Answer::page(page))
    }

    async fn post(&self, parts: &Parts, body: Incoming) -> Result<Answer, Refusal> {
        Access::check_source(&parts.method, &parts.headers)?;
        let path = below(parts.uri.path());
        if path == "sign-in" {
            return Ok(self.sign_in(&Form::read(&parts.headers, body).await?));
        }
        self.access.check_token(&parts.headers)?;
        let form = Form::read(&parts.headers, body).await?;
        self.access.check_form(form.get(SECRET))?;
        if path == "sign-out" {
            return Ok(Answer::Go { to: ROOT.to_owned(), cookie: self.access.sign_out() });
        }
        if path == "call" {
            return self.call(&form).await;
        }
        let (server, operation) = path
            .strip_prefix("servers/")
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(server, word)| Some((server, Operation::of(word)?)))
            .ok_or(Refusal::NothingHere)?;
        self.operate(server, operation).await?;
        let to = if form.get("back") == Some("server") { server_path(server) } else { ROOT.to_owned() };
        Ok(Answer::Go { to, cookie: None })
    }

    fn frame(&self) -> Frame<'_> {
        Frame { secret: self.access.form_secret(), can_sign_out: self.access.has_token() }
    }

    fn refused(&self, refusal: &Refusal) -> Answer {
        debug!(%refusal, "refused");
        let markup = match refusal {
            Refusal::SignedOut => view::sign_in(false),
            refusal => view::refused(refusal),
        };
        Answer::Page { status: refusal.status(), markup, has_images: false }
    }

    fn sign_in(&self, form: &Form) -> Answer {
        match self.access.sign_in(form.get("token").unwrap_or_default()) {
            Some(cookie) => Answer::Go { to: ROOT.to_owned(), cookie: Some(cookie) },
            None if !self.access.has_token() => Answer::Go { to: ROOT.to_owned(), cookie: None },
            None => {
                warn!("somebody has tried to sign in to the page with a wrong token");
                let markup = view::sign_in(true);
                Answer::Page { status: StatusCode::UNAUTHORIZED, markup, has_images: false }
            }
        }
    }

    fn tool(&self, name: Option<&str>) -> Result<Tool, Refusal> {
        let name = name.unwrap_or_default();
        tools::one(&self.options.registry.catalogue(), name)
            .ok_or_else(|| Refusal::NotFound("there is no such tool, or it has gone a moment ago".to_owned()))
    }

    async fn server(&self, frame: &Frame<'_>, status: &Status, name: &str) -> Result<maud::Markup, Refusal> {
        let server = find_server(status, name)?;
        let wish = Wish { server: name, ..Wish::default() };
        let tools = tools::find(&self.options.registry.catalogue(), wish);
        let mut calls = calls::find(&self.options.calls, name, 1);
        calls.items.truncate(CALLS_OF_A_SERVER);
        let log = self.tail(log_name(name)).await?;
        Ok(view::server(frame, server, &tools, &calls, &log))
    }

    async fn log(&self, frame: &Frame<'_>, status: &Status, name: &str) -> Result<maud::Markup, Refusal> {
        if name != GATEWAY {
            // Also keeps paths out: what is found is the log of a server.
            let known = status.servers.iter().any(|server| log_name(&server.name) == name);
            known.then_some(()).ok_or_else(no_server)?;
        }
        let log = self.tail(name).await?;
        Ok(view::logs(frame, status, name, &log))
    }

    async fn tail(&self, name: &str) -> Result<log::Tail, Refusal> {
        let read = log::tail(&self.options.logs, name).await;
        read.map_err(|error| Refusal::Failed(format!("the log cannot be read: {error}")))
    }

    /// Calls a tool, and shows its form again with what came of it.
    async fn call(&self, form: &Form) -> Result<Answer, Refusal> {
        let tool = self.tool(form.get("tool"))?;
        let frame = self.frame();
        let mut filled = Filled::new(Fields::filled(&tool.input, form));
        let arguments = match form.get("json") {
            Some(text) => {
                filled.json = Some(text.to_owned());
                object(text).map_err(|mistake| filled.mistake = Some(mistake))
            }
            None => match filled.fields.arguments(&tool.input) {
                Ok(arguments) => Ok(serde_json::Value::Object(arguments).to_string()),
                Err(Mistakes(count)) => {
                    filled.mistake = Some(match count {
                        1 => "a value is wrong".to_owned(),
                        count => format!("{count} values are wrong"),
                    });
                    Err(())
                }
            },
        };
        let Ok(arguments) = arguments else {
            let markup = view::tool(&frame, &tool, &filled, None);
            return Ok(Answer::Page { status: StatusCode::BAD_REQUEST, markup, has_images: false });
        };
        let Called { outcome, took } = self.carry(tool.entry.name.clone(), arguments).await?;
        let outcome = outcome.map(|result| Shown::of(&result)).map_err(|error| error.to_string());
        let has_images = outcome.as_ref().is_ok_and(Shown::has_images);
        let markup = view::tool(&frame, &tool, &filled, Some((&outcome, took)));
        Ok(Answer::Page { status: StatusCode::OK, markup, has_images })
    }

    /// Makes the call in a task: when the browser goes away, the call is cancelled and its session closed in order.
    async fn carry(&self, tool: String, arguments: String) -> Result<Called, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let (aggregate, cancelled) = (Arc::clone(&self.options.aggregate), self.options.stop.child_token());
        let _cancel = cancelled.clone().drop_guard();
        let call = self.options.tracker.spawn(async move {
            let called = call::call(aggregate, &tool, &arguments, cancelled).await;
            drop(permit);
            called
        });
        call.await.map_err(|_| Refusal::Failed("the call was cut off".to_owned()))
    }

    /// Starts, stops or restarts a server, and waits for a while for the end of it.
    async fn operate(&self, server: &str, operation: Operation) -> Result<(), Refusal> {
        let (operator, name, stop) =
            (self.options.operator.clone(), server.to_owned(), self.options.stop.clone());
        let operating = self.options.tracker.spawn(stop.run_until_cancelled_owned(async move {
            match operation {
                Operation::Start => operator.start(&name).await,
                Operation::Stop => operator.stop(&name).await,
                Operation::Restart => operator.restart(&name).await,
            }
        }));
        match tokio::time::timeout(PATIENCE, operating).await {
            Ok(Ok(Some(Err(error @ OperateError::NotFound(_))))) => Err(Refusal::NotFound(chain(&error))),
            // Its state says so, and why, where the browser goes next.
            Ok(Ok(Some(Ok(_) | Err(OperateError::NotRunning { .. })))) | Err(_) => Ok(()),
            Ok(Ok(Some(Err(error)))) => Err(Refusal::Failed(chain(&error))),
            Ok(Ok(None) | Err(_)) => Err(Refusal::Failed(OperateError::Stopping.to_string())),
        }
    }
}

/// What can be done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Start,
    Stop,
    Restart,
}

impl Operation {
    fn of(word: &str) -> Option<Self> {
        [Self::Start, Self::Stop, Self::Restart].into_iter().find(|operation| operation.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    /// What there is to do to a server in this state.
    fn of_state(state: &str) -> &'static [Self] {
        match state {
            "stopped" | "disconnected" => &[Self::Start],
            // Nothing that runs, and nothing to write into.
            "invalid" | "unsupported" => &[],
            _ => &[Self::Restart, Self::Stop],
        }
    }
}

fn asset(kind: &'static str, text: &'static str) -> Answer {
    Answer::Asset { kind, text }
}

/// The address without its beginning: `/ui/tools` is `tools`.
fn below(path: &str) -> &str {
    path.strip_prefix(ROOT).unwrap_or_default().trim_start_matches('/')
}

fn find_server<'s>(status: &'s Status, name: &str) -> Result<&'s ServerEntry, Refusal> {
    let found = status.servers.iter().find(|server| server.name == name);
    found.ok_or_else(no_server)
}

fn no_server() -> Refusal {
    Refusal::NotFound("there is no server of this name".to_owned())
}

/// Where a server is shown; the start, for what is no server's name.
fn server_path(server: &str) -> String {
    match ServerName::from_str(server) {
        Ok(name) => format!("{ROOT}/servers/{name}"),
        Err(_) => ROOT.to_owned(),
    }
}

/// The text of a JSON object, as it was written; nothing stands for an empty one.
fn object(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok("{}".to_owned());
    }
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("this is no JSON object: {error}")),
    }
}
