//! Ticks to a server: quiet publishes, many under way at a time, all of them confirmed at the end.

use std::collections::HashMap;
use std::time::Duration;

use tickring_client::{Client, ClientError, Notice, Options, Reason, TopicHandle};
use tickring_feed::Content;
use tickring_protocol::{ErrorCode, Publish, TopicError, TopicName};

use super::args::Target;
use super::summary::{Summary, SymbolCounts};

/// How long an answer may take before the server counts as gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Publishes between two looks at what the server says.
const LOOK_EVERY: u32 = 1024;
/// A command that no machine has. Commands to a topic are answered in their order, so its
/// refusal proves that the topic took in everything before.
const BARRIER: u16 = 0;

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// There is no server, or not one that lets us in.
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: ClientError },
    /// The connection broke; publishes on it may be lost.
    #[error(
        "lost the connection to {address}: {reason}; up to {unconfirmed} publishes did not arrive"
    )]
    Lost {
        address: String,
        reason: Reason,
        unconfirmed: u64,
    },
    /// The server refused publishes.
    #[error("the server refused {count} publishes; the first to {topic}: {code}: {text}")]
    Refused {
        count: u64,
        topic: String,
        code: String,
        text: String,
    },
    /// The symbol, with its prefix, is no topic name.
    #[error("symbol {symbol:?}: {error}")]
    Symbol { symbol: String, error: TopicError },
    /// Another failure of the client.
    #[error("{0}")]
    Client(#[from] ClientError),
}

/// A connection that publishes ticks.
pub(crate) struct Publisher {
    client: Client,
    address: String,
    prefix: String,
    by_symbol: HashMap<String, usize>,
    topics: Vec<Topic>,
    body: Vec<u8>,
    since_look: u32,
    trouble: Trouble,
}

struct Topic {
    symbol: String,
    handle: TopicHandle,
    counts: SymbolCounts,
}

/// What the server said against us.
#[derive(Default)]
struct Trouble {
    refused: u64,
    first: Option<(String, String, String)>,
    lost: Option<(Reason, u64)>,
}

impl Publisher {
    pub(crate) fn connect(target: &Target) -> Result<Self, PublishError> {
        let address = target.connect.clone();
        let connected = Options::new(address.as_str())
            .name(target.name.as_str())
            .connect();
        let client = connected.map_err(|error| PublishError::Connect {
            address: address.clone(),
            error,
        })?;
        Ok(Self {
            client,
            address,
            prefix: target.symbol_prefix.clone(),
            by_symbol: HashMap::new(),
            topics: Vec::new(),
            body: Vec::new(),
            since_look: 0,
            trouble: Trouble::default(),
        })
    }

    /// Publishes a tick of `symbol`. It leaves with others, at the latest with [`Publisher::wait`]
    /// or [`Publisher::finish`].
    pub(crate) fn publish(
        &mut self,
        symbol: &str,
        event_ns: u64,
        content: &Content,
    ) -> Result<(), PublishError> {
        let index = match self.by_symbol.get(symbol) {
            Some(index) => *index,
            None => self.open(symbol)?,
        };
        self.publish_at(index, event_ns, content)
    }

    /// As [`Publisher::publish`], of the symbol that [`Publisher::open`] gave `index` for.
    pub(crate) fn publish_at(
        &mut self,
        index: usize,
        event_ns: u64,
        content: &Content,
    ) -> Result<(), PublishError> {
        let topic = &mut self.topics[index];
        self.body.clear();
        content.encode(&mut self.body);
        let event = Publish {
            kind: content.kind() as u16,
            event_ns,
            body: &self.body,
        };
        match self.client.publish(topic.handle, &event) {
            Ok(()) => topic.counts.count(content),
            // The reason is among the notices.
            Err(error) => {
                self.look(Duration::ZERO)?;
                return Err(error.into());
            }
        }
        self.since_look += 1;
        if self.since_look == LOOK_EVERY {
            self.look(Duration::ZERO)?;
        }
        Ok(())
    }

    /// The index of a symbol that was not published to yet.
    pub(crate) fn open(&mut self, symbol: &str) -> Result<usize, PublishError> {
        let name = format!("market/{}{symbol}", self.prefix);
        TopicName::new(&name).map_err(|error| PublishError::Symbol {
            symbol: symbol.to_owned(),
            error,
        })?;
        let handle = self.client.topic(&name)?;
        let (symbol, counts) = (symbol.to_owned(), SymbolCounts::default());
        self.by_symbol.insert(symbol.clone(), self.topics.len());
        self.topics.push(Topic {
            symbol,
            handle,
            counts,
        });
        Ok(self.topics.len() - 1)
    }

    /// Sends what is there and listens to the server for up to `wait`; shorter if it says
    /// something.
    pub(crate) fn wait(&mut self, wait: Duration) -> Result<(), PublishError> {
        self.client.flush().or_else(|error| {
            self.look(Duration::ZERO)?;
            Err(PublishError::from(error))
        })?;
        self.look(wait)
    }

    fn look(&mut self, wait: Duration) -> Result<(), PublishError> {
        self.since_look = 0;
        let trouble = &mut self.trouble;
        let polled = self.client.poll(wait, |notice| trouble.heed(&notice));
        self.check()?;
        polled?;
        Ok(())
    }

    fn check(&self) -> Result<(), PublishError> {
        if let Some((topic, code, text)) = &self.trouble.first {
            return Err(PublishError::Refused {
                count: self.trouble.refused,
                topic: topic.clone(),
                code: code.clone(),
                text: text.clone(),
            });
        }
        if let Some((reason, unconfirmed)) = self.trouble.lost {
            return Err(PublishError::Lost {
                address: self.address.clone(),
                reason,
                unconfirmed,
            });
        }
        Ok(())
    }

    /// Waits until every topic has taken in what was published to it, and says goodbye.
    pub(crate) fn finish(&mut self) -> Result<(), PublishError> {
        for index in 0..self.topics.len() {
            let handle = self.topics[index].handle;
            let answer = self.client.command(handle, BARRIER, &[], ANSWER_TIMEOUT);
            let taken_in = match &answer {
                Ok(_) => true,
                Err(ClientError::Refused { code, .. }) => *code == ErrorCode::UnknownCommand as u16,
                Err(_) => false,
            };
            self.look(Duration::ZERO)?;
            if !taken_in {
                answer?;
            }
        }
        self.client.close(ANSWER_TIMEOUT)?;
        Ok(())
    }

    /// Tells `summary` what was published.
    pub(crate) fn report(&self, summary: &mut Summary) {
        for topic in &self.topics {
            summary.add(&topic.symbol, topic.counts);
        }
    }
}

impl Trouble {
    fn heed(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Refused(refused) => {
                self.refused += 1;
                self.first.get_or_insert_with(|| {
                    let code = ErrorCode::from_u16(refused.code)
                        .map_or_else(|| format!("code {}", refused.code), |c| c.to_string());
                    let topic = refused.topic.unwrap_or("a topic").to_owned();
                    (topic, code, refused.text.to_owned())
                });
            }
            Notice::Disconnected(end) => {
                self.lost
                    .get_or_insert((end.reason, end.unconfirmed_publishes));
            }
            _ => {}
        }
    }
}
