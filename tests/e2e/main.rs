//! Stories with real parts. One binary: linked once. What the parts are stands in `support`.
//!
//! A file is a subject; a test is a story that a person or an attacker would tell. Everything here goes through the
//! programs as they are shipped; nothing here calls into the product's crates.
#![forbid(unsafe_code)]

#[cfg(test)]
mod autocert;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod captive_portal;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod continuous;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod desktop;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod events;
#[cfg(test)]
mod ext_authz;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod forgery;
#[cfg(test)]
mod forward_auth;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod mtls;
#[cfg(test)]
mod network;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod psql;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod rewrites;
#[cfg(test)]
mod several;
#[cfg(test)]
mod sign_on;
#[cfg(test)]
mod split;
#[cfg(test)]
mod ssh;
#[cfg(test)]
mod stapling;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tun;
#[cfg(test)]
mod tun_daemon;
#[cfg(test)]
mod tun_trouble;
#[cfg(test)]
mod udp;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod webauthn;
#[cfg(test)]
mod websockets;
#[cfg(test)]
mod wireguard;
#[cfg(test)]
mod wireguard_devices;
