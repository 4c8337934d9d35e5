//! Opens what a peer's octets come to for the fuzz targets (`tests/fuzz`); built with `--cfg fuzzing` alone.

use bytes::{Buf as _, Bytes};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Budget, frames::Reader, pipe::Batch, state::State};
use crate::tunnel::Chunks;

/// Lets an end hear what a peer says over one leg, in pieces of a length; says how many octets came of it. With `is_later`, it
/// is not the first leg.
///
/// # Panics
/// What came and what was counted differ, or what was never sent is taken for confirmed.
#[must_use]
pub fn hear(said: &[u8], piece_len: usize, is_later: bool) -> u64 {
    const SENT: &[u8] = &[7; 40];
    let mut state = State::new(Budget::new(30), Instant::now());
    let (mut reader, standing) = (Reader::default(), CancellationToken::new());
    if !is_later {
        standing.cancel();
    }
    let mut came = 0;
    let mut is_over = false;
    for piece in said.chunks(piece_len.max(1)) {
        let _is_kept = state.add(&mut Bytes::from_static(SENT).into());
        let _sent = state.next(Instant::now());
        let mut batch = Batch { octets: Chunks::default(), is_last: false };
        let taken = reader.take(Bytes::copy_from_slice(piece), |frame| {
            is_over |= is_over || state.take(frame, &mut batch, &standing).is_some();
        });
        came += batch.octets.remaining() as u64;
        if is_over || taken.is_err() {
            break;
        }
    }
    assert_eq!(state.received, came + u64::from(state.peer_ended));
    came
}
