//! Topics that show a view of another topic's machine.

use tickring_protocol::{ErrorCode, Publish};

use super::stream::event_time;
use super::{Command, Machine, Outcome, Recorded, Refusal, Unreadable};

/// Hands what a view shows on as events, all of one layout; clients may only listen. The newest
/// event is the snapshot.
#[derive(Clone, Debug)]
pub struct Derived {
    kind: u16,
    newest: Vec<u8>,
}

impl Derived {
    /// Of a view whose content has the layout `kind`.
    pub fn new(kind: u16) -> Self {
        Self {
            kind,
            newest: Vec::new(),
        }
    }

    fn keep(&mut self, body: &[u8]) {
        self.newest.clear();
        self.newest.extend_from_slice(body);
    }
}

impl Machine for Derived {
    fn apply(&mut self, command: &Command<'_>, out: &mut Outcome) -> Result<(), Refusal> {
        if !command.internal {
            return Err(Refusal::new(
                ErrorCode::UnknownCommand,
                "topics of this kind are made by the server from other topics; subscribe to them",
            ));
        }
        let shown = Publish::decode(command.payload)?;
        debug_assert_eq!(shown.kind, self.kind, "a view has one layout");
        self.keep(shown.body);
        out.event(shown.kind, event_time(&shown, command), shown.body);
        Ok(())
    }

    fn snapshot(&self, out: &mut Vec<u8>) -> Option<u16> {
        out.extend_from_slice(&self.newest);
        Some(self.kind)
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.newest);
    }

    fn load(&mut self, state: &[u8]) -> Result<(), Unreadable> {
        self.keep(state);
        Ok(())
    }

    fn replay(&mut self, event: &Recorded<'_>) -> Result<(), Unreadable> {
        self.keep(event.body);
        Ok(())
    }
}
