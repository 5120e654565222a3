//! What one server brings into the catalogue, and where requests for it go.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;

use super::link::Link;
use super::offer::Offer;
use crate::mcpserver::Family;

/// What one server brings into the catalogue.
#[derive(Clone, Debug)]
pub struct Member {
    /// What stands for the server in exposed names.
    pub prefix: String,
    /// The way to the server.
    pub link: Arc<Link>,
    /// What it offers.
    pub offer: Arc<Offer>,
    /// The servers that it shares its tools with.
    pub family: Option<Family>,
}

/// Where a request for something exposed goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The way to the server.
    pub link: Arc<Link>,
    /// What it is called there.
    pub key: ByteString,
}

/// Where calls of a tool go that several servers share.
#[derive(Debug)]
pub struct SharedTool {
    /// The argument that says which server is meant.
    pub argument: String,
    /// The servers, by what the argument says.
    pub members: BTreeMap<String, Arc<Target>>,
}
