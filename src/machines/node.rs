//! `node/…`: the node's own figures.

use tickring_protocol::{ErrorCode, EventKind};

use super::{Command, Machine, Outcome, Recorded, Refusal, Unreadable};

/// Hands the figures that a core reports about itself on as events; clients may only listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeMachine;

impl Machine for NodeMachine {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        if !command.internal {
            return Err(Refusal::new(
                ErrorCode::UnknownCommand,
                "node topics are fed by the node itself; subscribe to them",
            ));
        }
        out.event(EventKind::NodeStats as u16, command.now_ns, command.payload);
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
