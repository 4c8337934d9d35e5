//! Text to tree, over the parser's events and without recursion.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::{Entry, Node, Position, Value, scalar};

/// Bytes of a text at most: a thousand times the largest config seen in the field.
pub const TEXT_LEN_MAX: usize = 10 * 1024 * 1024;
/// Nested lists and mappings at most; whoever walks a tree may recurse.
pub const DEPTH_MAX: usize = 64;
/// Nodes of a tree at most.
pub const NODES_MAX: usize = 1_000_000;

/// Why a text is no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// The text is longer than [`TEXT_LEN_MAX`].
    #[error("the text is larger than 10 MiB")]
    TooLong,
    /// Not YAML at all.
    #[error("this is not valid YAML: {message}")]
    Syntax {
        /// Where the parser stopped.
        at: Position,
        /// In the parser's words.
        message: String,
    },
    /// A mapping has the same key twice.
    #[error("the key \"{key}\" is already set in line {}", .first.line)]
    DuplicateKey {
        /// The second one.
        at: Position,
        /// The key.
        key: String,
        /// The first one.
        first: Position,
    },
    /// A list or mapping as a key.
    #[error("a key must be a plain text, not a list or mapping")]
    KeyNotScalar {
        /// Where the key begins.
        at: Position,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("lists and mappings are nested more than 64 deep")]
    TooDeep {
        /// The first node too deep.
        at: Position,
    },
    /// More than [`NODES_MAX`].
    #[error("there are more than 1000000 values")]
    TooManyNodes {
        /// The first node too many.
        at: Position,
    },
    /// An anchor, an alias, or a tag.
    #[error("{what} are not supported: write the value out")]
    NotSupported {
        /// Where it stands.
        at: Position,
        /// What it is, in the plural.
        what: &'static str,
    },
    /// A second `---` document.
    #[error("a second document begins here; only one is read")]
    SeveralDocuments {
        /// Where it begins.
        at: Position,
    },
}

impl YamlError {
    /// Where in the text, if it is about a place.
    #[must_use]
    pub const fn at(&self) -> Option<Position> {
        match self {
            Self::TooLong => None,
            Self::Syntax { at, .. }
            | Self::DuplicateKey { at, .. }
            | Self::KeyNotScalar { at }
            | Self::TooDeep { at }
            | Self::TooManyNodes { at }
            | Self::NotSupported { at, .. }
            | Self::SeveralDocuments { at } => Some(*at),
        }
    }
}

/// Reads one YAML document; an empty text is [`Value::Null`].
///
/// Limits: [`TEXT_LEN_MAX`], [`DEPTH_MAX`], [`NODES_MAX`].
///
/// # Errors
/// Any [`YamlError`]; the first one ends the reading.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(YamlError::TooLong);
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.take(event, span)?;
    }
    let nothing = Node { at: Position { line: 1, column: 1 }, value: Value::Null };
    Ok(builder.root.unwrap_or(nothing))
}

fn syntax(error: &ScanError) -> YamlError {
    let at = position(error.marker());
    // An alias without its anchor is the parser's error; it is an alias all the same.
    if error.info().contains("unknown anchor") {
        return YamlError::NotSupported { at, what: "aliases" };
    }
    YamlError::Syntax { at, message: error.info().to_owned() }
}

fn position(marker: &Marker) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: count(marker.line()), column: count(marker.col()).saturating_add(1) }
}

/// A list or mapping whose end has not come yet.
enum Open {
    List { at: Position, items: Vec<Node> },
    Map { at: Position, entries: Vec<Entry>, seen: BTreeSet<String>, key: Option<(String, Position)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let at = position(&span.start);
        let refuse = |what| Err(YamlError::NotSupported { at, what });
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err(YamlError::SeveralDocuments { at }) } else { Ok(()) }
            }
            Event::Alias(_) => refuse("aliases"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse("anchors")
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse("tags"),
            Event::Scalar(text, style, ..) => self.scalar(&text, style, at),
            Event::SequenceStart(..) => self.begin(Open::List { at, items: Vec::new() }, at),
            Event::MappingStart(..) => {
                self.begin(Open::Map { at, entries: Vec::new(), seen: BTreeSet::new(), key: None }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, items }) => self.place(Node { at, value: Value::List(items) }),
                Some(Open::Map { at, entries, .. }) => self.place(Node { at, value: Value::Map(entries) }),
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Position) -> Result<(), YamlError> {
        self.count(at)?;
        if let Some(Open::Map { entries, seen, key: key @ None, .. }) = self.open.last_mut() {
            if !seen.insert(text.to_owned()) {
                let first = entries.iter().find(|entry| entry.key == text).map_or(at, |entry| entry.at);
                return Err(YamlError::DuplicateKey { at, key: text.to_owned(), first });
            }
            *key = Some((text.to_owned(), at));
            return Ok(());
        }
        let value = match style {
            ScalarStyle::Plain => scalar::resolve(text),
            ScalarStyle::SingleQuoted
            | ScalarStyle::DoubleQuoted
            | ScalarStyle::Literal
            | ScalarStyle::Folded => Value::String(text.to_owned()),
        };
        self.place(Node { at, value })
    }

    fn begin(&mut self, open: Open, at: Position) -> Result<(), YamlError> {
        self.count(at)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(YamlError::TooDeep { at });
        }
        if matches!(self.open.last(), Some(Open::Map { key: None, .. })) {
            return Err(YamlError::KeyNotScalar { at });
        }
        self.open.push(open);
        Ok(())
    }

    fn count(&mut self, at: Position) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err(YamlError::TooManyNodes { at }) } else { Ok(()) }
    }

    fn place(&mut self, node: Node) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => return Err(YamlError::KeyNotScalar { at: node.at }),
            },
        }
        Ok(())
    }
}
