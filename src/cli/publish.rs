//! `tickring pub`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use clap::Args;
use tickring_client::protocol::{EventKind, MAX_FRAME_LEN, Publish, TopicName};
use tickring_client::{Client, ClientError, Notice, TopicHandle};

use super::connect::Connect;
use super::failure::Failure;
use super::record::{self, Head};
use super::sub::topic;
use super::tell;

/// How long to wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How often the connection is looked after while no input comes.
const NAP: Duration = Duration::from_millis(200);
/// Bytes of input handed over at a time, and how many times so many may wait.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 16;

/// Publish to a topic, and tell how many events the server took and the last one's number.
///
/// Without DATA, or with `-`, each line of standard input is a message. A `market/` topic takes
/// trades and quotes, so there DATA and lines are JSON objects as `tickring sub --json` prints
/// them, such as {"kind":"trade","price":"61800.30","qty":"0.006","side":"buy"}; their `topic`
/// and `seq` are not looked at, and lines of kind `snapshot` and `gap` are passed over.
///
/// Nothing is published behind the first line that is wrong or refused.
#[derive(Debug, Args)]
pub(super) struct Pub {
    /// The topic, such as stream/news.
    #[arg(value_name = "TOPIC", value_parser = topic)]
    topic: String,

    /// The message; `-`: each line of standard input is one.
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,

    /// DATA and lines are JSON as `tickring sub --json` prints it, messages included. A `market/`
    /// topic always takes that.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Pub {
    pub(super) fn run(self) -> Result<(), Failure> {
        let is_market = TopicName::new(&self.topic).is_ok_and(|name| name.kind() == "market");
        let mut client = self.connect.client("tickring-pub")?;
        let mut publisher = Publisher {
            topic: client.topic(&self.topic)?,
            client,
            json: self.json || is_market,
            body: Vec::new(),
            name: &self.topic,
            settled: 0,
            unsettled: 0,
            last_seq: 0,
            line: 0,
            passed_over: 0,
        };
        let outcome = match self.data.as_deref() {
            None | Some("-") => publisher.publish_lines(&read_lines()?),
            Some(data) => {
                publisher
                    .publish(data.as_bytes(), true)
                    .map_err(|failure| match failure {
                        Failure::Input { reason, .. } => Failure::Input {
                            place: "DATA".to_owned(),
                            reason,
                        },
                        other => other,
                    })
            }
        };
        let outcome = outcome.and_then(|()| publisher.settle());
        publisher.report(outcome.is_ok())?;
        let _ = publisher.client.close(Duration::from_secs(1)); // all is confirmed already
        outcome
    }
}

/// Publishes quietly while more is there, and asks for a reply to the last: it comes behind the
/// refusals of all before it.
struct Publisher<'a> {
    client: Client,
    topic: TopicHandle,
    name: &'a str,
    json: bool,
    body: Vec<u8>,
    /// Messages that the server is known to have taken.
    settled: u64,
    /// Messages sent quietly since the last reply.
    unsettled: u64,
    last_seq: u64,
    line: u64,
    passed_over: u64,
}

impl Publisher<'_> {
    fn publish_lines(&mut self, input: &Receiver<io::Result<Vec<u8>>>) -> Result<(), Failure> {
        let mut next = self.wait_for(input)?;
        while let Some(chunk) = next {
            // Before more is sent: the server may have said goodbye.
            notices(&mut self.client, self.name, self.unsettled)?;
            let more = input.try_recv().ok();
            let mut lines = chunk.split_inclusive(|byte| *byte == b'\n').peekable();
            while let Some(line) = lines.next() {
                self.line += 1;
                let message = line.strip_suffix(b"\n").unwrap_or(line);
                self.publish(message, lines.peek().is_none() && more.is_none())?;
            }
            next = match more {
                Some(chunk) => Some(chunk.map_err(Failure::Read)?),
                None => self.wait_for(input)?,
            };
        }
        Ok(())
    }

    /// The next chunk of lines, or `None` at the end; meanwhile the connection is kept alive.
    fn wait_for(
        &mut self,
        input: &Receiver<io::Result<Vec<u8>>>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            match input.recv_timeout(NAP) {
                Ok(chunk) => return chunk.map(Some).map_err(Failure::Read),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    notices(&mut self.client, self.name, self.unsettled)?
                }
            }
        }
    }

    fn publish(&mut self, message: &[u8], is_last: bool) -> Result<(), Failure> {
        let mut head = Head {
            kind: EventKind::Message as u16,
            event_ns: 0,
        };
        if self.json {
            let read = match message.trim_ascii().is_empty() {
                true => Ok(None),
                false => record::read(message, &mut self.body),
            };
            let Some(read) = read.map_err(|error| Failure::Input {
                place: format!("line {}", self.line),
                reason: error.to_string(),
            })?
            else {
                self.passed_over += u64::from(!message.is_empty());
                return if is_last { self.settle() } else { Ok(()) };
            };
            head = read;
        }
        let publish = Publish {
            kind: head.kind,
            event_ns: head.event_ns,
            body: if self.json { &self.body } else { message },
        };
        if !is_last {
            if !self.client.session().is_active() {
                // With nothing at stake the next connection will do.
                notices(&mut self.client, self.name, self.unsettled)?;
                self.client.wait_connected(ANSWER)?;
            }
            self.client.publish(self.topic, &publish)?;
            self.unsettled += 1;
            return Ok(());
        }
        let reply = self.client.publish_confirmed(self.topic, &publish, ANSWER);
        let reply = reply.map_err(|error| explain(self.name, error))?;
        notices(&mut self.client, self.name, self.unsettled)?;
        self.settled += self.unsettled + 1;
        self.unsettled = 0;
        self.last_seq = reply.seq;
        Ok(())
    }

    /// Waits until the server has taken what was sent quietly, when no message is left to ask a
    /// reply with.
    fn settle(&mut self) -> Result<(), Failure> {
        if self.unsettled > 0 {
            self.client.barrier(ANSWER)?;
            notices(&mut self.client, self.name, self.unsettled)?;
            self.settled += self.unsettled;
            self.unsettled = 0;
        }
        Ok(())
    }

    fn report(&self, is_whole: bool) -> Result<(), Failure> {
        if self.passed_over > 0 {
            tell(format_args!(
                "{} lines are no events (snapshot, gap) and were passed over",
                self.passed_over
            ));
        }
        if !is_whole && self.unsettled > 0 {
            tell(format_args!(
                "of the last {} messages it is not known which were taken",
                self.unsettled
            ));
        }
        if !is_whole && self.settled == 0 {
            return Ok(());
        }
        let plural = if self.settled == 1 { "" } else { "s" };
        let mut line = format!("published {} event{plural} to {}", self.settled, self.name);
        if self.last_seq > 0 {
            line += &format!(", last seq {}", self.last_seq);
        }
        match writeln!(io::stdout(), "{line}") {
            // What was published is published, whether anybody wants to know or not.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        }
    }
}

/// Looks at what the server said meanwhile. A connection that is lost matters if messages are
/// not settled; without any, the next one will do.
fn notices(client: &mut Client, topic: &str, unsettled: u64) -> Result<(), Failure> {
    while let Some(notice) = client.next(Duration::ZERO)? {
        match notice {
            Notice::Refused(refused) if !refused.fatal => {
                return Err(Failure::Refused {
                    what: format!("a publish to {topic}"),
                    code: refused.code,
                    text: refused.text.to_owned(),
                });
            }
            Notice::Disconnected(end) if unsettled > 0 => {
                return Err(ClientError::Disconnected(end.reason).into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn explain(topic: &str, error: ClientError) -> Failure {
    match error {
        ClientError::Refused { code, text, .. } => Failure::Refused {
            what: format!("a publish to {topic}"),
            code,
            text,
        },
        other => other.into(),
    }
}

/// Reads standard input in a thread of its own, so that the connection is served while no input
/// comes. Hands over whole lines, many at a time if they are there.
fn read_lines() -> Result<Receiver<io::Result<Vec<u8>>>, Failure> {
    let (sender, receiver) = sync_channel(CHUNKS);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let input = BufReader::with_capacity(CHUNK, io::stdin());
            if let Err(error) = hand_over(input, &sender) {
                let _ = sender.send(Err(error)); // nobody is left to be told
            }
        })
        .map_err(Failure::System)?;
    Ok(receiver)
}

fn hand_over<R: Read>(
    mut input: BufReader<R>,
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    loop {
        let mut chunk = Vec::new();
        // The first line is waited for; what came with it goes along.
        input
            .by_ref()
            .take(MAX_FRAME_LEN as u64 + 1)
            .read_until(b'\n', &mut chunk)?;
        if chunk.len() > MAX_FRAME_LEN {
            let text = format!("a line is longer than {MAX_FRAME_LEN} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if chunk.is_empty() {
            return Ok(());
        }
        let whole = input
            .buffer()
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        chunk.extend_from_slice(&input.buffer()[..whole]);
        input.consume(whole);
        if sender.send(Ok(chunk)).is_err() {
            return Ok(()); // the publisher has given up
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_handed_over_whole_whatever_the_buffer_cuts() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect::<String>() + "the end";
        for capacity in [1, 7, 64, 4096] {
            let (sender, receiver) = sync_channel(10_000);
            let input = BufReader::with_capacity(capacity, text.as_bytes());
            hand_over(input, &sender).unwrap();
            drop(sender);
            let chunks: Vec<Vec<u8>> = receiver.iter().map(Result::unwrap).collect();
            let (last, before) = chunks.split_last().unwrap();
            assert!(before.iter().all(|chunk| chunk.ends_with(b"\n")));
            assert_eq!(chunks.concat(), text.as_bytes());
            assert!(last.ends_with(b"the end"));
        }
    }
}
