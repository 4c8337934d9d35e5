//! The real parts that the end-to-end stories are told with: an OpenID provider, OpenSSH, PostgreSQL, nginx, Caddy, Chromium, systemd,
//! and the two binaries under test.
//!
//! Each fixture owns a temporary folder and its processes, is ready when its constructor returns, ends when it is
//! dropped, and prints the logs of its processes when a test fails. Stories live in `e2e/`, never here.
#![forbid(unsafe_code)]

pub mod app;
pub mod authority;
pub mod browser;
pub mod bus;
pub mod caddy;
pub mod cat;
pub mod cli;
pub mod crowd;
pub mod desktop;
pub mod echo;
pub mod envoy;
pub mod form;
pub mod gateway;
pub mod http;
pub mod http3;
pub mod liar;
pub mod log;
pub mod namespace;
pub mod network;
pub mod nginx;
pub mod oidc;
pub mod pebble;
pub mod person;
pub mod port;
pub mod portal;
pub mod postgres;
pub mod process;
pub mod resolved;
pub mod sshd;
pub mod strict_websocket;
pub mod systemd;
pub mod token;
pub mod wait;
pub mod wireguard;
pub mod worker;
