//! HTTP/3 by hand, for what no library has a client: WebSockets on its streams (RFC 9220). And so plain requests as well.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinSet,
};

/// RFC 9114, 7.2.
const DATA: u64 = 0;
const HEADERS: u64 = 1;

/// `:status: 200` of the static table (RFC 9204, A).
const OK: u8 = 0xc0 | 25;

/// A connection of HTTP/3 to a gateway on loopback.
#[derive(Debug)]
pub struct Http3 {
    quic: quinn::Connection,
    _control: quinn::SendStream,
    _endpoint: quinn::Endpoint,
}

/// An open WebSocket: what is written to `stream` goes out, until this is dropped.
#[derive(Debug)]
pub struct Socket {
    /// The answer's fields, as far as they stand there by name.
    pub fields: Vec<(String, String)>,
    /// What is sent and what comes, without HTTP/3's frames.
    pub stream: DuplexStream,
    _pumps: JoinSet<()>,
}

impl Http3 {
    /// Connects to a port of loopback whose certificate is for `name`; `tls` offers `h3`.
    ///
    /// # Errors
    /// Nobody is there, or the certificate is not trusted.
    pub async fn connect(tls: &ClientConfig, port: u16, name: &str) -> anyhow::Result<Self> {
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.clone())?));
        let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let quic = endpoint.connect_with(config, SocketAddr::from(([127, 0, 0, 1], port)), name)?.await?;
        let mut control = quic.open_uni().await?;
        // The control stream, and SETTINGS without a setting (RFC 9114, 6.2.1).
        control.write_all(&[0, 4, 0]).await?;
        Ok(Self { quic, _control: control, _endpoint: endpoint })
    }

    /// Asks for `/`, and reads the answer to its end.
    ///
    /// # Errors
    /// The answer is not 200, or broken off.
    pub async fn get(&self, authority: &str) -> anyhow::Result<()> {
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")];
        let (_send, mut recv, _, section) = self.ask(&fields).await?;
        ensure!(section.get(2) == Some(&OK), "not 200: {section:x?}");
        while recv.read_chunk(usize::MAX, true).await?.is_some() {}
        Ok(())
    }

    /// Sends a head, and gives the answer's, with what came behind it.
    async fn ask(
        &self,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<(quinn::SendStream, quinn::RecvStream, Vec<u8>, Vec<u8>)> {
        let mut section = vec![0, 0];
        for (name, value) in fields {
            integer(&mut section, 0x20, 3, name.len());
            section.extend(name.as_bytes());
            integer(&mut section, 0, 7, value.len());
            section.extend(value.as_bytes());
        }
        let (mut send, mut recv) = self.quic.open_bi().await?;
        send.write_all(&frame_head(HEADERS, section.len())?).await?;
        send.write_all(&section).await?;
        if fields.contains(&(":method", "GET")) {
            send.finish()?;
        }
        let mut answer = Vec::new();
        loop {
            if let Some((HEADERS, section)) = whole_frame(&mut answer)? {
                return Ok((send, recv, answer, section));
            }
            let chunk = recv.read_chunk(usize::MAX, true).await?.context("no answer")?;
            answer.extend_from_slice(&chunk.bytes);
        }
    }

    /// Opens a WebSocket.
    ///
    /// # Errors
    /// The answer is not 200.
    pub async fn websocket(&self, authority: &str, fields: &[(&str, &str)]) -> anyhow::Result<Socket> {
        let pseudo = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", "/"),
            ("sec-websocket-version", "13"),
        ];
        let fields: Vec<_> = pseudo.iter().chain(fields).copied().collect();
        let (send, recv, answer, section) = self.ask(&fields).await?;
        let (stream, ours) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let mut pumps = JoinSet::new();
        pumps.spawn(async move {
            // What goes wrong here ends the stream, which the test sees.
            _ = up(reader, send).await;
        });
        pumps.spawn(async move {
            _ = down(recv, answer, writer).await;
        });
        Ok(Socket { fields: named_fields(&section)?, stream, _pumps: pumps })
    }
}

async fn up(mut from: tokio::io::ReadHalf<DuplexStream>, mut to: quinn::SendStream) -> anyhow::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let len = from.read(&mut piece).await?;
        if len == 0 {
            return Ok(to.finish()?);
        }
        to.write_all(&frame_head(DATA, len)?).await?;
        to.write_all(&piece[..len]).await?;
    }
}

async fn down(
    mut from: quinn::RecvStream,
    mut pending: Vec<u8>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
) -> anyhow::Result<()> {
    loop {
        while let Some((kind, payload)) = whole_frame(&mut pending)? {
            ensure!(kind == DATA, "a frame of kind {kind}");
            to.write_all(&payload).await?;
        }
        match from.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => pending.extend_from_slice(&chunk.bytes),
            // A reset is an end as well.
            Ok(None) | Err(_) => return Ok(to.shutdown().await?),
        }
    }
}

fn frame_head(kind: u64, len: usize) -> anyhow::Result<[u8; 5]> {
    let [a, b, c, d] = (0x8000_0000 | u32::try_from(len)?).to_be_bytes();
    Ok([u8::try_from(kind)?, a, b, c, d])
}

/// Takes a frame's type and payload (RFC 9114, 7.1), if it is there as a whole.
fn whole_frame(octets: &mut Vec<u8>) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
    let varint = |at: usize| {
        let first = *octets.get(at)?;
        let len = 1_usize << (first >> 6);
        let rest = octets.get(at + 1..at + len)?.iter();
        Some((rest.fold(u64::from(first & 0x3f), |value, octet| value << 8 | u64::from(*octet)), at + len))
    };
    let Some((kind, at)) = varint(0) else { return Ok(None) };
    let Some((len, at)) = varint(at) else { return Ok(None) };
    let end = at + usize::try_from(len)?;
    let Some(payload) = octets.get(at..end).map(<[u8]>::to_vec) else { return Ok(None) };
    octets.drain(..end);
    Ok(Some((kind, payload)))
}

/// An integer whose last `bits` are in the first octet (RFC 7541, 5.1).
fn integer(to: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    let low = |value: usize| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    if value < most {
        return to.push(flags | low(value));
    }
    to.push(flags | low(most));
    let mut left = value - most;
    while left >= 0x80 {
        to.push(low(left & 0x7f) | 0x80);
        left >>= 7;
    }
    to.push(low(left));
}

/// The fields of a section (RFC 9204, 4.5) that stand in it by name.
fn named_fields(section: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let mut rest = section.get(2..).context("no prefix")?;
    let mut fields = Vec::new();
    while let Some(first) = rest.first() {
        match first.leading_zeros() {
            0 => _ = read_integer(&mut rest, 6)?,
            1 => {
                read_integer(&mut rest, 4)?;
                read_text(&mut rest, 7)?;
            }
            2 => fields.push((read_text(&mut rest, 3)?, read_text(&mut rest, 7)?)),
            _ => bail!("a field of the dynamic table, which there is none of"),
        }
    }
    Ok(fields)
}

fn read_integer(rest: &mut &[u8], bits: u32) -> anyhow::Result<usize> {
    let most = (1_usize << bits) - 1;
    let mut next = || {
        let (first, after) = rest.split_first().context("cut off")?;
        *rest = after;
        anyhow::Ok(usize::from(*first))
    };
    let mut value = next()? & most;
    let mut shift = 0;
    while value >= most {
        let octet = next()?;
        value += (octet & 0x7f) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}

fn read_text(rest: &mut &[u8], bits: u32) -> anyhow::Result<String> {
    let is_huffman = rest.first().context("cut off")? & (1 << bits) != 0;
    let len = read_integer(rest, bits)?;
    let (octets, after) = rest.split_at_checked(len).context("cut off")?;
    *rest = after;
    if !is_huffman {
        return Ok(String::from_utf8(octets.to_vec())?);
    }
    let mut text = Vec::new();
    httlib_huffman::decode(octets, &mut text, httlib_huffman::DecoderSpeed::OneBit)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(String::from_utf8(text)?)
}
