//! The node: one server process, a pinned thread with a ring of its own for each core.

#[cfg(feature = "database")]
mod database;
mod driver;
mod journal;
mod observe;
mod readers;
mod spin;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core::{
    CoreConfig, Deliveries, JournalConfig, Limits, Pacing, ParcelPool, RecoveryError, Requests,
    Share,
};
use crate::journal::{JournalError, Port};
use crate::machines::Registry;
use crate::mailbox::{Doorbell, Receiver, Sender, channel};
use crate::ring::socket::{ListenOptions, listener};
use crate::ring::{RingConfig, RingError, Techniques, Waker, machine};
use driver::{Driver, Mail};
use journal::{Opened, Writers};
use observe::Reporter;
use readers::{ReadPort, Readers};

#[cfg(feature = "database")]
pub use database::DatabaseSettings;
pub use journal::{JournalSettings, LaneView};
pub use observe::{CoreReport, MailDepth, Observer, Recovery};

/// The most cores of a node.
pub const MAX_CORES: usize = 128;

/// The most connections of one core: what the kernel allows a table of direct descriptors, less the spare ones.
const MAX_CONNECTIONS_OF_CORE: usize = (1 << 20) - SPARE_DESCRIPTORS;
/// Parcels in the mailbox between two cores. A parcel is all that one turn has to say, so a full
/// mailbox means that the other core is this many turns behind.
const MAILBOX_PARCELS: usize = 64;
/// Direct descriptors beyond `max_connections`: room to tell newcomers that there is no room.
const SPARE_DESCRIPTORS: usize = 64;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where to listen. Port 0 picks a free one; see [`Node::local_addr`].
    pub listen: SocketAddr,
    /// Connections that may wait to be accepted, per core; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Threads, from 1 to [`MAX_CORES`].
    pub cores: usize,
    /// Whether each core's thread is pinned to a processor.
    pub pin: bool,
    /// Whether cores spin instead of sleeping: lower latency, at a whole processor each.
    pub busy_poll: bool,
    /// Open connections of all cores together; one more is answered `connection_limit`. The
    /// kernel spreads connections unevenly, so this is not a bound of each core: that is
    /// [`Limits::max_connections`], and the open file limit.
    pub max_connections: usize,
    /// The kernel's send buffer of each connection, in bytes; `None`: as large as the kernel
    /// finds good. A small one makes a slow client's backlog start sooner, and be fresher.
    pub send_buffer: Option<usize>,
    /// The bounds of each core.
    pub limits: Limits,
    /// The kinds of topics.
    pub registry: Arc<Registry>,
    /// Where what must survive is kept; `None`: everything is in memory, and durable kinds of
    /// topics are refused.
    pub journal: Option<JournalSettings>,
    /// Which io_uring techniques may be used.
    pub ring: Techniques,
}

impl Default for NodeConfig {
    /// One core for each processor that this process may use, on 127.0.0.1:7400.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], tickring_protocol::DEFAULT_PORT)),
            backlog: 4096,
            cores: machine::allowed_processors().map_or(1, |p| p.len().clamp(1, MAX_CORES)),
            pin: true,
            busy_poll: false,
            max_connections: 65_536,
            send_buffer: None,
            limits: Limits::default(),
            registry: Arc::new(Registry::standard()),
            journal: None,
            ring: Techniques::default(),
        }
    }
}

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A setting is out of its bounds.
    #[error("{field} is {value}; it must be {bound}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it is.
        value: usize,
        /// What it may be.
        bound: &'static str,
    },
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(std::io::Error),
    /// io_uring cannot be used as needed.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// A thread could not be started or pinned.
    #[error("cannot start the thread of core {core}: {cause}")]
    Thread {
        /// Which core.
        core: usize,
        /// Why.
        cause: std::io::Error,
    },
    /// The kernel failed a core's ring while it ran.
    #[error("core {core} stopped: {cause}")]
    Core {
        /// Which core.
        core: usize,
        /// Why.
        cause: std::io::Error,
    },
    /// The journal cannot be opened or recovered.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The journal's records make no topics.
    #[error("{0}")]
    Recovery(#[from] RecoveryError),
    /// Another process uses the journal.
    #[error(
        "the journal in {} is in use by another tickring: stop that one, or choose another directory",
        .0.display()
    )]
    InUse(PathBuf),
    /// The journal's disk failed while the node ran. Nothing that was acknowledged is lost.
    #[error("{0}; what was acknowledged is safe")]
    JournalFailed(String),
    /// The database cannot be used.
    #[error("{0}")]
    Database(String),
    /// A core panicked, which is a fault of the server; the log has the message.
    #[error("core {0} panicked; this is a fault of the server, please report it with the log")]
    Panicked(usize),
}

/// What the threads of a node share, besides their mailboxes.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Open connections of all cores.
    open: AtomicUsize,
    max_connections: usize,
    /// How many cores have reached each step of stopping.
    reached: [AtomicUsize; driver::STEPS],
}

/// A running node. Dropping it without [`Node::wait`] stops it.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    stopper: Stopper,
    threads: Vec<JoinHandle<Result<(), NodeError>>>,
    observer: Option<Observer>,
    /// Of the database, if there is one.
    readers: Option<Readers>,
    /// Dropped last, when the cores have given them all they had.
    writers: Option<Writers>,
}

/// Stops a node from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<Shared>,
    wakers: Arc<[Waker]>,
}

impl Stopper {
    /// Starts the end: every connection gets what it was promised and a GOODBYE. Returns at once;
    /// [`Node::wait`] tells when it is done, within `drain_timeout` + `linger_timeout` and a second.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
    }
}

impl Node {
    /// Starts the threads, and returns when all of them listen.
    ///
    /// # Errors
    /// [`NodeError`] tells what to change.
    pub fn start(mut config: NodeConfig) -> Result<Self, NodeError> {
        check(&config)?;
        config.limits.max_connections = config
            .limits
            .max_connections
            .min(config.max_connections)
            .min(MAX_CONNECTIONS_OF_CORE);
        let descriptors = descriptors(&mut config.limits);
        // First of all, so that a server that cannot start does not bring the journal up to date.
        let (listeners, address) = listeners(&config)?;
        let mut journal = match config.journal.take() {
            None => None,
            Some(settings) => {
                let (registry, limits) = (&config.registry, &config.limits);
                Some(Opened::open(settings, registry, limits, config.cores)?)
            }
        };
        #[cfg(feature = "database")]
        if let Some(journal) = &journal {
            journal.check_database()?;
        }
        let shared = Arc::new(Shared {
            max_connections: config.max_connections,
            ..Shared::default()
        });
        let bells = Bells::new(config.cores);
        let (ready_sender, ready) = mpsc::channel();
        let (mut observer, reporters) = Observer::new(bells.clone(), Arc::clone(&shared));
        let (mut threads, mut links) = (Vec::new(), Vec::new());
        let seats = seats(
            &config,
            descriptors,
            listeners,
            &mut journal,
            &bells,
            &shared,
        );
        let seats = seats.into_iter().zip(reporters).enumerate();
        for (core, ((mut seat, link_sender), reporter)) in seats {
            links.push(link_sender);
            seat.reporter = Some(reporter);
            seat.ready = Some(ready_sender.clone());
            let thread = std::thread::Builder::new()
                .name(format!("core-{core}"))
                .spawn(move || seat.run())
                .map_err(|cause| NodeError::Thread { core, cause })?;
            threads.push(thread);
        }
        drop(ready_sender);

        let mut wakers: Vec<Option<Waker>> = vec![None; config.cores];
        for (core, started) in ready {
            wakers[core] = Some(started?);
        }
        let wakers: Option<Arc<[Waker]>> = wakers.into_iter().collect();
        let wakers = wakers.ok_or(NodeError::Panicked(0))?;
        bells.set(&wakers);
        let read = match &journal {
            Some(journal) => journal.start_readers(config.limits.max_reads, &bells)?,
            None => None,
        };
        let (readers, read_ports) = read.unzip();
        let (writers, ports) = match journal {
            Some(journal) => {
                let recovery = journal.recovery;
                let (writers, ports) = journal.start(&bells)?;
                observer.set_journal(Arc::clone(&writers.lanes), recovery);
                (Some(writers), ports)
            }
            None => (None, (0..config.cores).map(|_| Vec::new()).collect()),
        };
        let mut read_ports = read_ports.into_iter().flatten();
        for (link, ports) in links.into_iter().zip(ports) {
            let link_to = Link {
                wakers: Arc::clone(&wakers),
                ports,
                reads: read_ports.next(),
            };
            let _ = link.send(link_to); // a thread that has died shows in `wait`
        }
        tracing::info!(%address, cores = config.cores, "listening");
        Ok(Self {
            address,
            stopper: Stopper { shared, wakers },
            threads,
            observer: Some(observer),
            readers,
            writers,
        })
    }

    /// The journal's lanes; empty without a journal.
    pub fn lanes(&self) -> Arc<[LaneView]> {
        let lanes = self.writers.as_ref().map(|writers| &writers.lanes);
        lanes.map_or_else(Arc::default, Arc::clone)
    }

    /// Something to look at the node with from another thread, as `/metrics` does. There is one:
    /// `None` if it was taken before.
    pub fn observer(&mut self) -> Option<Observer> {
        self.observer.take()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Something to stop the node with from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Starts the end; see [`Stopper::stop`].
    pub fn shutdown(&self) {
        self.stopper.stop();
    }

    /// Waits until every core has stopped.
    ///
    /// # Errors
    /// Why the first of them stopped, if not because it was told to.
    pub fn wait(mut self) -> Result<(), NodeError> {
        let mut result = Ok(());
        for (core, thread) in self.threads.drain(..).enumerate() {
            let ended = thread.join().unwrap_or(Err(NodeError::Panicked(core)));
            result = result.and(ended);
        }
        if let Some(readers) = &mut self.readers {
            readers.join();
        }
        let written = self.writers.as_mut().map_or(Ok(()), Writers::stop);
        // A failed journal is why the cores stopped.
        written.and(result)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its end is of interest to `wait` only
        }
    }
}

/// How to wake the cores from threads that are none, such as the journal's: set once all of them
/// run.
#[derive(Clone)]
struct Bells {
    doorbells: Arc<[Doorbell]>,
    wakers: Arc<OnceLock<Arc<[Waker]>>>,
}

impl Bells {
    fn new(cores: usize) -> Self {
        Self {
            doorbells: (0..cores).map(|_| Doorbell::new()).collect(),
            wakers: Arc::default(),
        }
    }

    fn set(&self, wakers: &Arc<[Waker]>) {
        let _ = self.wakers.set(Arc::clone(wakers)); // there is one start
    }

    /// Makes sure that a core looks at what there is for it.
    fn ring(&self, core: usize) {
        if self.doorbells[core].ring()
            && let Some(wakers) = self.wakers.get()
        {
            wakers[core].wake();
        }
    }
}

/// What a core learns once all of them listen.
struct Link {
    /// How to wake the others.
    wakers: Arc<[Waker]>,
    /// Its ends of the journal's lanes.
    ports: Vec<Port>,
    /// Its way to the threads that read the database, if there is one.
    reads: Option<ReadPort>,
}

/// What the thread of one core begins with.
struct Seat {
    core: CoreConfig,
    share: Share,
    ring: RingConfig,
    listener: TcpListener,
    mail: Mail,
    processor: Option<usize>,
    busy_poll: bool,
    shared: Arc<Shared>,
    /// Where it says that it listens, or why it cannot.
    ready: Option<mpsc::Sender<(usize, Result<Waker, NodeError>)>>,
    /// Where it tells how things are.
    reporter: Option<Reporter>,
    link: mpsc::Receiver<Link>,
}

/// A seat for each core, and where it hears from.
fn seats(
    config: &NodeConfig,
    descriptors: u32,
    listeners: Vec<TcpListener>,
    journal: &mut Option<Opened>,
    bells: &Bells,
    shared: &Arc<Shared>,
) -> Vec<(Seat, mpsc::Sender<Link>)> {
    let parcels = Arc::new(ParcelPool::default());
    let known = journal.as_ref().map_or(1, |journal| journal.next_epoch);
    let epoch = (wall_ns() / 1_000).max(known); // microseconds: higher after each start
    let processors = machine::allowed_processors().unwrap_or_default();
    let mails = mailboxes(config.cores, &bells.doorbells);
    let seat = |(core, (listener, mail))| {
        let (sender, link) = mpsc::channel();
        let share = journal
            .as_mut()
            .map(|j| std::mem::take(&mut j.shares[core]));
        let seat = Seat {
            core: CoreConfig {
                core,
                cores: config.cores,
                epoch,
                limits: config.limits,
                registry: Arc::clone(&config.registry),
                parcels: Arc::clone(&parcels),
                journal: journal
                    .as_ref()
                    .map_or_else(JournalConfig::default, Opened::config),
                pacing: pacing(&config.ring),
                has_database: journal.as_ref().is_some_and(Opened::has_database),
                plant: None,
            },
            share: share.unwrap_or_default(),
            ring: RingConfig {
                descriptors,
                techniques: config.ring,
                ..RingConfig::default()
            },
            listener,
            mail,
            processor: config
                .pin
                .then(|| processors.get(core % processors.len().max(1)).copied())
                .flatten(),
            busy_poll: config.busy_poll,
            shared: Arc::clone(shared),
            ready: None,
            reporter: None,
            link,
        };
        (seat, sender)
    };
    listeners
        .into_iter()
        .zip(mails)
        .enumerate()
        .map(seat)
        .collect()
}

impl Seat {
    fn run(mut self) -> Result<(), NodeError> {
        let core = self.core.core;
        let ready = self.ready.take().expect("the node has put it there");
        let reporter = self.reporter.take().expect("the node has put it there");
        let (ring, busy_poll) = (&self.ring, self.busy_poll);
        let started = self
            .processor
            .map_or(Ok(()), machine::pin_thread)
            .map_err(|cause| NodeError::Thread { core, cause })
            .and_then(|()| {
                let (listener, shared) = (self.listener, self.shared);
                Driver::new(
                    self.core, ring, listener, self.mail, busy_poll, shared, reporter,
                )
            })
            .and_then(|mut driver| driver.inherit(self.share).map(|()| driver));
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                let _ = ready.send((core, Err(error))); // the node may have given up
                return Ok(());
            }
        };
        let _ = ready.send((core, Ok(driver.waker()))); // as above
        drop(ready);
        match self.link.recv() {
            Ok(link) => driver
                .run(link)
                .map_err(|cause| NodeError::Core { core, cause }),
            Err(_) => Ok(()), // another core did not start
        }
    }
}

/// A listener for each core, all on one address.
fn listeners(config: &NodeConfig) -> Result<(Vec<TcpListener>, SocketAddr), NodeError> {
    let options = ListenOptions {
        backlog: config.backlog,
        reuse_port: config.cores > 1,
        send_buffer: config.send_buffer,
        ..ListenOptions::default()
    };
    let first = listener(config.listen, &options).map_err(NodeError::Listen)?;
    let address = first.local_addr().map_err(NodeError::Listen)?;
    let mut listeners = vec![first];
    for _ in 1..config.cores {
        listeners.push(listener(address, &options).map_err(NodeError::Listen)?);
    }
    Ok((listeners, address))
}

fn check(config: &NodeConfig) -> Result<(), NodeError> {
    let (limits, positive) = (&config.limits, "at least 1");
    let bounds = [
        ("cores", config.cores, 1, MAX_CORES, "from 1 to 128"),
        (
            "max_connections",
            config.max_connections,
            1,
            usize::MAX,
            positive,
        ),
        (
            "max_connections",
            limits.max_connections,
            1,
            usize::MAX,
            positive,
        ),
        (
            "max_subscriptions",
            limits.max_subscriptions,
            1,
            usize::MAX,
            positive,
        ),
        (
            "max_reads",
            limits.max_reads,
            1,
            1 << 20,
            "from 1 to 1048576 a core",
        ),
        (
            "max_topics",
            limits.max_topics,
            1,
            1 << 24,
            "from 1 to 16777216 a core",
        ),
        (
            "max_frame_bytes",
            limits.max_frame_bytes,
            1 << 10,
            16 << 20,
            "from 1 KiB to 16 MiB",
        ),
        (
            "outbox_bytes",
            limits.outbox_bytes,
            4 << 10,
            1 << 30,
            "from 4 KiB to 1 GiB",
        ),
        (
            "inbox_bytes",
            limits.inbox_bytes,
            1 << 10,
            1 << 30,
            "from 1 KiB to 1 GiB",
        ),
    ];
    for (field, value, least, most, bound) in bounds {
        if !(least..=most).contains(&value) {
            return Err(NodeError::Config {
                field,
                value,
                bound,
            });
        }
    }
    Ok(())
}

/// How many direct descriptors each core gets; `max_connections` is lowered to what the open file
/// limit allows, since the kernel bounds the table by it.
fn descriptors(limits: &mut Limits) -> u32 {
    let allowed = machine::raise_open_file_limit().unwrap_or_else(|_| machine::open_file_limit());
    let most = usize::try_from(allowed)
        .unwrap_or(usize::MAX)
        .saturating_sub(SPARE_DESCRIPTORS);
    if limits.max_connections > most {
        tracing::info!(
            asked = limits.max_connections,
            allowed = most,
            "max_connections of a core is lowered to what the open file limit (ulimit -n) allows"
        );
        limits.max_connections = most.max(1);
    }
    (limits.max_connections + SPARE_DESCRIPTORS) as u32
}

/// How cores pace their sends, by the techniques that are on.
fn pacing(techniques: &Techniques) -> Pacing {
    Pacing {
        slice: match techniques.slices {
            true => Pacing::default().slice,
            false => u32::MAX,
        },
        many: match techniques.gather {
            true => Pacing::default().many,
            false => usize::MAX,
        },
        ..Pacing::default()
    }
}

/// For each core, its ends of the mailboxes to and from every other.
fn mailboxes(cores: usize, doorbells: &Arc<[Doorbell]>) -> Vec<Mail> {
    type Ends<T> = Vec<Vec<Option<T>>>;
    fn square<T: Send>(cores: usize) -> (Ends<Sender<T>>, Ends<Receiver<T>>) {
        let empty = || (0..cores).map(|_| None).collect::<Vec<_>>();
        let mut senders: Ends<Sender<T>> = (0..cores).map(|_| empty()).collect();
        let mut receivers: Ends<Receiver<T>> = (0..cores)
            .map(|_| (0..cores).map(|_| None).collect())
            .collect();
        for from in 0..cores {
            for to in (0..cores).filter(|to| *to != from) {
                let (sender, receiver) = channel(MAILBOX_PARCELS);
                senders[from][to] = Some(sender);
                receivers[to][from] = Some(receiver);
            }
        }
        (senders, receivers)
    }
    let (request_senders, request_receivers) = square::<Requests>(cores);
    let (delivery_senders, delivery_receivers) = square::<Deliveries>(cores);
    request_senders
        .into_iter()
        .zip(request_receivers)
        .zip(delivery_senders.into_iter().zip(delivery_receivers))
        .map(
            |((requests_out, requests_in), (deliveries_out, deliveries_in))| Mail {
                requests_out,
                requests_in,
                deliveries_out,
                deliveries_in,
                doorbells: Arc::clone(doorbells),
            },
        )
        .collect()
}

pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Fresh randomness: a session's token, or a journal's identity.
fn entropy() -> u128 {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    u128::from_ne_bytes(bytes)
}
