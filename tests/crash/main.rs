//! The whole server, killed with SIGKILL at random moments under mixed load, over and over: nothing
//! acknowledged is lost, nothing seen is taken back, no command has two effects, and the database
//! is the fold of the journal, row by row.
//!
//! `TICKRING_CRASH_ROUNDS` (default 10) tells how often, `TICKRING_CRASH_SEED` from which seed, and
//! `TICKRING_CRASH_BINARY` which binary is run instead of the one that was just built, and
//! `TICKRING_CRASH_MYSQL` (`mysql://…`, with rights to create databases) on which server the tables are
//! instead of in a SQLite file. The seed makes load and moments the same again, but not what threads
//! and disks make of them.
#![cfg(feature = "database")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stderr,
    reason = "it tells the seed and what was checked"
)]

mod check;
mod database;
mod faults;
mod publish;
mod subscribe;
mod tables;
mod wire;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use check::Journal;
use database::Place;
use publish::Publisher;
use subscribe::Subscriber;

const DURABLE: [&str; 4] = ["log/a", "log/b", "log/c", "log/d"];
const VOLATILE: [&str; 4] = ["market/T0", "market/T1", "market/T2", "market/T3"];

/// The longest that one life of the server takes before it is killed, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// A run of more rounds does not show as well that the checks can fail: that would take long.
const ROUNDS_WITH_FAULTS: u64 = 20;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// A directory that is kept if the test fails.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the data is kept in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A process, which does not outlive the test.
struct Server(Child);

impl Server {
    fn start(data: &Path, place: &Place, cores: u64) -> Self {
        let binary = std::env::var_os("TICKRING_CRASH_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_tickring").into());
        let database = place.url.iter().flat_map(|url| ["--mysql", url]);
        let child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(["--cores", &cores.to_string(), "--pin=false"])
            // Small, so that a run has many segments and states.
            .args(["--journal-lanes", "2", "--journal-segment-bytes", "256KiB"])
            .args(database)
            .env("TICKRING_LOG", "warn")
            .current_dir(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until it has recovered; gives its address.
    fn address(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ");
        let address = address.and_then(|rest| rest.split_once(' '));
        let (address, _) = address.unwrap_or_else(|| panic!("it did not start: {line:?}"));
        address.to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end; gives its exit code if it had one.
    fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn killed_at_random_moments_the_server_loses_and_doubles_nothing() {
    let rounds = setting("TICKRING_CRASH_ROUNDS").unwrap_or(10);
    let seed = setting("TICKRING_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}, {rounds} rounds");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = std::env::temp_dir().join(format!("tickring-crash-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir); // of a process that had this number before
    std::fs::create_dir_all(&dir).unwrap();
    let data = Data(dir);
    let place = Place::new();

    let mut publishers: Vec<Publisher> = (0..4)
        .map(|number| Publisher::new(number, number < 3, random.u64(..)))
        .collect();
    let mut subscribers: Vec<Subscriber> = (0..3).map(|_| Subscriber::default()).collect();
    let begin = Instant::now();
    for round in 1..=rounds {
        life(
            &data.0,
            &place,
            &mut random,
            &mut publishers,
            &mut subscribers,
        );
        if round % 20 == 0 {
            let answered: usize = publishers.iter().map(Publisher::answered).sum();
            eprintln!(
                "round {round}: {answered} commands answered, {:?}",
                begin.elapsed()
            );
        }
    }
    // The last life ends in order: what was not answered is sent again, and a little more.
    let mut server = Server::start(&data.0, &place, random.u64(1..=3));
    let address = server.address();
    for publisher in &mut publishers {
        publisher.finish(&address);
    }
    for subscriber in &mut subscribers {
        subscriber.finish(&address, &publishers);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    eprintln!("{rounds} kills, {:?}", begin.elapsed());
    check_all(rounds, &data.0, &place, &publishers, &subscribers);
    eprintln!("seed {seed}: all is well after {:?}", begin.elapsed());
}

/// Starts the server, lets the load run, and kills it: sometimes before it is ready, sometimes when
/// it was just told to stop.
fn life(
    data: &Path,
    place: &Place,
    random: &mut fastrand::Rng,
    publishers: &mut [Publisher],
    subscribers: &mut [Subscriber],
) {
    let mut server = Server::start(data, place, random.u64(1..=3));
    let pause = |milliseconds| std::thread::sleep(Duration::from_millis(milliseconds));
    if random.u8(0..8) == 0 {
        pause(random.u64(0..100));
    } else {
        let address = server.address();
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for publisher in publishers {
                scope.spawn(|| publisher.run(&address, &killed));
            }
            for subscriber in subscribers {
                scope.spawn(|| subscriber.run(&address, &killed));
            }
            pause(random.u64(20..LONGEST_LIFE));
            killed.store(true, Ordering::Release);
            if random.u8(0..8) == 0 {
                server.signal(Signal::TERM);
                pause(random.u64(0..20));
            }
            server.signal(Signal::KILL);
        });
    }
    server.signal(Signal::KILL);
    let code = server.wait();
    assert!(
        code.is_none_or(|code| code == 0),
        "it ended by itself, with {code:?}"
    );
}

/// Checks everything, and that the checks can fail.
fn check_all(
    rounds: u64,
    data: &Path,
    place: &Place,
    publishers: &[Publisher],
    subscribers: &[Subscriber],
) {
    let mut journal = Journal::read(&data.join("journal")).unwrap();
    check::seqs(&journal).unwrap();
    let commands = check::commands(&journal, publishers).unwrap();
    let (durable, volatile) = check::seen(&journal, subscribers).unwrap();
    let database = place.open(data);
    let tables = tables::tables(&database, &journal).unwrap();
    let mut told = Vec::new();
    for table in &tables {
        let rows = table.compare(&database).unwrap();
        told.push(format!("{} {rows}", table.name));
    }
    tables::checkpoints(&database, &journal).unwrap();
    let repeated: usize = publishers.iter().map(|publisher| publisher.repeated).sum();
    let events = journal.events();
    eprintln!("journal: {events} events, each topic numbered from 1 without a gap");
    eprintln!("{commands:?}; {repeated} answered ones repeated, with the same answer");
    eprintln!("seen and found again: {durable} durable events, {volatile} volatile ones");
    eprintln!(
        "{}: rows equal to the fold of the journal: {}",
        database.version(),
        told.join(", ")
    );
    assert!(
        commands.retried > 0 && volatile > 0,
        "a run that shows nothing: {commands:?}"
    );
    if rounds <= ROUNDS_WITH_FAULTS {
        let in_journal = faults::in_the_journal(&mut journal, publishers, subscribers);
        let in_database = faults::in_the_database(&database, &journal, &tables);
        eprintln!(
            "mistakes put in, all found: {in_journal} by checks of the journal, {in_database} by those of the tables"
        );
    }
}
