//! What a client asks for, and the reading of `tickring.json.v1`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tickring_client::HistoryQuery;
use tickring_protocol::{
    Cursor, ErrorCode, EventKind, Frame, MAX_CREDENTIALS_LEN, MAX_NAME_LEN, Micros, MicrosError,
    PUBLISH, Policy, Publish, Quote, Series, Side, Trade,
};

/// The largest number of JSON that every reader keeps exact.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// A topic by its name, or by the bridge's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicKey {
    Name(String),
    Id(u32),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    Hello {
        name: String,
        /// 0: a new one.
        session: u128,
        credentials: Vec<u8>,
    },
    Subscribe {
        id: u64,
        topic: String,
        from_seq: u64,
        epoch: u64,
        policy: Policy,
    },
    Unsubscribe {
        id: u64,
        topic: TopicKey,
    },
    Command {
        id: u64,
        topic: TopicKey,
        command: u16,
        payload: Vec<u8>,
        quiet: bool,
    },
    History {
        id: u64,
        topic: String,
        query: HistoryQuery,
    },
    Ping {
        token: u64,
    },
    Goodbye,
    /// Needs no answer.
    Nothing,
}

/// Why something was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    /// Type of the native frame; 0: none.
    pub(crate) frame_type: u8,
    pub(crate) request_id: u64,
    pub(crate) fatal: bool,
    /// Answered with REPLY if it is not fatal.
    pub(crate) is_command: bool,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn fatal(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            frame_type: 0,
            request_id: 0,
            fatal: true,
            is_command: false,
            text: text.into(),
        }
    }

    /// The same, of that frame.
    pub(crate) fn of(mut self, frame: &Frame<'_>, request_id: u64) -> Self {
        self.frame_type = frame.frame_type() as u8;
        self.request_id = request_id;
        self
    }

    fn field(text: impl Into<String>) -> Self {
        Self::fatal(ErrorCode::BadField, text)
    }
}

/// Reads a text message: an object, or an array of objects.
pub(super) fn json(message: &[u8], each: &mut dyn FnMut(Result<Ask, Fault>) -> bool) {
    match serde_json::from_slice(message) {
        Ok(Value::Array(values)) if !values.is_empty() => {
            for value in values {
                if !each(ask(value)) {
                    return;
                }
            }
        }
        Ok(value) => {
            each(ask(value));
        }
        Err(error) => {
            each(Err(Fault::fatal(
                ErrorCode::BadBody,
                format!("not JSON: {error}"),
            )));
        }
    }
}

fn ask(value: Value) -> Result<Ask, Fault> {
    if !value.is_object() {
        let text = "a message is an object, or an array of objects";
        return Err(Fault::fatal(ErrorCode::BadBody, text));
    }
    let Some(Value::String(kind)) = value.get("type") else {
        let text = "`type` is missing, or no string";
        return Err(Fault::fatal(ErrorCode::UnknownType, text));
    };
    match kind.as_str() {
        "hello" => fields::<HelloFields>(value)?.ask(),
        "subscribe" => fields::<SubscribeFields>(value)?.ask(),
        "unsubscribe" => {
            let told: UnsubscribeFields = fields(value)?;
            Ok(Ask::Unsubscribe {
                id: told.id.0,
                topic: TopicKey::Name(told.topic),
            })
        }
        "publish" => fields::<PublishFields>(value)?.ask(),
        "command" => fields::<CommandFields>(value)?.ask(),
        "history" => fields::<HistoryFields>(value)?.ask(),
        "ping" => Ok(Ask::Ping {
            token: fields::<PingFields>(value)?.token.0,
        }),
        "pong" => Ok(Ask::Nothing),
        "goodbye" => Ok(Ask::Goodbye),
        other => {
            let text = format!("`type` {other:?} is none that a client sends");
            Err(Fault::fatal(ErrorCode::UnknownType, text))
        }
    }
}

fn fields<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Fault> {
    serde_json::from_value(value).map_err(|error| Fault::field(error.to_string()))
}

/// A request id, seq or token: a JSON number that every reader keeps exact.
#[derive(Clone, Copy, Debug, Default)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Option::<u64>::deserialize(from)?.unwrap_or(0) {
            number if number <= MAX_NUMBER => Ok(Self(number)),
            _ => Err(serde::de::Error::custom("a number above 2^53 - 1")),
        }
    }
}

/// A u64: a string of digits, or a number that every reader keeps exact.
#[derive(Clone, Copy, Debug)]
struct Digits(u64);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Value::deserialize(from)? {
            Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text
                .parse()
                .map(Self)
                .map_err(|_| D::Error::custom(format!("{text:?} is no u64"))),
            Value::Number(number) => match number.as_u64() {
                Some(number) if number <= MAX_NUMBER => Ok(Self(number)),
                _ => Err(D::Error::custom(
                    "write numbers of 2^53 and more as strings",
                )),
            },
            _ => Err(D::Error::custom("write a string of digits")),
        }
    }
}

#[derive(Deserialize)]
struct HelloFields {
    name: Option<String>,
    session: Option<String>,
    credentials: Option<String>,
}

impl HelloFields {
    fn ask(self) -> Result<Ask, Fault> {
        let name = self.name.unwrap_or_default();
        let credentials = self.credentials.unwrap_or_default().into_bytes();
        if name.len() > MAX_NAME_LEN || credentials.len() > MAX_CREDENTIALS_LEN {
            let text = "`name` has at most 64 bytes, `credentials` at most 4096";
            return Err(Fault::fatal(ErrorCode::NameTooLong, text));
        }
        let session = match self.session.as_deref() {
            None | Some("") => 0,
            Some(hex) if hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u128::from_str_radix(hex, 16).unwrap_or_default()
            }
            Some(_) => return Err(Fault::field("`session` has 32 hexadecimal digits")),
        };
        Ok(Ask::Hello {
            name,
            session,
            credentials,
        })
    }
}

#[derive(Deserialize)]
struct SubscribeFields {
    #[serde(default)]
    id: Number,
    topic: String,
    #[serde(default)]
    from_seq: Number,
    epoch: Option<Digits>,
    policy: Option<String>,
}

impl SubscribeFields {
    fn ask(self) -> Result<Ask, Fault> {
        let policy = match self.policy.as_deref() {
            None | Some("default") => Policy::Default,
            Some("conflate") => Policy::Conflate,
            Some("resume") => Policy::Resume,
            Some("disconnect") => Policy::Disconnect,
            Some(_) => {
                return Err(Fault::field(
                    "`policy` is default, conflate, resume or disconnect",
                ));
            }
        };
        Ok(Ask::Subscribe {
            id: self.id.0,
            topic: self.topic,
            from_seq: self.from_seq.0,
            epoch: self.epoch.map_or(0, |epoch| epoch.0),
            policy,
        })
    }
}

#[derive(Deserialize)]
struct UnsubscribeFields {
    #[serde(default)]
    id: Number,
    topic: String,
}

#[derive(Deserialize)]
struct PingFields {
    #[serde(default)]
    token: Number,
}

#[derive(Deserialize)]
struct CommandFields {
    #[serde(default)]
    id: Number,
    topic: String,
    command: u16,
    data: Option<String>,
    data_base64: Option<String>,
    quiet: Option<bool>,
}

impl CommandFields {
    fn ask(self) -> Result<Ask, Fault> {
        Ok(Ask::Command {
            id: self.id.0,
            topic: TopicKey::Name(self.topic),
            command: self.command,
            payload: data(self.data, self.data_base64)?,
            quiet: self.quiet.unwrap_or(false),
        })
    }
}

fn data(text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, Fault> {
    match (text, base64) {
        (text, None) => Ok(text.unwrap_or_default().into_bytes()),
        (None, Some(base64)) => STANDARD
            .decode(base64)
            .map_err(|error| Fault::field(format!("`data_base64`: {error}"))),
        (Some(_), Some(_)) => Err(Fault::field("give `data` or `data_base64`, not both")),
    }
}

#[derive(Deserialize)]
struct PublishFields {
    #[serde(default)]
    id: Number,
    topic: String,
    kind: String,
    ts_event_ns: Option<Digits>,
    quiet: Option<bool>,
    data: Option<String>,
    data_base64: Option<String>,
    price: Option<String>,
    qty: Option<String>,
    side: Option<String>,
    bid: Option<String>,
    bid_qty: Option<String>,
    ask: Option<String>,
    ask_qty: Option<String>,
}

impl PublishFields {
    fn ask(self) -> Result<Ask, Fault> {
        let mut bytes = Vec::new();
        let kind = match self.kind.as_str() {
            "message" => {
                bytes = data(self.data, self.data_base64)?;
                EventKind::Message
            }
            "trade" => {
                let (price, price_decimals) = self.decimal(&self.price, "price")?;
                let (qty, qty_decimals) = self.decimal(&self.qty, "qty")?;
                let side = match self.side.as_deref() {
                    None | Some("unknown") => Side::Unknown,
                    Some("buy") => Side::Buy,
                    Some("sell") => Side::Sell,
                    Some(_) => return Err(Fault::field("`side` is buy, sell or unknown")),
                };
                Trade {
                    price,
                    qty,
                    side,
                    price_decimals,
                    qty_decimals,
                }
                .encode(&mut bytes);
                EventKind::Trade
            }
            "quote" => {
                let (bid, bid_decimals) = self.decimal(&self.bid, "bid")?;
                let (ask, ask_decimals) = self.decimal(&self.ask, "ask")?;
                let (bid_qty, bid_qty_decimals) = self.decimal(&self.bid_qty, "bid_qty")?;
                let (ask_qty, ask_qty_decimals) = self.decimal(&self.ask_qty, "ask_qty")?;
                Quote {
                    bid,
                    bid_qty,
                    ask,
                    ask_qty,
                    price_decimals: bid_decimals.max(ask_decimals),
                    qty_decimals: bid_qty_decimals.max(ask_qty_decimals),
                }
                .encode(&mut bytes);
                EventKind::Quote
            }
            _ => return Err(Fault::field("`kind` is message, trade or quote")),
        };
        let mut payload = Vec::new();
        Publish {
            kind: kind as u16,
            event_ns: self.ts_event_ns.map_or(0, |ns| ns.0),
            body: &bytes,
        }
        .encode(&mut payload);
        Ok(Ask::Command {
            id: self.id.0,
            topic: TopicKey::Name(self.topic),
            command: PUBLISH,
            payload,
            quiet: self.quiet.unwrap_or(false),
        })
    }

    /// Exactly what was written. What does not fit is refused, and the connection goes on.
    fn decimal(&self, text: &Option<String>, field: &str) -> Result<(Micros, u8), Fault> {
        let Some(text) = text else {
            return Err(Fault::field(format!("`{field}` is missing")));
        };
        Micros::parse_scaled(text).map_err(|error| match error {
            MicrosError::TooPrecise | MicrosError::OutOfRange => Fault {
                code: ErrorCode::OutOfRange,
                frame_type: 0,
                request_id: self.id.0,
                fatal: false,
                is_command: true,
                text: format!("`{field}`: {error}"),
            },
            _ => Fault::field(format!("`{field}`: {error}")),
        })
    }
}

#[derive(Deserialize)]
struct HistoryFields {
    #[serde(default)]
    id: Number,
    topic: String,
    series: String,
    newest_first: Option<bool>,
    limit: Option<u32>,
    from_ns: Option<Digits>,
    to_ns: Option<Digits>,
    cursor: Option<CursorFields>,
}

#[derive(Deserialize)]
struct CursorFields {
    ns: Digits,
    seq: Digits,
}

impl HistoryFields {
    fn ask(self) -> Result<Ask, Fault> {
        let named = |series: &&Series| series.name() == self.series;
        let Some(&series) = Series::ALL.iter().find(named) else {
            return Err(Fault::field("`series` is ticks, 1s, 1m, 1h or 1d"));
        };
        Ok(Ask::History {
            id: self.id.0,
            topic: self.topic,
            query: HistoryQuery {
                series,
                newest_first: self.newest_first.unwrap_or(false),
                limit: self.limit.unwrap_or(0),
                from_ns: self.from_ns.map_or(0, |ns| ns.0),
                to_ns: self.to_ns.map_or(u64::MAX, |ns| ns.0),
                cursor: self.cursor.map_or(Cursor::START, |cursor| Cursor {
                    event_ns: cursor.ns.0,
                    seq: cursor.seq.0,
                }),
            },
        })
    }
}
