//! What is in the way between this machine and a gateway, and what to do about it.
//!
//! [`facts`] is what was seen, plain data; [`checks`] says what it means, without I/O; [`mod@gather`] looks. A finding is for a
//! person who has never heard of QUIC: what is wrong, and the next step.

mod certificate;
mod checks;
pub(crate) mod facts;
mod gather;
mod system;

pub(crate) use self::{checks::check, gather::gather};
