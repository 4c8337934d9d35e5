//! Three days in the life of the client, in seconds: what decides in it, composed as the shells compose it, on a clock of our own.
//!
//! The pieces are those that run: [`link::line`](crate::link::line) and [`link::path`](crate::link::path) under the connection,
//! [`login::turns`](crate::login::turns) and [`access::errand`](crate::access::errand) under sign-in, [`ending`](crate::ending) and
//! [`daemon::listeners`](crate::daemon::listeners). [`world`] has what they do not decide: networks, a gateway, a person, files, time.
//! [`process`] drives them for one process as `link::ways`, `login::flight`, `access` and `daemon` do. What must hold is asserted where it
//! would break; what happens is chosen by proptest.

mod asking;
mod process;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    process::Process,
    world::{Gateway, Person, World, saved},
};
use crate::login::turns::Asked;

/// How long each life is, awake.
const LIFE: Duration = Duration::from_secs(72 * 3600);
/// How long anything may take until all is well again once the world is: somebody who has let a sign-in page go by is left
/// alone for ten minutes of it.
const WELL_AFTER: Duration = Duration::from_secs(15 * 60);
/// How long a stream may take to be opened by then, with a sign-in.
const OPEN_AFTER: Duration = Duration::from_secs(120);
/// How long a stream may take where UDP has just been cut off, a sign-in in case included, and a connection to be heard again from
/// another address.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(20);
/// Connections that a pool waits for at a time.
const POOL: usize = 5;

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    /// The machine sleeps.
    Sleep(u32),
    /// Somebody sets the clock.
    ClockSet(i8),
    /// Another network, or none.
    Network(Option<u8>),
    /// UDP gets through, or not.
    Udp(bool),
    Gateway(Gateway),
    /// It says goodbye, and another takes over.
    Drain,
    /// It is killed, and comes again.
    Restart,
    /// The session is ended at the gateway.
    Revoke,
    Person(Person),
    /// Programs connect to a forward.
    Connect {
        forward: u8,
        programs: u8,
    },
    /// A pool of connections, which comes again and again, or not any more.
    Pool(bool),
    /// Nothing can be written to the disk, or it can again.
    Disk(bool),
    /// The program that came last does not wait any more.
    Leave,
    /// A person runs `login`, in another process.
    Login,
    /// A program with a token of its own asks for a stream.
    ServiceAccount,
    /// A forward is added, changed or taken out of the file.
    Save {
        forward: u8,
        name: u8,
    },
    Remove {
        forward: u8,
    },
    /// Another program holds an address, or lets it go.
    Taken {
        forward: u8,
        is_taken: bool,
    },
    /// All is well with the world.
    Well,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1_u32..12 * 3600).prop_map(Event::Sleep),
        1 => any::<i8>().prop_map(Event::ClockSet),
        4 => prop::option::weighted(0.7, 1_u8..4).prop_map(Event::Network),
        2 => any::<bool>().prop_map(Event::Udp),
        4 => prop_oneof![
            Just(Gateway::Up), Just(Gateway::Up), Just(Gateway::Down), Just(Gateway::Drops), Just(Gateway::Confused)
        ].prop_map(Event::Gateway),
        2 => Just(Event::Drain),
        2 => Just(Event::Restart),
        1 => Just(Event::Revoke),
        3 => prop_oneof![
            (1_u16..200).prop_map(Person::SignsIn), (1_u16..200).prop_map(Person::SignsIn), Just(Person::IsAway),
            Just(Person::SaysNo)
        ].prop_map(Event::Person),
        8 => (any::<u8>(), 1_u8..20).prop_map(|(forward, programs)| Event::Connect { forward, programs }),
        2 => any::<bool>().prop_map(Event::Pool),
        1 => any::<bool>().prop_map(Event::Disk),
        2 => Just(Event::Leave),
        1 => Just(Event::Login),
        1 => Just(Event::ServiceAccount),
        2 => (0_u8..6, 0_u8..3).prop_map(|(forward, name)| Event::Save { forward, name }),
        1 => (0_u8..6).prop_map(|forward| Event::Remove { forward }),
        2 => (0_u8..6, any::<bool>()).prop_map(|(forward, is_taken)| Event::Taken { forward, is_taken }),
        2 => Just(Event::Well),
    ]
}

/// The world, and the processes of one person in it.
struct Life {
    world: World,
    /// The daemon, a command, and a program with a service account.
    daemon: Process,
    command: Process,
    program: Process,
}

impl Life {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let [daemon, command, program] =
            [Process::daemon(&world), Process::command(true, &world), Process::command(false, &world)];
        Self { world, daemon, command, program }
    }

    /// Lets time pass, awake.
    fn pass(&mut self, time: Duration) {
        let end = self.world.now.monotonic + time;
        while self.world.now.monotonic < end {
            let is_busy = [&self.daemon, &self.command, &self.program].into_iter().any(Process::is_busy);
            self.world.pass(if is_busy { Duration::from_millis(250) } else { Duration::from_secs(1) });
            if self.world.pool && self.daemon.asking.len() < POOL {
                self.daemon.ask(Asked::ByStream, &self.world);
            }
            for (index, process) in
                [&mut self.daemon, &mut self.command, &mut self.program].into_iter().enumerate()
            {
                process.turn(index, &mut self.world);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Sleep(seconds) => world.sleep(Duration::from_secs(seconds.into())),
            Event::ClockSet(by) => world.set_clock(by),
            Event::Network(address) => world.address = address,
            Event::Udp(gets_through) => world.udp = gets_through,
            Event::Gateway(gateway) => world.gateway = gateway,
            Event::Drain => {
                world.incarnation += 1;
                for process in [&mut self.daemon, &mut self.command, &mut self.program] {
                    process.hears_goodbye(world);
                }
            }
            Event::Restart => world.incarnation += 1,
            Event::Revoke => world.session = None,
            Event::Person(person) => world.person = person,
            Event::Connect { forward, programs } => {
                if let Some(to) = world.file.get(usize::from(forward) % world.file.len().max(1)).cloned() {
                    for _ in 0..programs {
                        self.daemon.accept(&to, world);
                    }
                }
            }
            Event::Pool(comes) => world.pool = comes,
            Event::Disk(is_full) => world.is_disk_full = is_full,
            Event::Leave => self.daemon.leave(),
            Event::Login => self.command.ask(Asked::ByPerson, world),
            Event::ServiceAccount => self.program.ask(Asked::ByStream, world),
            Event::Save { forward, name } => {
                let new = saved(forward, name);
                world.file.retain(|old| old.listen != new.listen);
                world.file.push(new);
            }
            Event::Remove { forward } => world.file.retain(|old| old.listen != saved(forward, 0).listen),
            Event::Taken { forward, is_taken: true } => {
                let address = saved(forward, 0).listen;
                if !self.daemon.holds(address) {
                    world.taken.insert(address);
                }
            }
            Event::Taken { forward, is_taken: false } => _ = world.taken.remove(&saved(forward, 0).listen),
            Event::Well => self.all_becomes_well(),
        }
    }

    /// Whatever has happened: there is a way out of it, and no forward was lost.
    fn all_becomes_well(&mut self) {
        self.world.be_well();
        self.pass(WELL_AFTER);
        assert!(self.daemon.connection().is_some(), "no connection: {:?}", self.daemon);
        assert!(self.daemon.is_idle(), "something waits without end: {:?}", self.daemon);
        for to in self.world.file.clone() {
            assert!(self.daemon.holds(to.listen), "a forward was lost: {to:?}");
            self.daemon.accept(&to, &self.world);
        }
        self.pass(OPEN_AFTER);
        let count = self.world.file.len();
        assert!(self.daemon.is_idle(), "a stream waits: {:?}", self.daemon);
        assert_eq!(self.daemon.opened_of_last(count), count, "a stream is not opened");
        self.moves_on();
        self.does_without_disk();
    }

    /// A connection that is well goes along to another network, and is no hindrance where nothing comes through it.
    fn moves_on(&mut self) {
        let before = self.daemon.connection().expect("it is connected");
        self.world.address = Some(10);
        self.pass(ELSEWHERE_AFTER);
        let after = self.daemon.connection().expect("it is connected");
        assert!(before.is(&after) && after.carries(&self.world), "the connection did not come along");
        self.world.udp = false;
        self.daemon.ask(Asked::ByStream, &self.world);
        self.pass(ELSEWHERE_AFTER);
        assert!(
            self.daemon.asking.is_empty(),
            "a stream waits for a connection that is gone: {:?}",
            self.daemon
        );
        assert_eq!(self.daemon.opened_of_last(1), 1, "a stream is not opened over TCP");
        self.world.udp = true;
    }

    /// A token that is no good and cannot be removed is in nobody's way.
    fn does_without_disk(&mut self) {
        (self.world.is_disk_full, self.world.session) = (true, None);
        self.daemon.ask(Asked::ByStream, &self.world);
        self.pass(OPEN_AFTER);
        assert!(self.daemon.is_idle(), "a stream waits: {:?}", self.daemon);
        assert_eq!(self.daemon.opened_of_last(1), 1, "a stream is not opened without a disk");
        self.world.is_disk_full = false;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn three_days_of_anything_leave_no_dead_end_and_lose_no_forward(
        seed: u64,
        events in prop::collection::vec((event(), 0_u32..1200), 300..500),
    ) {
        let mut life = Life::new(seed);
        let end = life.world.now.monotonic + LIFE;
        for (event, seconds) in events.into_iter().cycle() {
            if life.world.now.monotonic >= end {
                break;
            }
            life.happen(event);
            life.pass(Duration::from_secs(seconds.into()));
        }
        life.all_becomes_well();
    }
}
