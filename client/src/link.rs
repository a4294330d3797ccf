//! The blocking driver's socket: nonblocking TCP, with `poll(2)` to wait.
//!
//! Why not a blocking socket: a write that blocks while the server blocks writing to us would
//! never end. Here nothing blocks but the wait, and the wait is for either direction.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// What became of an attempt to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Bytes(usize),
    /// The kernel has no data, or no room.
    NotNow,
    Eof,
    Broken(ErrorKind),
}

impl Moved {
    fn from(result: std::io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::Eof,
            Ok(len) => Self::Bytes(len),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => Self::NotNow,
                kind => Self::Broken(kind),
            },
        }
    }
}

/// A connection that is being made: the addresses of a name are tried in turn.
#[derive(Debug)]
pub(crate) struct Dial {
    stream: TcpStream,
    rest: VecDeque<SocketAddr>,
    pub(crate) deadline: Duration,
}

#[derive(Debug)]
pub(crate) enum Link {
    Down,
    Dialing(Dial),
    Up(TcpStream),
}

/// Resolves `address` and starts to connect. Asking the system's resolver may block.
pub(crate) fn dial(address: &str, deadline: Duration) -> Result<Dial, ErrorKind> {
    let rest = address
        .to_socket_addrs()
        .map_err(|error| error.kind())?
        .collect();
    dial_next(rest, deadline, ErrorKind::AddrNotAvailable)
}

fn dial_next(
    mut rest: VecDeque<SocketAddr>,
    deadline: Duration,
    mut last: ErrorKind,
) -> Result<Dial, ErrorKind> {
    while let Some(address) = rest.pop_front() {
        match start(address) {
            Ok(stream) => {
                return Ok(Dial {
                    stream,
                    rest,
                    deadline,
                });
            }
            Err(error) => last = error.kind(),
        }
    }
    Err(last)
}

fn start(address: SocketAddr) -> std::io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd.into()),
        Err(errno) => Err(errno.into()),
    }
}

impl Dial {
    /// Waits for the outcome, at most `wait`.
    pub(crate) fn finish(self, wait: Duration, now: Duration) -> Result<Link, ErrorKind> {
        if !wait_for(&self.stream, PollFlags::OUT, wait) {
            return match now >= self.deadline {
                true => Err(ErrorKind::TimedOut),
                false => Ok(Link::Dialing(self)),
            };
        }
        let outcome = match self.stream.take_error() {
            Ok(None) => self.stream.peer_addr().map(|_| ()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match outcome.and_then(|()| self.stream.set_nodelay(true)) {
            Ok(()) => Ok(Link::Up(self.stream)),
            Err(error) => dial_next(self.rest, self.deadline, error.kind()).map(Link::Dialing),
        }
    }
}

pub(crate) fn read(mut stream: &TcpStream, into: &mut [u8]) -> Moved {
    Moved::from(stream.read(into))
}

pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) -> Moved {
    match Moved::from(stream.write(bytes)) {
        // Only a read tells an end of stream.
        Moved::Eof => Moved::NotNow,
        moved => moved,
    }
}

/// Sleeps until the socket is readable, or writable if that is asked for, at most `wait`.
pub(crate) fn wait(stream: &TcpStream, writable: bool, wait: Duration) {
    let mut flags = PollFlags::IN;
    flags.set(PollFlags::OUT, writable);
    wait_for(stream, flags, wait);
}

fn wait_for(stream: &TcpStream, flags: PollFlags, wait: Duration) -> bool {
    // Whoever waits looks at the clock again, so a shorter wait than asked for is no harm.
    let timeout = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::from(i32::MAX)),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    let mut fds = [PollFd::new(stream, flags)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
