//! The TUN device: made, given its addresses and routes by `ip`, and gone with the process.

use std::{fmt::Write as _, io, process::Stdio};

use bytes::{Bytes, BytesMut};
use pomerium_shared::names::Addresses;
use tokio::{
    io::{AsyncWriteExt as _, Interest, unix::AsyncFd},
    process::Command,
    sync::mpsc,
};

use super::{
    TunError,
    plan::{DEVICE_V4, DEVICE_V6, Plan, RESOLVER},
    privilege,
};

/// What the device is called.
pub(crate) const NAME: &str = "pomerium0";

/// Octets of a packet at most: what every link carries (RFC 8200, 5), so that nothing is lost where IPv6 is.
pub(crate) const MTU: u16 = 1420;

/// The device. One that is taken away is noticed at once: the kernel calls it an error and nothing else, which the crate's own
/// asynchronous device does not wait for.
pub(crate) struct Device(AsyncFd<tun::Device>);

impl Device {
    #[expect(
        deprecated,
        reason = "what takes its place is an unsafe function; the device owns the descriptor that it names for as long as it lives"
    )]
    fn new(device: tun::Device) -> io::Result<Self> {
        device.set_nonblock()?;
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        AsyncFd::with_interest(device, interest).map(Self)
    }

    /// The next packet's length. Cancel-safe.
    async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(read) = ready.try_io(|device| device.get_ref().recv(into)) {
                return read;
            }
        }
    }

    /// Gives it a packet. Cancel-safe.
    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.0.ready(Interest::WRITABLE | Interest::ERROR).await?;
            if let Ok(sent) = ready.try_io(|device| device.get_ref().send(packet)) {
                return sent.map(drop);
            }
        }
    }
}

/// Opens the device, and has the kernel send it what is for the plan's addresses.
pub(crate) async fn open(plan: &Plan) -> Result<Device, TunError> {
    let mut wanted = tun::Configuration::default();
    wanted.tun_name(NAME).mtu(MTU);
    wanted.platform_config(|linux| _ = linux.ensure_root_privileges(false));
    let failed = |source| TunError::Device { name: NAME, source };
    let device = tun::create(&wanted).map_err(failed)?;
    let device = Device::new(device).map_err(|error| failed(error.into()))?;
    ip(&[], &commands(plan)).await?;
    Ok(device)
}

/// What `ip -batch` is told. Each host by itself: other addresses of the same networks may be somebody else's.
fn commands(plan: &Plan) -> String {
    let mut text = format!(
        "addr add {DEVICE_V4}/32 dev {NAME}\naddr add {DEVICE_V6}/128 dev {NAME} nodad\nlink set {NAME} up\n\
         route add {RESOLVER}/32 dev {NAME}\n"
    );
    text.push_str(&routes("add", plan.addresses()));
    text
}

/// Has the kernel send the device what is for these addresses, too.
pub(crate) async fn capture(more: &[Addresses]) -> Result<(), TunError> {
    // One that is there already is left from a time when not all could be done.
    if more.is_empty() { Ok(()) } else { ip(&[], &routes("replace", more.iter().copied())).await }
}

/// Has it send the device what is for these no more.
pub(crate) async fn release(gone: &[Addresses]) -> Result<(), TunError> {
    // One that somebody else has taken away keeps no other from it.
    if gone.is_empty() { Ok(()) } else { ip(&["-force"], &routes("del", gone.iter().copied())).await }
}

fn routes(verb: &str, all: impl Iterator<Item = Addresses>) -> String {
    let mut text = String::new();
    for Addresses { v4, v6 } in all {
        // Writing to a `String` does not fail.
        _ = writeln!(text, "route {verb} {v4}/32 dev {NAME}\nroute {verb} {v6}/128 dev {NAME}");
    }
    text
}

async fn ip(how: &[&str], commands: &str) -> Result<(), TunError> {
    let mut command = Command::new("ip");
    command
        .args(how)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mut running = privilege::lend(|| command.spawn()).map_err(TunError::NoIp)?;
    if let Some(mut input) = running.stdin.take() {
        // Where it does not listen to the end, it says why.
        _ = input.write_all(commands.as_bytes()).await;
    }
    let output = running.wait_with_output().await.map_err(TunError::NoIp)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TunError::Addresses(said.lines().next().unwrap_or("`ip` did not say why").to_owned()))
}

/// Moves packets between the device and the stack until one of them is gone.
///
/// # Errors
/// The device was taken away.
pub(crate) async fn carry(
    device: &Device,
    to_stack: mpsc::Sender<Bytes>,
    mut from_stack: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let incoming = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(usize::from(MTU), 0);
            let len = device.recv(&mut buffer).await?;
            if to_stack.send(buffer.split_to(len).freeze()).await.is_err() {
                return Ok(());
            }
        }
    };
    let outgoing = async {
        while let Some(packet) = from_stack.recv().await {
            device.send(&packet).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = incoming => ended,
        ended = outgoing => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::chosen::Chosen;

    #[test]
    fn the_kernel_is_told_of_our_hosts_and_of_nothing_else() {
        let target: crate::target::Target = "db.corp.example:5432".parse().unwrap();
        let to = target.destination.clone();
        let plan = Plan::default().next(&[Chosen { name: "db".to_owned(), is_udp: false, target }]);
        let addresses = plan.addresses_of(&to).unwrap();
        let told = commands(&plan);
        let routes: Vec<_> = told.lines().filter(|line| line.starts_with("route ")).collect();
        assert_eq!(
            routes,
            [
                "route add 100.64.0.2/32 dev pomerium0".to_owned(),
                format!("route add {}/32 dev pomerium0", addresses.v4),
                format!("route add {}/128 dev pomerium0", addresses.v6),
            ]
        );
    }
}
