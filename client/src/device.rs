//! This machine towards the gateway: its key, and what it says of itself.
//!
//! Who the person is and what they may do is not known here; nothing here speaks to the network.

pub(crate) mod key;
pub(crate) mod posture;
