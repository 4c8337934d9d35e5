//! One process: its way to the gateway, its listeners, and the streams that ask for it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    asking::{Asking, Signing, State},
    world::{Gateway, World},
};
use crate::{
    daemon::listeners::changes,
    ending::{self, Ending},
    forward::saved::Saved,
    link::{
        line::{Carrier, Carries, Line, Standing, Wanted, WayBack},
        path::{Seen, Sources, Watch},
    },
    login::turns::{Asked, Turns},
    token::{Token, tests::token_until},
};

/// How long a handshake takes.
const HANDSHAKE: Duration = Duration::from_millis(300);
/// Between two frames that QUIC sends to hear whether the gateway lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Without an answer for so long, QUIC gives a connection up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the file of forwards, and for the way back to UDP.
const FILE_INTERVAL: Duration = Duration::from_secs(15);
const MOVED_INTERVAL: Duration = Duration::from_secs(2);
/// Attempts in an hour at most: one every two seconds while somebody waits, and not one in ten seconds while nobody does.
const DIALS_MAX: usize = 1900;
const DIALS_FOR_LATER_MAX: usize = 400;
/// Sign-in pages in an hour at most that no person asked for: one in ten minutes that is of no use, and some that are.
const PAGES_MAX: usize = 12;
const HOUR: Duration = Duration::from_secs(3600);

/// A connection and its path.
#[derive(Debug)]
pub(super) struct Connection {
    incarnation: u64,
    watch: RefCell<Watch>,
    looked: Cell<Instant>,
    asked: Cell<u64>,
    heard: Cell<u64>,
    heard_at: Cell<Instant>,
    asked_at: Cell<Instant>,
    /// The address of the socket.
    bound: Cell<Option<u8>>,
    is_open: Cell<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct Quic(pub(super) Rc<Connection>);

impl Carries for Quic {
    fn is_open(&self) -> bool {
        self.0.is_open.get()
    }

    fn is_doubtful(&self) -> bool {
        self.0.watch.borrow().is_doubtful()
    }
}

impl Quic {
    fn new(world: &World) -> Self {
        let now = world.now;
        let seen = Seen { asked: 1, heard: 1, source: world.source() };
        Self(Rc::new(Connection {
            incarnation: world.incarnation,
            watch: RefCell::new(Watch::new(seen, now)),
            looked: Cell::new(now.monotonic),
            asked: Cell::new(1),
            heard: Cell::new(1),
            heard_at: Cell::new(now.monotonic),
            asked_at: Cell::new(now.monotonic),
            bound: Cell::new(world.address),
            is_open: Cell::new(true),
        }))
    }

    /// Whether it is this very connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether what is sent now is answered.
    pub(super) fn carries(&self, world: &World) -> bool {
        self.is_open() && world.udp_gets_through() && world.address == self.0.bound.get()
    }

    pub(super) fn asks(&self, world: &World) {
        self.0.asked.set(self.0.asked.get() + 1);
        self.0.asked_at.set(world.now.monotonic);
    }

    /// What QUIC does by itself, and [`crate::link::path`] beside it.
    fn turn(&self, world: &World) {
        let (this, now) = (&*self.0, world.now);
        if now.monotonic - this.asked_at.get() >= KEEP_ALIVE {
            self.asks(world);
        }
        let is_waiting = this.asked_at.get() >= this.heard_at.get();
        if is_waiting && self.carries(world) {
            if this.incarnation != world.incarnation || world.gateway == Gateway::Drops {
                // A stateless reset, or a close.
                this.is_open.set(false);
            }
            this.heard.set(this.heard.get() + 1);
            this.heard_at.set(now.monotonic);
        }
        if now.monotonic - this.heard_at.get() >= IDLE_TIMEOUT {
            this.is_open.set(false);
        }
        let interval = this.watch.borrow().interval();
        if now.monotonic - this.looked.get() >= interval {
            this.looked.set(now.monotonic);
            let seen = Seen { asked: this.asked.get(), heard: this.heard.get(), source: world.source() };
            if this.watch.borrow_mut().look(seen, now).is_some() {
                this.bound.set(world.address);
                self.asks(world);
            }
        }
    }
}

/// An attempt to reach the gateway.
#[derive(Debug)]
struct Attempt {
    ends: Instant,
}

#[derive(Debug)]
pub(super) struct Process {
    line: Line<Quic, ()>,
    /// All connections that live, also those that take no new streams.
    connections: Vec<Quic>,
    attempt: Option<Attempt>,
    way_back: Option<(WayBack, Instant)>,
    /// Whether it keeps a connection up, listeners, and watches the session.
    is_daemon: bool,
    dials: VecDeque<(Instant, Wanted)>,
    /// When pages were shown that no person asked for.
    pages: VecDeque<Instant>,
    pub(super) turns: Turns,
    pub(super) has_person: bool,
    pub(super) signing: Option<Signing>,
    /// When the person last let a page go by.
    pub(super) left: Option<Instant>,
    pub(super) asking: Vec<Asking>,
    /// How the last ones ended: whether they were opened.
    pub(super) ended: VecDeque<bool>,
    running: Vec<Saved>,
    read: Option<Instant>,
    warned: Option<Instant>,
    ending: ending::Watch,
}

impl Process {
    pub(super) fn daemon(world: &World) -> Self {
        Self { is_daemon: true, ..Self::command(true, world) }
    }

    pub(super) fn command(has_person: bool, _in: &World) -> Self {
        Self {
            line: Line::default(),
            connections: Vec::new(),
            attempt: None,
            way_back: None,
            is_daemon: false,
            dials: VecDeque::new(),
            pages: VecDeque::new(),
            turns: Turns::new(has_person),
            has_person,
            signing: None,
            left: None,
            asking: Vec::new(),
            ended: VecDeque::new(),
            running: Vec::new(),
            read: None,
            warned: None,
            ending: ending::Watch::default(),
        }
    }

    /// Whether something is under way that takes less than seconds.
    pub(super) fn is_busy(&self) -> bool {
        self.attempt.is_some() || !self.asking.is_empty()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.asking.is_empty() && self.signing.is_none()
    }

    /// The QUIC connection that new streams find.
    pub(super) fn connection(&self) -> Option<Quic> {
        match self.line.standing() {
            Standing::Quic(quic) => Some(quic.clone()),
            Standing::InDoubt(_) | Standing::Tcp | Standing::Gone => None,
        }
    }

    /// Whether a listener is at this address.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.running.iter().any(|forward| forward.listen == address)
    }

    /// How many of the last `count` streams were opened.
    pub(super) fn opened_of_last(&self, count: usize) -> usize {
        self.ended.iter().rev().take(count).filter(|was_opened| **was_opened).count()
    }

    /// A program connects to a forward, which must be there unless another program holds its address.
    pub(super) fn accept(&mut self, to: &Saved, world: &World) {
        if self.running.contains(to) {
            self.ask(Asked::ByStream, world);
        }
    }

    pub(super) fn ask(&mut self, asked: Asked, world: &World) {
        self.asking.push(Asking::new(asked, self.token_at_hand(world), world));
    }

    /// The token that is sent first.
    pub(super) fn token_at_hand(&self, world: &World) -> Option<Token> {
        if self.has_person {
            world.cache.clone().or_else(|| self.turns.brought())
        } else {
            // A program's own token, which is no session of this person's.
            Some(token_until(1))
        }
    }

    pub(super) fn leave(&mut self) {
        self.asking.pop();
    }

    pub(super) fn hears_goodbye(&self, world: &World) {
        for quic in self.connections.iter().filter(|quic| quic.carries(world)) {
            quic.0.is_open.set(false);
        }
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, index: usize, world: &mut World) {
        self.connections.iter().for_each(|quic| quic.turn(world));
        self.connections.retain(Carries::is_open);
        if let Some(ended) = self.line.ended(world.random(), world.now) {
            assert!(!ended.is_open());
        }
        self.look_for_way_back(world);
        self.dial(world);
        self.sign_in(index, world);
        self.ask_on(world);
        if self.is_daemon {
            self.keep_listeners(world);
            self.warn(world);
        }
    }

    /// What new streams go over now.
    pub(super) fn way(&self) -> Option<Carrier<Quic, ()>> {
        match self.line.standing() {
            Standing::Quic(quic) => Some(Carrier::Quic(quic.clone())),
            Standing::Tcp => Some(Carrier::Tcp(())),
            Standing::InDoubt(_) | Standing::Gone => None,
        }
    }

    pub(super) fn tcp_failed(&mut self, world: &mut World) {
        self.line.tcp_failed(world.random(), world.now);
        self.way_back = None;
    }

    fn dial(&mut self, world: &mut World) {
        let now = world.now;
        if let Some(attempt) = &self.attempt {
            if self.way().is_some() {
                // It came back by itself.
                self.attempt = None;
            } else if now.monotonic >= attempt.ends {
                self.attempt = None;
                self.dialled(world);
            }
            return;
        }
        let is_wanted =
            self.asking.iter().any(|asking| asking.state == State::WantsWay) || self.signing_wants_way();
        let wanted = match self.line.standing() {
            Standing::Quic(_) | Standing::Tcp => return,
            Standing::Gone | Standing::InDoubt(_) if is_wanted => Wanted::ByWaiting,
            Standing::Gone if self.is_daemon => Wanted::ForLater,
            Standing::Gone | Standing::InDoubt(_) => return,
        };
        if self.line.pause_of(wanted, now).is_zero() {
            self.line.begun(world.random(), now);
            self.attempt = Some(Attempt { ends: now.monotonic + HANDSHAKE });
            self.count(wanted, now.monotonic);
        }
    }

    fn dialled(&mut self, world: &mut World) {
        if world.udp_gets_through() {
            self.reached(world);
        } else if world.tcp_gets_through() {
            self.line.reached(Carrier::Tcp(()), world.now);
            self.way_back =
                Some((WayBack::after(Sources::of([world.source()]), world.now), world.now.monotonic));
        } else {
            self.line.failed(world.now);
            self.way_failed(world);
        }
    }

    fn reached(&mut self, world: &World) {
        let quic = Quic::new(world);
        if world.gateway == Gateway::Drops {
            quic.0.is_open.set(false);
        }
        self.connections.push(quic.clone());
        self.way_found(&quic, world);
        self.line.reached(Carrier::Quic(quic), world.now);
        self.way_back = None;
    }

    fn look_for_way_back(&mut self, world: &World) {
        let Some((way_back, looked)) = &mut self.way_back else { return };
        if world.now.monotonic - *looked < MOVED_INTERVAL {
            return;
        }
        *looked = world.now.monotonic;
        if way_back.is_due(&Sources::of([world.source()]), world.now) {
            if world.udp_gets_through() {
                self.reached(world);
            } else {
                *way_back = WayBack::after(Sources::of([world.source()]), world.now);
            }
            self.count(Wanted::ForLater, world.now.monotonic);
        }
    }

    /// No dial storm.
    fn count(&mut self, wanted: Wanted, now: Instant) {
        self.dials.push_back((now, wanted));
        while self.dials.front().is_some_and(|(at, _)| now - *at > HOUR) {
            self.dials.pop_front();
        }
        assert!(self.dials.len() <= DIALS_MAX, "a storm of {} dials", self.dials.len());
        let for_later = self.dials.iter().filter(|(_, wanted)| *wanted == Wanted::ForLater).count();
        assert!(for_later <= DIALS_FOR_LATER_MAX, "a storm of {for_later} dials that nobody waits for");
    }

    /// No storm of sign-in pages.
    pub(super) fn count_page(&mut self, now: Instant) {
        self.pages.push_back(now);
        while self.pages.front().is_some_and(|at| now - *at > HOUR) {
            self.pages.pop_front();
        }
        assert!(self.pages.len() <= PAGES_MAX, "a storm of {} sign-in pages", self.pages.len());
    }

    /// Makes the listeners those of the file.
    fn keep_listeners(&mut self, world: &World) {
        let now = world.now.monotonic;
        if self.read.is_some_and(|read| now - read < FILE_INTERVAL) {
            return;
        }
        self.read = Some(now);
        let before = self.running.clone();
        let changes = changes(before.iter(), &world.file);
        self.running.retain(|forward| !changes.close.contains(forward));
        for saved in changes.open {
            if !world.taken.contains(&saved.listen) {
                assert!(!self.holds(saved.listen), "an address was not let go: {saved:?}");
                self.running.push(saved);
            }
        }
        for kept in before.iter().filter(|kept| world.file.contains(kept)) {
            assert!(self.running.contains(kept), "a forward was lost: {kept:?}");
        }
        let all: BTreeSet<_> = self.running.iter().map(|forward| forward.listen).collect();
        for wanted in world.file.iter().filter(|wanted| !world.taken.contains(&wanted.listen)) {
            assert!(all.contains(&wanted.listen), "a forward was not opened: {wanted:?}");
        }
    }

    /// Tells the person ahead that the session ends.
    fn warn(&mut self, world: &mut World) {
        let now = world.now;
        if self.warned.is_some_and(|looked| now.monotonic - looked < ending::LOOK_EVERY) {
            return;
        }
        self.warned = Some(now.monotonic);
        if let Some(told) = self.ending.look(world.cache.as_ref(), now.wall) {
            assert_eq!(Ending::of(world.cache.as_ref().expect("it ends"), now.wall), Some(told));
            let end = world.cache.as_ref().and_then(Token::expires).expect("it ends");
            world.tell(end);
        }
    }
}
