//! An app that speaks WebSocket to the letter: the `websockets` library of Python, which echoes every message.

use std::{net::SocketAddr, path::Path};

use tokio::process::Command;

use crate::process::{Input, Process};

/// A running server.
#[derive(Debug)]
pub struct StrictWebSocket {
    /// Where it listens, without TLS.
    pub address: SocketAddr,
    _process: Process,
}

impl StrictWebSocket {
    /// Starts it on a port of its own.
    ///
    /// # Errors
    /// Debian's Python, or the library of its own, is not installed.
    pub async fn start() -> anyhow::Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/strict_websocket.py");
        let process =
            Process::spawn("websocket server", Command::new("/usr/bin/python3").arg(program), Input::None)?;
        let port = |line: &str| line.strip_prefix("listens on ")?.trim().parse::<u16>().ok();
        let port = process.output.find("the port of the websocket server", port).await?;
        Ok(Self { address: ([127, 0, 0, 1], port).into(), _process: process })
    }
}
