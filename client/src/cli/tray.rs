//! `tray`: an icon in the desktop's panel.

use clap::Args;

use super::{connect, socket_path};
use crate::{
    failure::Failure,
    local_api::{caller::Caller, socket::SocketError},
    tray,
};

/// Show an icon in the desktop's panel: whether the gateway is reached, who is signed in, routes to copy and open, what was refused.
///
/// It shows what the daemon does, and starts with the session if its desktop file is in ~/.config/autostart.
#[derive(Debug, Args)]
pub(crate) struct Tray {}

impl Tray {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let socket = socket_path().ok_or(SocketError::NoFolder)?;
        tray::run(Caller::at(socket), connect::stop_signal()).await
    }
}
