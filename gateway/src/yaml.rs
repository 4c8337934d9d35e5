//! YAML as a tree in which every node knows its line and column.
//!
//! Config and policy are both read through it, so that every message can point at the text. Duplicate keys, too
//! deep or too many nodes, anchors, aliases and tags are errors here, once for everyone. What a key means is not
//! known here.

mod parse;
mod scalar;
#[cfg(test)]
mod tests;

use std::fmt;

pub use parse::{DEPTH_MAX, NODES_MAX, TEXT_LEN_MAX, YamlError, parse};

/// Where a node begins in its file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One node and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the node begins.
    pub at: Position,
    /// What it holds.
    pub value: Value,
}

/// What a node holds, by the YAML 1.2 core schema.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, each key once.
    Map(Vec<Entry>),
}

impl Value {
    /// What kind of value this is, in words for a message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::String(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// The value.
    pub value: Node,
}
