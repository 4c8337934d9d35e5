//! Streams that are asked for, and the sign-in that they may wait for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pomerium_shared::clock::Now;

use super::{
    process::{Process, Quic},
    world::{Person, World},
};
use crate::{
    access::errand::{Errand, Next},
    failure::Failure,
    forward::PATIENCE,
    link::{
        LinkError,
        answer::Verdict,
        backoff::Patience,
        line::{Carrier, Carries as _},
    },
    login::{
        LoginError,
        turns::{Asked, Renewed, Step, Turn, next_step},
    },
    token::Token,
};

/// How long a gateway may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the person has.
const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long who let a page go by is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10 * 60);
/// Longer than this nobody waits: its own patience, a sign-in of another process and one of its own.
const WAIT_MAX: Duration = Duration::from_secs(20 * 60);

/// Somebody who wants a stream, or to be signed in.
#[derive(Debug)]
pub(super) struct Asking {
    asked: Asked,
    since: Instant,
    /// When it was asked last.
    tried: Instant,
    patience: Patience,
    errand: Errand,
    token: Option<Token>,
    pub(super) state: State,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    WantsWay,
    /// Over a way.
    Asked(Way),
    /// For its turn to sign in.
    Waits {
        seen: u64,
    },
    Pauses(Instant),
    Ended {
        is_open: bool,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Way {
    Quic(Quic),
    Tcp,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Tcp, Self::Tcp))
    }
}

/// A sign-in under way.
#[derive(Debug)]
pub(super) struct Signing {
    asked: Asked,
    stale: Option<Token>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Lock,
    Page { since: Instant },
    Person { shown: Now },
}

impl Asking {
    pub(super) fn new(asked: Asked, token: Option<Token>, world: &World) -> Self {
        Self {
            asked,
            since: world.now.monotonic,
            tried: world.now.monotonic,
            patience: Patience::of(PATIENCE),
            errand: Errand::default(),
            token,
            state: State::WantsWay,
        }
    }

    fn tries(&mut self, world: &World) {
        (self.state, self.tried) = (State::WantsWay, world.now.monotonic);
    }

    /// The way failed under it: it asks again for as long as it has patience.
    fn fails(&mut self, world: &mut World) {
        let now = world.now.monotonic;
        self.state = match self.patience.after_failure(now - self.tried, world.random()) {
            Some(pause) => State::Pauses(now + pause),
            None => State::Ended { is_open: false },
        };
    }
}

impl Process {
    pub(super) const fn signing_wants_way(&self) -> bool {
        matches!(self.signing, Some(Signing { stage: Stage::Page { .. }, .. }))
    }

    /// A way was found for all who waited for one.
    pub(super) fn way_found(&mut self, quic: &Quic, world: &World) {
        for asking in self.asking.iter_mut().filter(|asking| asking.state == State::WantsWay) {
            quic.asks(world);
            asking.state = State::Asked(Way::Quic(quic.clone()));
        }
    }

    /// An attempt to find a way failed: it speaks for all who waited for one.
    pub(super) fn way_failed(&mut self, world: &mut World) {
        for asking in self.asking.iter_mut().filter(|asking| asking.state == State::WantsWay) {
            asking.fails(world);
        }
        if self.signing_wants_way() {
            let failure =
                Failure::Link(LinkError::NoAnswer { gateway: "g.example".parse().expect("a name") });
            self.signed_in(Err(LoginError::Ask(Box::new(failure))), world.now);
        }
    }

    /// Asks on for all who ask.
    pub(super) fn ask_on(&mut self, world: &mut World) {
        let mut all = std::mem::take(&mut self.asking);
        for asking in &mut all {
            self.ask_on_for(asking, world);
            let waited = world.now.monotonic - asking.since;
            assert!(waited < WAIT_MAX, "one waits for ever: {asking:?}");
        }
        for asking in all {
            match asking.state {
                State::Ended { is_open } => {
                    self.ended.push_back(is_open);
                    if self.ended.len() > 64 {
                        self.ended.pop_front();
                    }
                }
                _ => self.asking.push(asking),
            }
        }
    }

    fn ask_on_for(&mut self, asking: &mut Asking, world: &mut World) {
        let now = world.now.monotonic;
        let is_tried = matches!(asking.state, State::WantsWay | State::Asked(_));
        if is_tried && now - asking.tried >= ANSWER_TIMEOUT {
            asking.fails(world);
        }
        match asking.state.clone() {
            State::WantsWay => match self.way() {
                Some(Carrier::Quic(quic)) => {
                    quic.asks(world);
                    asking.state = State::Asked(Way::Quic(quic));
                }
                Some(Carrier::Tcp(())) => asking.state = State::Asked(Way::Tcp),
                Some(Carrier::None) | None => {}
            },
            State::Asked(Way::Quic(quic)) => {
                if quic.carries(world) {
                    self.answered(asking, world);
                } else if !quic.is_open() {
                    asking.fails(world);
                } else if quic.is_doubtful() {
                    asking.state = State::WantsWay;
                }
            }
            State::Asked(Way::Tcp) if world.tcp_gets_through() => self.answered(asking, world),
            State::Asked(Way::Tcp) => {
                self.tcp_failed(world);
                asking.fails(world);
            }
            State::Pauses(until) if now >= until => {
                asking.token = self.token_at_hand(world);
                asking.errand = Errand::default();
                asking.tries(world);
            }
            State::Waits { seen } if self.signing.is_none() => {
                match self.turns.next(seen, asking.token.as_ref(), "", asking.asked, world.now) {
                    Turn::Told(Ok(renewed)) => {
                        asking.errand.renewed(&renewed);
                        asking.token = Some(renewed.token);
                        asking.tries(world);
                    }
                    Turn::Told(Err(_)) => asking.state = State::Ended { is_open: false },
                    Turn::SignIn => {
                        let stale = asking.token.clone();
                        self.signing = Some(Signing { asked: asking.asked, stale, stage: Stage::Lock });
                    }
                }
            }
            State::Pauses(_) | State::Waits { .. } | State::Ended { .. } => {}
        }
    }

    fn answered(&mut self, asking: &mut Asking, world: &mut World) {
        if world.takes(asking.token.as_ref()) {
            asking.state = State::Ended { is_open: true };
            return;
        }
        let verdict = Verdict::SignIn { token_is_dead: asking.token.is_some() };
        asking.state = match asking.errand.refused(verdict) {
            Next::GiveUp => State::Ended { is_open: false },
            Next::StillRefused => {
                self.turns.disappointed(String::new(), world.now);
                State::Ended { is_open: false }
            }
            Next::SignIn { token_is_dead } => {
                if token_is_dead && world.cache == asking.token {
                    world.keep(None);
                }
                State::Waits { seen: self.turns.seen() }
            }
        };
    }

    /// Does what is due of a sign-in.
    pub(super) fn sign_in(&mut self, index: usize, world: &mut World) {
        self.go_on_signing_in(index, world);
        // A lock goes with who held it.
        if self.signing.is_none() && world.lock == Some(index) {
            world.lock = None;
        }
    }

    fn go_on_signing_in(&mut self, index: usize, world: &mut World) {
        let now = world.now;
        let Some(signing) = &mut self.signing else { return };
        match signing.stage {
            Stage::Lock => {
                if world.lock.is_some() {
                    return;
                }
                match next_step(signing.stale.as_ref(), world.cache.clone()) {
                    Step::Take(token) => self.signed_in(Ok(Renewed { token, is_new: false }), now),
                    Step::SignIn => {
                        world.lock = Some(index);
                        signing.stage = Stage::Page { since: now.monotonic };
                    }
                }
            }
            Stage::Page { since } => {
                let asked = signing.asked;
                let way = self.way();
                let answers = match &way {
                    Some(Carrier::Quic(quic)) => quic.carries(world),
                    Some(Carrier::Tcp(())) => world.tcp_gets_through(),
                    Some(Carrier::None) | None => false,
                };
                if answers {
                    self.show(asked, world);
                } else if now.monotonic - since >= ANSWER_TIMEOUT {
                    self.signed_in(Err(LoginError::BadAddress), now);
                }
            }
            Stage::Person { shown } => self.wait_for_person(shown, world),
        }
    }

    /// A page is shown: never a second one, never to nobody, never to somebody who has just let one go by.
    fn show(&mut self, asked: Asked, world: &mut World) {
        let now = world.now;
        assert!(self.has_person, "a page is shown for a program");
        assert!(world.window.is_none(), "two pages: {:?}", world.window);
        let is_left_alone = self.left.is_some_and(|left| now.monotonic - left < LEFT_ALONE);
        assert!(asked == Asked::ByPerson || !is_left_alone, "a page for somebody who left one");
        if asked == Asked::ByStream {
            self.count_page(now.monotonic);
        }
        world.window = Some(now);
        if let Some(signing) = &mut self.signing {
            signing.stage = Stage::Person { shown: now };
        }
    }

    fn wait_for_person(&mut self, shown: Now, world: &mut World) {
        let (now, passed) = (world.now, world.now.monotonic - shown.monotonic);
        let outcome = match world.person {
            Person::SignsIn(after)
                if passed >= Duration::from_secs(after.into()) && world.tcp_gets_through() =>
            {
                let token = world.begin_session();
                world.keep(Some(token.clone()));
                Ok(Renewed { token, is_new: true })
            }
            Person::SaysNo if passed >= Duration::from_secs(5) => Err(LoginError::SaidNo),
            _ if passed >= SIGN_IN_TIMEOUT => Err(LoginError::TimedOut),
            Person::SignsIn(_) | Person::SaysNo | Person::IsAway => return,
        };
        world.window = None;
        if outcome.is_err() {
            self.left = Some(now.monotonic);
        }
        self.signed_in(outcome, now);
    }

    fn signed_in(&mut self, outcome: Result<Renewed, LoginError>, now: Now) {
        let Some(signing) = self.signing.take() else { return };
        self.turns.ended(outcome.map_err(Arc::new), String::new(), signing.asked, now);
    }
}
