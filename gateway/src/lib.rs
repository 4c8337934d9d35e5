//! The access gateway: signs people in, decides on every request and every stream, and proxies what is allowed.
//!
//! Arrows point one way: `listen → proxy → authorize → session → store`, and `app` alone knows all. See
//! `ARCHITECTURE.md` for the way of one request and of one stream.
#![forbid(unsafe_code)]

pub mod app;
pub mod authenticate;
pub mod authorize;
mod autocert;
mod body;
pub mod client_authority;
pub mod commands;
pub mod config;
pub mod device;
mod doctor;
mod duration;
mod ext_authz;
mod fd_store;
mod forward_auth;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod geography;
mod https_client;
mod listen;
pub mod ocsp;
mod path;
mod per_address;
mod policy_tools;
pub mod portal;
pub mod proxy;
pub mod quickstart;
mod remote_authorize;
pub mod scim;
pub mod secret;
pub mod session;
pub mod store;
pub mod wireguard;
pub mod wireguard_peer;
mod x509;
pub mod yaml;
