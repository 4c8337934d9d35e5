//! What one process of the gateway leaves for the next: descriptors that the service manager keeps meanwhile (`FDSTORE=1`,
//! sd_notify(3)).
//!
//! A [`Parcel`] is a connection and a record of what goes with it. Wrapped, both wait as the one message in a socket, so that one
//! descriptor holds them, and nothing has to be told by its name.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use listenfd::ListenFd;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    pipe::{PipeFlags, pipe_with},
};

/// Of all that this keeps there.
const NAME: &str = "stream";

/// Octets of a record at most: far above what is kept of one stream.
const RECORD_LEN_MAX: u64 = 64 * 1024 * 1024;

/// For the service manager to take a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The service manager, as far as it keeps descriptors.
#[derive(Debug)]
pub(crate) struct FdStore {
    manager: UnixDatagram,
    /// Descriptors that it keeps at most.
    room: usize,
}

/// What the process before has left, and where to leave things for the next.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// `None` where the service manager keeps nothing.
    pub(crate) store: Option<FdStore>,
    pub(crate) parcels: Vec<Parcel>,
}

/// A connection, and a record of what goes with it.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) connection: OwnedFd,
    pub(crate) record: Vec<u8>,
}

/// A parcel as one descriptor.
#[derive(Debug)]
pub(crate) struct Wrapped(UnixDatagram);

impl Inheritance {
    /// Takes it, for once: before there is another thread, since the environment changes.
    ///
    /// # Errors
    /// The service manager cannot be reached.
    pub(crate) fn take() -> io::Result<Self> {
        let Some(store) = FdStore::find(&|name| std::env::var(name).ok())? else {
            return Ok(Self::default());
        };
        let parcels = FdStore::inherited();
        store.forget()?;
        Ok(Self { store: Some(store), parcels })
    }
}

impl FdStore {
    /// The store that the service manager has for this service; `None` if it has none. `variable` reads the environment.
    ///
    /// # Errors
    /// The service manager cannot be reached.
    fn find(variable: &dyn Fn(&str) -> Option<String>) -> io::Result<Option<Self>> {
        let room = variable("FDSTORE").and_then(|room| room.parse().ok()).unwrap_or(0);
        let (Some(path), 1..) = (variable("NOTIFY_SOCKET"), room) else { return Ok(None) };
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let manager = UnixDatagram::unbound()?;
        manager.connect_addr(&address)?;
        manager.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Some(Self { manager, room }))
    }

    /// What the process before has left. What is no parcel is let go.
    fn inherited() -> Vec<Parcel> {
        let mut inherited = ListenFd::from_env();
        let wrapped =
            (0..inherited.len()).filter_map(|index| inherited.take_unix_datagram(index).ok().flatten());
        wrapped.filter_map(|socket| Wrapped(socket).open().ok()).collect()
    }

    /// Has the store forget it: whoever still has the connection to an app keeps it open.
    fn forget(&self) -> io::Result<()> {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={NAME}"), None)
    }

    /// Has parcels kept for the next process, as far as there is room, and waits until they are. Says how many; the rest is
    /// dropped. Blocks.
    ///
    /// # Errors
    /// The service manager takes no more.
    pub(crate) fn keep(&self, parcels: Vec<Wrapped>) -> io::Result<usize> {
        let mut count = 0;
        for Wrapped(socket) in parcels.into_iter().take(self.room) {
            // It is not to look whether the socket's other end is still there.
            self.say(&format!("FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0"), Some(socket.as_fd()))?;
            count += 1;
        }
        self.wait()?;
        Ok(count)
    }

    /// Waits until the service manager has taken all that was said: of a process that is gone it takes nothing.
    fn wait(&self) -> io::Result<()> {
        let (open, held) = pipe_with(PipeFlags::CLOEXEC)?;
        self.say("BARRIER=1", Some(held.as_fd()))?;
        drop(held);
        let mut until_closed = [rustix::event::PollFd::new(&open, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec::try_from(ANSWER_TIMEOUT).map_err(io::Error::other)?;
        match rustix::event::poll(&mut until_closed, Some(&timeout))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn say(&self, what: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(&self.manager, what.as_bytes(), descriptor.as_slice())
    }
}

impl Parcel {
    /// Makes one descriptor of it, beside which it is needed no more.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(crate) fn wrap(&self) -> io::Result<Wrapped> {
        let memory = memfd_create(c"stream", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut memory = File::from(memory);
        memory.write_all(&self.record)?;
        fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (near, far) = UnixDatagram::pair()?;
        send(&near, b"\n", &[self.connection.as_fd(), memory.as_fd()])?;
        Ok(Wrapped(far))
    }
}

impl Wrapped {
    /// What is in it, for once.
    ///
    /// # Errors
    /// Something else than a parcel.
    pub(crate) fn open(&self) -> io::Result<Parcel> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut descriptors = receive(&self.0)?;
        let (Some(memory), Some(connection)) = (descriptors.pop(), descriptors.pop()) else {
            return Err(bad("a descriptor is missing"));
        };
        let mut memory = File::from(memory);
        if memory.metadata()?.len() > RECORD_LEN_MAX {
            return Err(bad("the record is too long"));
        }
        let mut record = Vec::new();
        memory.rewind()?;
        memory.take(RECORD_LEN_MAX).read_to_end(&mut record)?;
        Ok(Parcel { connection, record })
    }
}

fn send(to: &UnixDatagram, what: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let has_room = control.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(has_room, "two descriptors at most");
    }
    loop {
        match sendmsg(to, &[IoSlice::new(what)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Takes the one message that waits, and does not wait for another.
fn receive(from: &UnixDatagram) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut octet = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(from, &mut [IoSliceMut::new(&mut octet)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn parcel(record: &[u8]) -> (Parcel, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (Parcel { connection: near.into(), record: record.to_vec() }, far)
    }

    #[test]
    fn a_parcel_holds_what_was_put_in_after_all_else_is_gone() {
        let record = vec![7; 3 << 20];
        let (parcel, mut far) = parcel(&record);
        let wrapped = parcel.wrap().unwrap();
        drop(parcel);
        let opened = wrapped.open().unwrap();
        assert!(opened.record == record);
        TcpStream::from(opened.connection).write_all(b"still there").unwrap();
        let mut heard = [0; 11];
        far.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still there");
        assert!(wrapped.open().is_err(), "it was the only one");
    }

    #[test]
    fn a_record_cannot_be_changed_on_its_way() {
        let (parcel, _far) = parcel(b"{}");
        let memory = receive(&parcel.wrap().unwrap().0).unwrap().pop().unwrap();
        let error = File::from(memory).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_service_manager_is_told_in_its_words_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => path.to_str().map(str::to_owned),
            "FDSTORE" => Some("1".to_owned()),
            _ => None,
        };
        let store = FdStore::find(&variable).unwrap().unwrap();
        let listening = std::thread::spawn(move || {
            let mut messages = Vec::new();
            loop {
                let mut text = [0; 100];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let slices = &mut [IoSliceMut::new(&mut text)];
                let received = recvmsg(&manager, slices, &mut control, RecvFlags::empty()).unwrap();
                let descriptors = control.drain().count();
                messages.push((String::from_utf8(text[..received.bytes].to_vec()).unwrap(), descriptors));
                if messages.last().unwrap().0 == "BARRIER=1" {
                    return messages;
                }
            }
        });
        let parcels = [b"first", b"other"].map(|record| parcel(record).0.wrap().unwrap());
        assert_eq!(store.keep(parcels.into()).unwrap(), 1, "there is room for one");
        let said = listening.join().unwrap();
        let kept = ("FDSTORE=1\nFDNAME=stream\nFDPOLL=0".to_owned(), 1);
        assert_eq!(said, [kept, ("BARRIER=1".to_owned(), 1)]);
    }

    #[test]
    fn without_a_store_nothing_is_kept() {
        for set in [&[][..], &["NOTIFY_SOCKET"], &["FDSTORE"]] {
            let variable = |name: &str| set.contains(&name).then(|| "@nobody".to_owned());
            assert!(FdStore::find(&variable).unwrap().is_none(), "{set:?}");
        }
    }
}
