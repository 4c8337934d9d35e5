//! How a command speaks to the daemon of the same person: JSON lines over a Unix socket (`docs/local-api.md`).
//!
//! [`wire`] has the messages, [`frames`] carries a stream on the same connection, [`socket`] says where the socket is and who
//! may speak on it, [`caller`] is a command's end. The daemon's end is `daemon`.

pub(crate) mod caller;
pub(crate) mod frames;
pub(crate) mod socket;
pub(crate) mod wire;
