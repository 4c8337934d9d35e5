//! The loop of a flow: payloads both ways until its stream ends, the local end fails, or somebody cuts it.

use bytes::{Bytes, BytesMut};

use super::{
    Local,
    capsule::{self, CapsuleReader},
    datagrams::Flow,
};
use crate::{
    reason::EndReason,
    relay::{Counters, Leg, Progress, RelayEnd, RelayOptions, Side, Sink, Source},
};

/// What carries a flow: its request's stream and, on QUIC, the connection's DATAGRAM frames.
#[derive(Debug)]
pub struct Carriage {
    /// The stream, on which capsules go.
    pub stream: Leg,
    /// The frames; `None` over TCP.
    pub flow: Option<Flow>,
}

/// Carries payloads both ways; `near` says on which side the local end is. Ends with the stream, when the local end fails,
/// when nothing moved for too long, or when `cut` says why; the peer is told as for a byte stream.
pub async fn run(
    carriage: Carriage,
    local: Local,
    near: Near,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
) -> RelayEnd {
    run_counted(carriage, local, near, options, cut, &Counters::default()).await
}

/// [`run`], which counts what it carries while it goes on.
pub async fn run_counted(
    carriage: Carriage,
    mut local: Local,
    near: Near,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
    counters: &Counters,
) -> RelayEnd {
    let Carriage { mut stream, mut flow } = carriage;
    let progress = Progress::new(counters);
    let reason = {
        let work = carry(stream.halves(), &mut flow, &mut local, near, &progress);
        tokio::select! {
            // A revocation goes before the next payload.
            biased;
            reason = cut => reason,
            () = progress.idle_for(options.idle) => EndReason::Idle,
            reason = work => reason,
        }
    };
    stream.abort(reason);
    progress.end(reason)
}

/// Carries datagrams between two ends that both speak UDP: a flow that came out of packets, and the app. Ends when one of them
/// fails, when nothing moved for too long, or when `cut` says why.
pub async fn between(
    mut client: Local,
    mut app: Local,
    options: RelayOptions,
    cut: impl Future<Output = EndReason>,
) -> RelayEnd {
    let counters = Counters::default();
    let progress = Progress::new(&counters);
    let (mut upward, mut downward) = (BytesMut::new(), BytesMut::new());
    let work = async {
        loop {
            tokio::select! {
                payload = client.recv(&mut upward) => {
                    let Ok(payload) = payload else { return EndReason::Client };
                    count(Side::Client, &payload, &progress);
                    if app.send(&payload).is_err() {
                        return EndReason::App;
                    }
                }
                payload = app.recv(&mut downward) => {
                    let Ok(payload) = payload else { return EndReason::App };
                    count(Side::App, &payload, &progress);
                    if client.send(&payload).is_err() {
                        return EndReason::Client;
                    }
                }
            }
        }
    };
    let reason = tokio::select! {
        // A revocation goes before the next payload.
        biased;
        reason = cut => reason,
        () = progress.idle_for(options.idle) => EndReason::Idle,
        reason = work => reason,
    };
    progress.end(reason)
}

/// Which side speaks UDP itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// The program of the person: we are the client.
    Client,
    /// The app: we are the gateway.
    App,
}

impl Near {
    const fn side(self) -> Side {
        match self {
            Self::Client => Side::Client,
            Self::App => Side::App,
        }
    }

    const fn far(self) -> Side {
        match self {
            Self::Client => Side::App,
            Self::App => Side::Client,
        }
    }

    const fn ended(self) -> EndReason {
        match self {
            Self::Client => EndReason::Client,
            Self::App => EndReason::App,
        }
    }

    const fn far_ended(self) -> EndReason {
        match self {
            Self::Client => EndReason::App,
            Self::App => EndReason::Client,
        }
    }
}

async fn carry(
    (source, sink): (&mut Source, &mut Sink),
    flow: &mut Option<Flow>,
    local: &mut Local,
    near: Near,
    progress: &Progress<'_>,
) -> EndReason {
    let (outward, inward) = (near.side(), near.far());
    let (mut capsules, mut buffer) = (CapsuleReader::default(), BytesMut::new());
    loop {
        tokio::select! {
            payload = local.recv(&mut buffer) => {
                let Ok(payload) = payload else { return near.ended() };
                count(outward, &payload, progress);
                let too_long = match flow {
                    Some(flow) => flow.send(payload).err(),
                    None => Some(payload),
                };
                if let Some(payload) = too_long
                    && let Err(error) = sink.write(&mut capsule::datagram(&payload)).await
                {
                    return error.reason(near.far());
                }
            }
            payload = arrived(flow) => {
                let Some(payload) = payload else { return EndReason::Network };
                count(inward, &payload, progress);
                if local.send(&payload).is_err() {
                    return near.ended();
                }
            }
            batch = source.read() => {
                match batch {
                    Ok(Some(batch)) => capsules.push(batch),
                    Ok(None) if capsules.finish().is_ok() => return near.far_ended(),
                    Ok(None) => return EndReason::Network,
                    Err(error) => return error.reason(near.far()),
                }
                loop {
                    match capsules.next_payload() {
                        Ok(Some(payload)) => {
                            count(inward, &payload, progress);
                            if local.send(&payload).is_err() {
                                return near.ended();
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(%error, "a flow of datagrams was cut");
                            return EndReason::Network;
                        }
                    }
                }
            }
        }
    }
}

async fn arrived(flow: &mut Option<Flow>) -> Option<Bytes> {
    match flow {
        Some(flow) => flow.recv().await,
        None => std::future::pending().await,
    }
}

fn count(from: Side, payload: &Bytes, progress: &Progress<'_>) {
    progress.moved(from, payload.len() as u64);
}
