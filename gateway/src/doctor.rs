//! Whether people can get in from outside, and what to do where they cannot.
//!
//! [`facts`] is what was seen, plain data; [`checks`] says what it means, without I/O; [`mod@gather`] looks, beside a gateway that
//! runs or not, with [`knock`] at its doors as a client would. Nobody is signed in and nothing is changed.

mod checks;
mod facts;
mod gather;
mod knock;

pub(crate) use self::{checks::check, gather::gather};
