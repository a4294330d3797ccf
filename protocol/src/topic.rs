//! Topic names: `kind/name`.

use crate::ErrorCode;

/// The most bytes of a topic name, its kind and slash included.
pub const MAX_TOPIC_LEN: usize = 255;
const MAX_KIND_LEN: usize = 32;

/// A checked topic name, `kind/name`: a kind of 1 to 32 lower-case letters, digits, `-` or `_`,
/// a slash, and a name of at least one byte without white space or control characters; at most
/// [`MAX_TOPIC_LEN`] bytes in all. The name itself may hold further slashes (`candle/1m/AAPL`).
///
/// ```
/// use tickring_protocol::TopicName;
///
/// let topic = TopicName::new("market/AAPL")?;
/// assert_eq!((topic.kind(), topic.name()), ("market", "AAPL"));
/// assert!(TopicName::new("no slash").is_err());
/// # Ok::<(), tickring_protocol::TopicError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName<'a> {
    text: &'a str,
    kind_len: usize,
}

/// Why a text is no topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Longer than [`MAX_TOPIC_LEN`] bytes.
    #[error("topic name has {0} bytes; at most {MAX_TOPIC_LEN} are allowed")]
    TooLong(usize),
    /// Not of the form `kind/name`.
    #[error(
        "a topic is written kind/name, such as market/AAPL: a kind of 1 to 32 of a-z 0-9 - _, a slash, a name without spaces"
    )]
    Malformed,
}

impl TopicError {
    /// The code that a server answers with.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooLong(_) => ErrorCode::NameTooLong,
            Self::Malformed => ErrorCode::BadName,
        }
    }
}

impl<'a> TopicName<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`TopicError`] says which rule is broken.
    pub fn new(text: &'a str) -> Result<Self, TopicError> {
        if text.len() > MAX_TOPIC_LEN {
            return Err(TopicError::TooLong(text.len()));
        }
        let (kind, name) = text.split_once('/').ok_or(TopicError::Malformed)?;
        let kind_ok = (1..=MAX_KIND_LEN).contains(&kind.len())
            && kind
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        let name_ok =
            !name.is_empty() && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        if !kind_ok || !name_ok {
            return Err(TopicError::Malformed);
        }
        Ok(Self {
            text,
            kind_len: kind.len(),
        })
    }

    /// The whole name.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The part before the first slash: which machine runs the topic.
    pub fn kind(&self) -> &'a str {
        &self.text[..self.kind_len]
    }

    /// The part behind the first slash.
    pub fn name(&self) -> &'a str {
        &self.text[self.kind_len + 1..]
    }
}

impl std::fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_splits_at_its_first_slash() {
        let topic = TopicName::new("candle/1m/AAPL").unwrap();
        assert_eq!((topic.kind(), topic.name()), ("candle", "1m/AAPL"));
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in [
            "",
            "market",
            "/x",
            "market/",
            "Market/x",
            "market/a b",
            "market/a\n",
            "mär/x",
        ] {
            assert_eq!(TopicName::new(bad), Err(TopicError::Malformed), "{bad:?}");
        }
        assert_eq!(
            TopicName::new(&format!("a{}/x", "a".repeat(32))),
            Err(TopicError::Malformed)
        );
        let long = format!("a/{}", "x".repeat(254));
        assert_eq!(TopicName::new(&long), Err(TopicError::TooLong(256)));
    }
}
