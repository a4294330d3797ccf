//! Error codes: one vocabulary for REPLY, ERROR and GOODBYE.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why something was refused or closed. Codes are stable; new ones may be added in a
        /// minor version, so an unknown code is kept as a number and treated as its class.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* $name = $value,)* }

        impl ErrorCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code of a number on the wire, or `None` if this version does not know it.
            pub const fn from_u16(value: u16) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }

            /// The code's name in SPEC.md, in logs and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// No error; in GOODBYE: an ordinary close.
    Ok = 0, "ok";
    /// The length field is smaller than a header.
    BadLength = 1, "bad_length";
    /// The length field is larger than the receiver's limit.
    FrameTooLarge = 2, "frame_too_large";
    /// The stream ended inside a frame.
    Truncated = 3, "truncated";
    /// A required type that the receiver does not know, or that only the other side may send.
    UnknownType = 4, "unknown_type";
    /// The body is shorter or longer than the layout of its type.
    BadBody = 5, "bad_body";
    /// HELLO does not start with the magic bytes.
    BadMagic = 6, "bad_magic";
    /// The major version is not spoken here.
    BadVersion = 7, "bad_version";
    /// A text field is not UTF-8.
    BadUtf8 = 8, "bad_utf8";
    /// A name is longer than its limit.
    NameTooLong = 9, "name_too_long";
    /// A topic name is not of the form `kind/name`.
    BadName = 10, "bad_name";
    /// A field has a value outside its meaning.
    BadField = 11, "bad_field";
    /// A frame other than HELLO came before WELCOME.
    NotNegotiated = 12, "not_negotiated";
    /// The frame does not fit the connection's state, such as a second HELLO.
    Unexpected = 13, "unexpected";
    /// The credentials were refused.
    Unauthorized = 14, "unauthorized";
    /// No machine is registered for the topic's kind.
    UnknownKind = 15, "unknown_kind";
    /// The topic id was never given to anybody.
    UnknownTopic = 16, "unknown_topic";
    /// The connection does not hold that subscription.
    NotSubscribed = 17, "not_subscribed";
    /// The connection holds that subscription already.
    AlreadySubscribed = 18, "already_subscribed";
    /// The connection holds as many subscriptions as the server allows.
    SubscriptionLimit = 19, "subscription_limit";
    /// The server holds as many topics as it is configured for.
    TopicLimit = 20, "topic_limit";
    /// The server holds as many connections as it is configured for.
    ConnectionLimit = 21, "connection_limit";
    /// The machine does not know that command.
    UnknownCommand = 22, "unknown_command";
    /// The command's payload does not fit the machine's layout.
    BadCommand = 23, "bad_command";
    /// A number does not fit its field; the text names it.
    OutOfRange = 24, "out_of_range";
    /// A bound of the server is reached; try again after `retry_after_ms`.
    Overloaded = 25, "overloaded";
    /// The client reads too slowly and its policy is `disconnect`.
    SlowConsumer = 26, "slow_consumer";
    /// Nothing was received for longer than the idle timeout.
    IdleTimeout = 27, "idle_timeout";
    /// HELLO did not come in time.
    HelloTimeout = 28, "hello_timeout";
    /// The server is stopping; reconnect after `retry_after_ms`.
    ShuttingDown = 29, "shutting_down";
    /// A fault of the server; its log has the reason.
    Internal = 30, "internal";
    /// The topic's kind is durable, and the server keeps no journal.
    NoJournal = 31, "no_journal";
    /// The command was sent before, so long ago that its reply is no longer kept; whether it was
    /// carried out cannot be told.
    Forgotten = 32, "forgotten";
    /// The server keeps no database to read from.
    NoDatabase = 33, "no_database";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_u16(code as u16), Some(code));
        }
        assert_eq!(ErrorCode::from_u16(u16::MAX), None);
    }
}
