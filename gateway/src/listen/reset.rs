//! How a gateway that was started again tells clients that their connections are gone: by stateless resets (RFC 9000,
//! 10.3), which only who holds the old process's key can make.

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use quinn_proto::HashedConnectionIdGenerator;

use crate::secret::Secret;

/// What the keys are for; nothing else is made from the shared secret with these words.
const PURPOSE: &[u8] = b"pomerium-gateway quic stateless reset";

/// The settings of an endpoint whose keys are the same each time that this host listens at this address.
///
/// Another host of the same installation has others: were they the same, a stray packet sent to it would make it reset a
/// connection that lives here (RFC 9000, 21.11).
pub(super) fn endpoint_config(
    shared: &Secret<[u8; 32]>,
    host: &str,
    address: SocketAddr,
) -> quinn::EndpointConfig {
    let key = derive(shared, host, address);
    let mut config = quinn::EndpointConfig::new(Arc::new(hmac::Key::new(HMAC_SHA256, &key[8..])));
    // The old process's connection ids must be known for what they are.
    let ids = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn derive(shared: &Secret<[u8; 32]>, host: &str, address: SocketAddr) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, shared.expose()));
    for part in [PURPOSE, host.as_bytes(), address.to_string().as_bytes()] {
        context.update(part);
        context.update(&[0]);
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.sign().as_ref());
    key
}

/// This host's name; empty where the system does not say, which keeps the keys the same all the same.
pub(super) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_a_restart_and_are_shared_with_nobody() {
        let (secret, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let at: SocketAddr = ([127, 0, 0, 1], 443).into();
        let key = derive(&secret, "a", at);
        assert_eq!(key, derive(&secret, "a", at));
        assert_ne!(key, derive(&other, "a", at));
        assert_ne!(key, derive(&secret, "b", at));
        assert_ne!(key, derive(&secret, "a", ([127, 0, 0, 1], 444).into()));
    }
}
