//! The tree of a document.

use super::Position;
use super::scalar::Resolved;

/// A node and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar {
        text: String,
        resolved: Resolved,
    },
    List(Vec<Node>),
    /// Keys are unique and in the order of the file.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) text: String,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Scalar { resolved: Resolved::Null, .. })
    }

    /// What the node is, for "expected …, found …". Never its value, which may be a secret.
    pub(super) fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { resolved, .. } => match resolved {
                Resolved::Null => "nothing",
                Resolved::Bool(_) => "true or false",
                Resolved::Integer(_) | Resolved::Float(_) => "a number",
                Resolved::Text => "text",
            },
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// Nodes and bytes of text in this tree: what a copy of it costs.
    pub(super) fn weight(&self) -> Weight {
        let mut weight = Weight { nodes: 1, bytes: 0 };
        match &self.kind {
            Kind::Scalar { text, .. } => weight.bytes = text.len(),
            Kind::List(items) => items.iter().for_each(|item| weight.add(item.weight())),
            Kind::Map(entries) => entries.iter().for_each(|(key, value)| {
                weight.bytes += key.text.len();
                weight.add(value.weight());
            }),
        }
        weight
    }

    /// Collections standing in each other, this one included.
    pub(super) fn depth(&self) -> usize {
        match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub(super) nodes: usize,
    pub(super) bytes: usize,
}

impl Weight {
    pub(super) fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
}
