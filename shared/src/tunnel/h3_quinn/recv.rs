//! The receiving half: many chunks are taken from quinn under one lock, and handed on one by one.

use std::{
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h3::{
    error::Code,
    quic::{self, StreamErrorIncoming},
};
use quinn::{ReadError, VarInt};

use super::{error_code, frames::FrameScanner, stream_error, stream_id};
use crate::tunnel::Chunks;

/// Chunks taken from quinn at a time: at a packet's 1,200 to 1,450 bytes each, some 90 KiB.
const CHUNKS_PER_READ: usize = 64;

/// The receiving half of a stream. Dropping it before its end tells the peer to stop.
#[derive(Debug)]
pub struct RecvStream {
    quic: quinn::RecvStream,
    queue: Chunks,
    scanner: FrameScanner,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Finished,
    Reset(VarInt),
    Lost(quinn::ConnectionError),
    /// The peer broke a rule, or we stopped reading.
    Stopped(Code),
}

impl RecvStream {
    pub(super) fn request(quic: quinn::RecvStream) -> Self {
        Self::new(quic, FrameScanner::Header)
    }

    pub(super) fn one_way(quic: quinn::RecvStream) -> Self {
        Self::new(quic, FrameScanner::StreamType)
    }

    fn new(quic: quinn::RecvStream, scanner: FrameScanner) -> Self {
        Self { quic, queue: Chunks::default(), scanner, end: None }
    }

    fn stop(&mut self, code: Code) {
        // An error says that the stream is over already, which is all that is wanted.
        let _ = self.quic.stop(error_code(code.value()));
        self.end.get_or_insert(End::Stopped(code));
    }

    fn ended(&self, end: &End) -> Result<Option<Bytes>, StreamErrorIncoming> {
        match end {
            End::Finished if self.scanner.may_end(&self.queue) => Ok(None),
            // Bytes are missing: an end in the middle must not look like one.
            End::Finished => {
                Err(StreamErrorIncoming::StreamTerminated { error_code: Code::H3_FRAME_ERROR.value() })
            }
            End::Reset(code) => Err(StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }),
            End::Lost(error) => Err(stream_error(error.clone())),
            End::Stopped(code) => Err(StreamErrorIncoming::StreamTerminated { error_code: code.value() }),
        }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Self::Buf>, StreamErrorIncoming>> {
        loop {
            match self.scanner.next(&mut self.queue) {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(_too_long) => self.stop(Code::H3_EXCESSIVE_LOAD),
            }
            if let Some(end) = &self.end {
                return Poll::Ready(self.ended(end));
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS_PER_READ];
            let read = ready!(pin!(self.quic.read_chunks(&mut chunks)).poll(cx));
            match read {
                Ok(Some(count)) => chunks.into_iter().take(count).for_each(|chunk| self.queue.push(chunk)),
                Ok(None) => self.end = Some(End::Finished),
                Err(ReadError::Reset(code)) => self.end = Some(End::Reset(code)),
                Err(ReadError::ConnectionLost(error)) => self.end = Some(End::Lost(error)),
                Err(ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
                    self.end = Some(End::Stopped(Code::H3_REQUEST_CANCELLED));
                }
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.stop(Code::from(error_code));
    }

    fn recv_id(&self) -> quic::StreamId {
        stream_id(self.quic.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        // quinn would send the code 0, which HTTP/3 does not know; a stream left unread is no fault (RFC 9114, 4.1).
        if self.end.is_none() {
            self.stop(Code::H3_NO_ERROR);
        }
    }
}
