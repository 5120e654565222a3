//! The page as HTML. One function a page, each from values to markup; what is written here is escaped by the templates.

mod calls;
mod frame;
mod gateway;
mod log;
mod overview;
mod parts;
mod server;
mod sign_in;
mod tool;
mod tools;

pub(super) use self::calls::calls;
pub(super) use self::frame::Frame;
pub(super) use self::gateway::gateway;
pub(super) use self::log::logs;
pub(super) use self::overview::overview;
pub(super) use self::server::server;
pub(super) use self::sign_in::{refused, sign_in};
pub(super) use self::tool::{Filled, tool};
pub(super) use self::tools::tools;
