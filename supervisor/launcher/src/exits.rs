//! One thread that waits for everything that may happen to running agents: their end, a limit that was hit, a
//! command's end, the end of their time. Ends are worked on by two more threads, so that a group that takes long to die
//! holds up nobody else's.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::agent::{Agent, Run};
use crate::clock;
use crate::exec::Command;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;

/// Token of the descriptor that wakes the thread.
const WAKE: u64 = 0;
const EVENTS: usize = 64;

/// An agent and the run of it that is meant.
type AgentRun = (Arc<Agent>, Arc<Run>);

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Exits {
    epoll: Epoll,
    wake: EventFd,
    watched: Mutex<HashMap<u64, Watched>>,
    deadlines: Mutex<BTreeMap<Deadline, AgentRun>>,
    next: AtomicU64,
    stopping: AtomicBool,
    work: Mutex<Option<Sender<Work>>>,
}

/// On the monotonic clock, and a number of its own.
type Deadline = (u64, u64);

#[derive(Debug, Clone)]
enum Watched {
    End { agent: Arc<Agent>, run: Arc<Run>, others: Vec<u64>, deadline: Option<Deadline> },
    Limit { agent: Arc<Agent>, run: Arc<Run> },
    CommandEnd(Arc<Command>),
    CommandDenied(Arc<Command>),
}

/// Something that takes time.
#[derive(Debug)]
pub(crate) enum Work {
    End(Arc<Agent>, Arc<Run>),
    Command(Arc<Command>),
}

impl Exits {
    pub(crate) fn new() -> anyhow::Result<(Self, Receiver<Work>)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        let (work, receiver) = channel();
        let this = Self {
            epoll,
            wake,
            watched: Mutex::default(),
            deadlines: Mutex::default(),
            next: AtomicU64::new(WAKE + 1),
            stopping: AtomicBool::new(false),
            work: Mutex::new(Some(work)),
        };
        Ok((this, receiver))
    }

    /// Watches an agent from now on. One that has ended already is met at once.
    pub(crate) fn watch(&self, agent: &Arc<Agent>, run: &Arc<Run>, deadline_ns: u64) {
        let mut others = Vec::new();
        for event in &run.held.limit_events {
            // Edge-triggered: nothing is read from these descriptors, and each hit wakes once.
            let flags = EpollFlags::EPOLLET | EpollFlags::EPOLLPRI | EpollFlags::EPOLLIN;
            let what = Watched::Limit { agent: Arc::clone(agent), run: Arc::clone(run) };
            others.extend(self.add(event.as_fd(), flags, what));
        }
        let deadline = (deadline_ns != 0).then(|| (deadline_ns, self.next.fetch_add(1, Ordering::Relaxed)));
        if let Some(key) = deadline {
            lock(&self.deadlines).insert(key, (Arc::clone(agent), Arc::clone(run)));
            self.poke();
        }
        let what = Watched::End { agent: Arc::clone(agent), run: Arc::clone(run), others, deadline };
        // epoll knows the open file, which stays as long as the run has a descriptor of it.
        let added = run.pidfd().and_then(|pidfd: OwnedFd| self.add_once(pidfd.as_fd(), what.clone()));
        if added.is_none() {
            self.ended(&what);
        }
    }

    pub(crate) fn watch_command(&self, command: &Arc<Command>) {
        let control = command.control();
        if let Some(control) = control {
            let flags = EpollFlags::EPOLLET | EpollFlags::EPOLLIN;
            self.add(control.as_fd(), flags, Watched::CommandDenied(Arc::clone(command)));
            command.keep(control);
        }
        if let Some(pidfd) = command.pidfd()
            && self.add_once(pidfd.as_fd(), Watched::CommandEnd(Arc::clone(command))).is_some()
        {
            command.keep(pidfd);
        }
    }

    fn add(&self, fd: std::os::fd::BorrowedFd<'_>, flags: EpollFlags, what: Watched) -> Option<u64> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        // Known before it can fire.
        lock(&self.watched).insert(token, what);
        match self.epoll.add(fd, EpollEvent::new(flags, token)) {
            Ok(()) => Some(token),
            Err(e) => {
                lock(&self.watched).remove(&token);
                tracing::error!(error = %e, "cannot watch a descriptor");
                None
            }
        }
    }

    fn add_once(&self, fd: std::os::fd::BorrowedFd<'_>, what: Watched) -> Option<()> {
        self.add(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, what).map(drop)
    }

    fn ended(&self, what: &Watched) {
        match what {
            Watched::End { agent, run, others, deadline } => {
                {
                    let mut watched = lock(&self.watched);
                    for token in others {
                        watched.remove(token);
                    }
                }
                if let Some(key) = deadline {
                    lock(&self.deadlines).remove(key);
                }
                self.hand_over(Work::End(Arc::clone(agent), Arc::clone(run)));
            }
            Watched::CommandEnd(command) => {
                lock(&self.watched)
                    .retain(|_, w| !matches!(w, Watched::CommandDenied(c) if Arc::ptr_eq(c, command)));
                self.hand_over(Work::Command(Arc::clone(command)));
            }
            Watched::Limit { .. } | Watched::CommandDenied(_) => {}
        }
    }

    fn hand_over(&self, work: Work) {
        if let Some(sender) = lock(&self.work).as_ref() {
            let _ = sender.send(work);
        }
    }

    fn poke(&self) {
        let _ = self.wake.write(1);
    }

    /// Ends the thread, and the workers once they have done what they were handed.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.poke();
        *lock(&self.work) = None;
    }

    /// The thread.
    pub(crate) fn run(&self, launcher: &Arc<Launcher>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let mut events = [EpollEvent::empty(); EVENTS];
            let count = match self.epoll.wait(&mut events, self.pause()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => {
                    tracing::error!(error = %e, "cannot wait for events");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            for event in events.iter().take(count) {
                self.handle(launcher, event.data());
            }
            self.pass_deadlines(launcher);
        }
    }

    fn handle(&self, launcher: &Arc<Launcher>, token: u64) {
        if token == WAKE {
            let _ = self.wake.read();
            return;
        }
        let found = {
            let mut watched = lock(&self.watched);
            match watched.get(&token) {
                Some(Watched::End { .. } | Watched::CommandEnd(_)) => watched.remove(&token),
                other => other.cloned(),
            }
        };
        match found {
            Some(Watched::Limit { agent, run }) => limits::look(launcher, &agent, &run, false),
            Some(Watched::CommandDenied(command)) => command.tell_denied(launcher),
            Some(end) => self.ended(&end),
            None => {}
        }
    }

    fn pause(&self) -> EpollTimeout {
        let first = lock(&self.deadlines).keys().next().map(|(at, _)| *at);
        match first {
            None => EpollTimeout::NONE,
            Some(at) => {
                // Rounded up: waking too early would only wait again.
                let left =
                    Duration::from_nanos(at.saturating_sub(clock::monotonic_ns())) + Duration::from_millis(1);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        }
    }

    fn pass_deadlines(&self, launcher: &Arc<Launcher>) {
        let now = clock::monotonic_ns();
        loop {
            let due = {
                let mut deadlines = lock(&self.deadlines);
                match deadlines.first_key_value() {
                    Some(((at, _), _)) if *at <= now => deadlines.pop_first(),
                    _ => None,
                }
            };
            let Some((_, (agent, run))) = due else { return };
            limits::time_is_over(launcher, &agent, &run);
        }
    }
}

/// A worker's life.
pub(crate) fn work(launcher: &Arc<Launcher>, receiver: &Mutex<Receiver<Work>>) {
    loop {
        let next = lock(receiver).recv();
        match next {
            Ok(Work::End(agent, run)) => crate::ending::finish(launcher, &agent, &run),
            Ok(Work::Command(command)) => command.finish(launcher),
            Err(_) => return,
        }
    }
}
