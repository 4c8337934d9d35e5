//! The shell: streams and flows under a real runtime.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::netstack::flows::{Flow, Flows, netstack};

/// A driver with a client at its other end, both run by `tasks`.
fn running(tasks: &mut JoinSet<()>, connect: u16) -> (Flows, mpsc::Receiver<tcp::State>) {
    let (driver, flows) = netstack(stack(settings(), beginning()));
    let (to_stack, incoming) = mpsc::channel::<Bytes>(64);
    let (outgoing, mut from_stack) = mpsc::channel::<Bytes>(64);
    let (states, seen) = mpsc::channel(16);
    tasks.spawn(driver.run(incoming, outgoing));
    tasks.spawn(async move {
        let mut client = Client::new(beginning());
        let handle = client.connect(SocketAddr::new(APP, 22), connect);
        let mut last = client.socket(handle).state();
        let mut echoed = false;
        loop {
            client.poll(beginning());
            // Sends back what it gets, and ends when the other side does.
            let socket = client.socket(handle);
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let octets = socket
                    .recv(|come| (come.len().min(room), come[..come.len().min(room)].to_vec()))
                    .unwrap();
                socket.send_slice(&octets).unwrap();
                echoed = true;
            }
            if echoed && socket.state() == tcp::State::CloseWait && !socket.can_recv() {
                socket.close();
            }
            let state = socket.state();
            if state != std::mem::replace(&mut last, state) {
                // Nobody has to look.
                let _ = states.try_send(state);
            }
            client.poll(beginning());
            while let Some(packet) = client.link.outgoing.pop_front() {
                // A full wire loses packets.
                drop(to_stack.try_send(packet.into()));
            }
            match timeout(Duration::from_millis(2), from_stack.recv()).await {
                Ok(Some(packet)) => client.link.incoming.push_back(packet.to_vec()),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    });
    (flows, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_a_megabyte_there_and_back() {
    let mut tasks = JoinSet::new();
    let (mut flows, _states) = running(&mut tasks, 40_000);
    let Some(Flow::Tcp(opening)) = flows.next().await else { panic!("no connection") };
    assert_eq!((opening.source().ip(), opening.destination()), (CLIENT, SocketAddr::new(APP, 22)));
    let (mut read, mut write) = tokio::io::split(opening.accept().unwrap());
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let expected = sent.clone();
    tasks.spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut come = Vec::new();
    read.read_to_end(&mut come).await.unwrap();
    assert!(come == expected, "{} octets came back", come.len());
}

#[tokio::test]
async fn an_opening_that_is_dropped_is_refused() {
    let mut tasks = JoinSet::new();
    let (mut flows, mut states) = running(&mut tasks, 40_000);
    drop(flows.next().await);
    assert_eq!(states.recv().await, Some(tcp::State::Closed));
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_cut_for_the_peer() {
    let mut tasks = JoinSet::new();
    let (mut flows, mut states) = running(&mut tasks, 40_000);
    let Some(Flow::Tcp(opening)) = flows.next().await else { panic!("no connection") };
    let stream = opening.accept().unwrap();
    assert_eq!(states.recv().await, Some(tcp::State::Established));
    drop(stream);
    assert_eq!(states.recv().await, Some(tcp::State::Closed));
}

#[tokio::test]
async fn without_its_driver_a_stream_fails_and_does_not_end() {
    let mut tasks = JoinSet::new();
    let (mut flows, mut states) = running(&mut tasks, 40_000);
    let Some(Flow::Tcp(opening)) = flows.next().await else { panic!("no connection") };
    let mut stream = opening.accept().unwrap();
    assert_eq!(states.recv().await, Some(tcp::State::Established));
    let reading = async { stream.read_u8().await.unwrap_err().kind() };
    let (kind, ()) = tokio::join!(reading, tasks.shutdown());
    assert_eq!(kind, std::io::ErrorKind::ConnectionAborted);
    assert!(flows.next().await.is_none());
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let (driver, mut flows) = netstack(stack(settings(), beginning()));
    let (to_stack, incoming) = mpsc::channel(8);
    let (outgoing, mut from_stack) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.run(incoming, outgoing));
    to_stack.send(bad_packets::udp(5000, b"ping").into()).await.unwrap();
    let Some(Flow::Udp(mut flow)) = flows.next().await else { panic!("no flow") };
    assert_eq!(flow.recv().await.as_deref(), Some(&b"ping"[..]));
    flow.send(b"pong").unwrap();
    assert!(from_stack.recv().await.unwrap().ends_with(b"pong"));
    flow.refuse(Refusal::Prohibited);
    assert_eq!(from_stack.recv().await.unwrap()[20..22], [3, 13]);
}
