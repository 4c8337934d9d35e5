//! Each flow of the device becomes a stream or a flow over the gateway's one connection, once the gateway has said yes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pomerium_shared::{
    destination::Destination,
    netstack::{
        Refusal,
        flows::{Driver, Flow, Flows as Opened, Opening, UdpFlow},
        settings::Settings,
    },
    reason::EndReason,
    relay::{self, Leg, RelayOptions},
    udp::{self, Local, Near},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    device::{self, Device},
    leads::{Lead, Leads},
    plan::{Carries, RESOLVER, RESOLVER_PORT},
};
use crate::{access::random, failure::Failure, forward::PATIENCE, link::answer, reach::Reach};

/// Packets that wait between the device and the stack, each way.
const PACKETS_WAITING: usize = 512;
/// Flows at a time; all come from this machine.
const FLOWS_MAX: usize = 4096;
/// Connections that wait for the gateway's word.
const HALF_OPEN_MAX: usize = 1024;
/// A flow of datagrams on which nothing moves for so long has ended (RFC 4787, 4.3, asks for two minutes at least).
const DATAGRAMS_IDLE: Duration = Duration::from_secs(300);

/// What the flows share.
#[derive(Debug, Clone)]
pub(crate) struct Flows {
    /// Where they lead now.
    pub(crate) leads: watch::Receiver<Arc<Leads>>,
    pub(crate) reach: Arc<Reach>,
    /// Owns what is open.
    pub(crate) open: TaskTracker,
    /// Cuts it.
    pub(crate) cut: CancellationToken,
}

impl Flows {
    /// Serves the device until it is gone.
    ///
    /// # Errors
    /// The device was taken away.
    pub(crate) async fn serve(self, device: Device, driver: Driver, mut opened: Opened) -> io::Result<()> {
        let (to_stack, incoming) = mpsc::channel(PACKETS_WAITING);
        let (outgoing, from_stack) = mpsc::channel(PACKETS_WAITING);
        let opening = async {
            while let Some(flow) = opened.next().await {
                self.begin(flow);
            }
        };
        tokio::select! {
            ended = device::carry(&device, to_stack, from_stack) => ended,
            () = driver.run(incoming, outgoing) => Ok(()),
            () = opening => Ok(()),
        }
    }

    fn begin(&self, flow: Flow) {
        match flow {
            Flow::Tcp(opening) => match self.way(Carries::Tcp, opening.destination()) {
                Some((to, lead)) => {
                    let of_route = lead.open.clone();
                    self.open.spawn(of_route.track_future(self.clone().connection(opening, to, lead)));
                }
                None => opening.refuse(Refusal::Reset),
            },
            Flow::Udp(flow) if flow.destination() == (IpAddr::from(RESOLVER), RESOLVER_PORT).into() => {
                _ = self.open.spawn(self.clone().questions(flow));
            }
            Flow::Udp(flow) => match self.way(Carries::Udp, flow.destination()) {
                Some((to, lead)) => {
                    let of_route = lead.open.clone();
                    self.open.spawn(of_route.track_future(self.clone().datagrams(flow, to, lead)));
                }
                None => flow.refuse(Refusal::Reset),
            },
        }
    }

    fn way(&self, carries: Carries, to: SocketAddr) -> Option<(Destination, Lead)> {
        self.leads.borrow().way(carries, to)
    }

    /// The reason to cut what is open to a route, once there is one: the device goes, or the gateway lists the route no more.
    async fn cut(&self, lead: &Lead) -> EndReason {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => EndReason::Shutdown,
            () = lead.gone.cancelled() => EndReason::Policy,
        }
    }

    /// The life of one connection: the program's SYN is answered when the gateway has opened the stream.
    async fn connection(self, opening: Opening, to: Destination, lead: Lead) {
        let seen = &lead.seen;
        seen.began();
        let opened = tokio::select! {
            biased;
            reason = self.cut(&lead) => {
                opening.refuse(Refusal::Reset);
                return seen.ended(0, 0, &format!("stream ended: {reason}"));
            }
            opened = self.reach.connect_patiently(&to, PATIENCE) => opened,
        };
        let app = match opened {
            Ok(app) => app,
            Err(failure) => {
                opening.refuse(said_no(&failure));
                return seen.ended(0, 0, &crate::exit::message(&failure));
            }
        };
        let Ok(program) = opening.accept() else {
            return seen.ended(0, 0, "the program did not wait for its connection");
        };
        let (reader, writer) = tokio::io::split(program);
        let (program, options, counters) =
            (Leg::io(reader, writer), RelayOptions::default(), seen.counters());
        let end = relay::run_counted(program, app, options, self.cut(&lead), &counters).await;
        let (up, down) = (end.bytes_from_client, end.bytes_from_app);
        seen.ended(up, down, &format!("stream ended: {} ({up} B up, {down} B down)", end.reason));
    }

    /// The life of one flow of datagrams.
    async fn datagrams(self, flow: UdpFlow, to: Destination, lead: Lead) {
        let seen = &lead.seen;
        seen.began();
        let opened = tokio::select! {
            biased;
            reason = self.cut(&lead) => return seen.ended(0, 0, &format!("flow ended: {reason}")),
            opened = self.reach.own().connect_udp(&to) => opened,
        };
        match opened {
            Ok(carriage) => {
                let options = RelayOptions { idle: Some(DATAGRAMS_IDLE) };
                let (local, cut, counters) = (Local::Flow(flow), self.cut(&lead), seen.counters());
                let end = udp::run_counted(carriage, local, Near::Client, options, cut, &counters).await;
                let (up, down) = (end.bytes_from_client, end.bytes_from_app);
                seen.ended(up, down, &format!("flow ended: {} ({up} B up, {down} B down)", end.reason));
            }
            Err(failure) => {
                flow.refuse(said_no(&failure));
                seen.ended(0, 0, &crate::exit::message(&failure));
            }
        }
    }

    /// A program's questions for names.
    async fn questions(self, mut flow: UdpFlow) {
        loop {
            let question = tokio::select! {
                biased;
                () = self.cut.cancelled() => return,
                question = flow.recv() => question,
            };
            let Some(question) = question else { return };
            let answer = self.leads.borrow().plan().answer(&question);
            if let Some(answer) = answer {
                // Lost, as datagrams are; the resolver asks again.
                _ = flow.send(&answer);
            }
        }
    }
}

/// All flows come from this machine, and wait for the same gateway.
pub(super) fn settings() -> Settings {
    let seed = (0..4).fold(0, |seed, _| seed << 16 | u64::from(random()));
    Settings {
        mtu: usize::from(device::MTU),
        own: vec![RESOLVER.into()],
        flows_max: FLOWS_MAX,
        flows_per_source_max: FLOWS_MAX,
        half_open_max: HALF_OPEN_MAX,
        half_open_per_source_max: HALF_OPEN_MAX,
        ..Settings::new(seed)
    }
}

/// How the program hears that there is no connection: policy's no is another one than an app that is down.
fn said_no(failure: &Failure) -> Refusal {
    match failure {
        Failure::Refused { refusal, .. } if refusal.verdict == answer::Verdict::Denied => Refusal::Prohibited,
        _ => Refusal::Reset,
    }
}
