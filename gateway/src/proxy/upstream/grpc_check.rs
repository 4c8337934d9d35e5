//! The messages of gRPC's health checking protocol (`grpc.health.v1.Health/Check`), each in a frame of its own. No I/O.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Where every gRPC server answers it.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// Octets of an answer at most: it is one number.
pub(super) const ANSWER_LEN_MAX: usize = 1024;

/// Octets before a message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

#[derive(Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks how a service is; the empty name stands for the whole server.
pub(super) fn question(service: &str) -> Bytes {
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX_LEN + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// Whether this is one whole answer that says that the service is well.
pub(super) fn is_serving(answer: &[u8]) -> bool {
    let Some((prefix, message)) = answer.split_at_checked(PREFIX_LEN) else { return false };
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    prefix[0] == 0
        && prefix[1..] == len
        && HealthCheckResponse::decode(message).is_ok_and(|answer| answer.status == SERVING)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_messages_are_those_of_the_protocol() {
        assert_eq!(question(""), [0, 0, 0, 0, 0].as_slice());
        assert_eq!(question("db"), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b'].as_slice());
        assert!(is_serving(&[0, 0, 0, 0, 2, 0x08, 1]));
        for bad in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 0x08, 0],
            &[0, 0, 0, 0, 2, 0x08, 2],
            &[1, 0, 0, 0, 2, 0x08, 1],
            &[0, 0, 0, 0, 3, 0x08, 1],
            &[0, 0, 0, 0, 2, 0x08, 1, 0],
        ] {
            assert!(!is_serving(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read(octets in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = is_serving(&octets);
        }
    }
}
