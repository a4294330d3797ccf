//! `tickring.bin.v1`: native frames.

use bytes::Bytes;
use tickring_client::HistoryQuery;
use tickring_protocol::{Decoded, ErrorCode, Frame, HEADER_LEN, VERSION_MAJOR, decode};

use super::Extra;
use super::request::{Ask, Fault, TopicKey};

/// Type of STATUS, an optional message.
pub(crate) const STATUS_TYPE: u8 = 0x80;
/// Tag of the extension field of GAP `reset` that tells the new epoch.
pub(crate) const GAP_EPOCH_TAG: u16 = 0x8001;

pub(super) fn encode(frame: &Frame<'_>, extra: Extra) -> Bytes {
    let mut out = Vec::new();
    frame.encode(&mut out);
    if let Extra::Epoch(epoch) = extra {
        out.extend_from_slice(&GAP_EPOCH_TAG.to_le_bytes());
        out.extend_from_slice(&8u16.to_le_bytes());
        out.extend_from_slice(&epoch.to_le_bytes());
        let len = out.len() as u32; // a GAP has 44 bytes
        out[..4].copy_from_slice(&len.to_le_bytes());
    }
    out.into()
}

pub(super) fn status(up: bool) -> Bytes {
    let mut out = vec![0; HEADER_LEN + 8];
    out[0] = 16;
    out[4] = STATUS_TYPE;
    out[HEADER_LEN] = up.into();
    out.into()
}

/// Frames follow each other, and the last one ends with the message.
pub(super) fn read(mut bytes: &[u8], each: &mut dyn FnMut(Result<Ask, Fault>) -> bool) {
    if bytes.is_empty() {
        each(Err(Fault::fatal(ErrorCode::BadBody, "an empty message")));
    }
    while !bytes.is_empty() {
        let limit = bytes.len();
        let (ask, len) = match decode(bytes, limit) {
            Ok(Decoded::Frame { frame, len }) => (Some(ask(&frame)), len),
            Ok(Decoded::Skipped { len }) => (None, len),
            Ok(Decoded::NeedMore { .. }) => {
                let text = "the message ends inside a frame";
                (Some(Err(Fault::fatal(ErrorCode::Truncated, text))), limit)
            }
            Err(error) => {
                let fault = Fault {
                    code: match error.code {
                        // The frame's length goes beyond the message.
                        ErrorCode::FrameTooLarge => ErrorCode::Truncated,
                        code => code,
                    },
                    frame_type: error.frame_type,
                    request_id: error.request_id,
                    fatal: error.is_fatal(),
                    is_command: error.frame_type == tickring_protocol::FrameType::Command as u8,
                    text: "the frame is malformed".to_owned(),
                };
                (Some(Err(fault)), error.resume_at.unwrap_or(limit))
            }
        };
        if let Some(ask) = ask
            && !each(ask)
        {
            return;
        }
        bytes = &bytes[len..];
    }
}

fn ask(frame: &Frame<'_>) -> Result<Ask, Fault> {
    Ok(match *frame {
        Frame::Hello(hello) => {
            if hello.major != VERSION_MAJOR {
                let text = "this bridge speaks major version 1";
                return Err(Fault::fatal(ErrorCode::BadVersion, text).of(frame, 0));
            }
            Ask::Hello {
                name: hello.name.to_owned(),
                session: hello.session,
                credentials: hello.credentials.to_vec(),
            }
        }
        Frame::Subscribe(subscribe) => Ask::Subscribe {
            id: subscribe.request_id,
            topic: subscribe.topic.to_owned(),
            from_seq: subscribe.from_seq,
            epoch: subscribe.epoch,
            policy: subscribe.policy,
        },
        Frame::Unsubscribe(unsubscribe) => Ask::Unsubscribe {
            id: unsubscribe.request_id,
            topic: TopicKey::Id(unsubscribe.topic_id),
        },
        Frame::Command(command) => Ask::Command {
            id: command.request_id,
            topic: match command.topic_id {
                0 => TopicKey::Name(command.topic.to_owned()),
                id => TopicKey::Id(id),
            },
            command: command.command,
            payload: command.payload.to_vec(),
            quiet: command.quiet,
        },
        Frame::History(history) => Ask::History {
            id: history.request_id,
            topic: history.topic.to_owned(),
            query: HistoryQuery {
                series: history.series,
                newest_first: history.newest_first,
                limit: history.limit,
                from_ns: history.from_ns,
                to_ns: history.to_ns,
                cursor: history.cursor,
            },
        },
        Frame::Ping(ping) => Ask::Ping { token: ping.token },
        Frame::Pong(_) => Ask::Nothing,
        Frame::Goodbye(_) => Ask::Goodbye,
        _ => {
            let text = "a message that only the server sends";
            return Err(Fault::fatal(ErrorCode::UnknownType, text).of(frame, 0));
        }
    })
}
