//! A connection that speaks in frames, and ends without a panic when the server is killed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tickring_protocol::{Decoded, Frame, Hello, Ping, VERSION_MAJOR, VERSION_MINOR, decode};

pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    used: usize,
}

/// The server is gone or is going, or was silent for too long.
#[derive(Debug)]
pub(crate) struct Gone;

impl Wire {
    /// Connects and takes `session` up; gives its token.
    pub(crate) fn open(address: &str, session: u128) -> Result<(Self, u128), Gone> {
        let stream = TcpStream::connect(address).map_err(|_| Gone)?;
        stream.set_nodelay(true).map_err(|_| Gone)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .map_err(|_| Gone)?;
        let mut wire = Self {
            stream,
            received: Vec::new(),
            used: 0,
        };
        wire.send(&Frame::Hello(Hello {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
            session,
            name: "crash",
            credentials: b"",
        }))?;
        let token = wire.next(|frame| match frame {
            Frame::Welcome(welcome) => welcome.session,
            other => panic!("{other:?} instead of WELCOME"),
        })?;
        assert!(session == 0 || session == token, "a session survives");
        Ok((wire, token))
    }

    pub(crate) fn send(&mut self, frame: &Frame<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).map_err(|_| Gone)
    }

    /// The next frame.
    pub(crate) fn next<R>(&mut self, read: impl FnOnce(&Frame<'_>) -> R) -> Result<R, Gone> {
        loop {
            match decode(&self.received[self.used..], 16 << 20).unwrap() {
                Decoded::Frame { frame, len } => {
                    if let Frame::Goodbye(_) = frame {
                        return Err(Gone);
                    }
                    let result = read(&frame);
                    self.used += len;
                    return Ok(result);
                }
                Decoded::Skipped { len } => self.used += len,
                Decoded::NeedMore { .. } => self.fill()?,
            }
        }
    }

    /// Nothing more was on its way: what comes next is the answer to a PING.
    pub(crate) fn expect_quiet(&mut self) -> Result<(), Gone> {
        self.send(&Frame::Ping(Ping { token: 7 }))?;
        self.next(|frame| match frame {
            Frame::Pong(_) => {}
            other => panic!("{other:?}, which answers nothing"),
        })
    }

    fn fill(&mut self) -> Result<(), Gone> {
        self.received.drain(..self.used);
        self.used = 0;
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => Err(Gone),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}
