//! One YAML file becomes [`Settings`], or a list of errors that point at the text.
//!
//! Two steps: the file's tree with places ([`crate::yaml`]), then [`Settings`], which is what is meant. Below
//! `Settings` nobody sees a raw string that should be something better.

mod settings;

pub use settings::*;
