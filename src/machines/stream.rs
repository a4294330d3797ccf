//! `stream/…` and `log/…`: plain sequenced publish and subscribe, in memory and durable.

use tickring_protocol::{ErrorCode, EventKind, PUBLISH, Publish};

use super::{Command, Machine, Outcome, Recorded, Refusal, Unreadable};

/// Hands every published message on as an event. It has no state but its events, so newcomers
/// get no snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream;

impl Machine for Stream {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        if command.code != PUBLISH {
            return Err(Refusal::new(
                ErrorCode::UnknownCommand,
                "stream and log topics know one command: PUBLISH",
            ));
        }
        let publish = Publish::decode(command.payload)?;
        if publish.kind != EventKind::Message as u16 {
            return Err(Refusal::new(
                ErrorCode::BadCommand,
                "stream and log topics take events of kind MESSAGE",
            ));
        }
        out.event(publish.kind, event_time(&publish, command), publish.body);
        Ok(())
    }

    fn snapshot(&self, _out: &mut Vec<u8>) -> Option<u16> {
        None
    }

    fn save(&self, _out: &mut Vec<u8>) {}

    fn load(&mut self, _state: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }

    fn replay(&mut self, _event: &Recorded<'_>) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// The publisher's event time, or the node's where it gave none.
pub(super) fn event_time(publish: &Publish<'_>, command: &Command<'_>) -> u64 {
    if publish.event_ns == 0 {
        command.now_ns
    } else {
        publish.event_ns
    }
}
