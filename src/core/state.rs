//! The life of a connection: every state, every event, one table.

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted; nothing received yet.
    Accepted,
    /// Part of HELLO received.
    Negotiating,
    /// WELCOME sent.
    Active,
    /// Input is no longer read; what was promised goes out, and last a GOODBYE or ERROR.
    Draining,
    /// All is sent and our side of the socket is shut; waiting for the client's side, so that the
    /// last bytes are not lost to a reset.
    Lingering,
    /// The descriptor is being closed.
    Closing,
    /// The descriptor is free again.
    Closed,
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Bytes came that are no whole frame yet.
    Bytes,
    /// A valid HELLO came.
    Hello,
    /// Another valid frame came.
    Frame,
    /// Bytes came that break the protocol, or the stream ended inside a frame.
    Violation,
    /// GOODBYE came.
    PeerGoodbye,
    /// The client shut its side of the stream, at the end of a frame.
    EndOfStream,
    /// The socket failed.
    SocketError,
    /// The node stops.
    Shutdown,
    /// The client reads too slowly and a subscription's policy is to disconnect then.
    SlowConsumer,
    /// The time allowed in this state is over.
    Deadline,
    /// The last byte, farewell included, was taken by the socket.
    Drained,
    /// The descriptor was given back.
    Released,
}

/// What the core does about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing: the event is expected and asks for nothing, or means nothing any more.
    Ignore,
    /// Answer WELCOME.
    Open,
    /// Do what the frame says.
    Handle,
    /// Stop reading, drop subscriptions, finish what is in progress, then say ERROR.
    Refuse,
    /// Stop reading, drop subscriptions, finish what is in progress, then say GOODBYE.
    SayGoodbye,
    /// Shut our side of the stream.
    ShutWrite,
    /// Close the descriptor at once.
    Close,
    /// Forget the connection.
    Free,
}

/// The table: what an event means in a state. Total: each pair has a defined answer.
pub const fn transition(state: State, event: Event) -> (State, Action) {
    use {Action as A, Event as E, State as S};
    match (state, event) {
        (S::Accepted | S::Negotiating, E::Bytes) => (S::Negotiating, A::Ignore),
        (S::Accepted | S::Negotiating, E::Hello) => (S::Active, A::Open),
        (S::Accepted | S::Negotiating, E::Frame | E::Violation | E::Deadline) => {
            (S::Draining, A::Refuse)
        }
        (S::Accepted | S::Negotiating, E::PeerGoodbye | E::Shutdown) => {
            (S::Draining, A::SayGoodbye)
        }
        (S::Accepted | S::Negotiating, E::EndOfStream) => (S::Closing, A::Close),

        (S::Active, E::Bytes) => (S::Active, A::Ignore),
        (S::Active, E::Frame) => (S::Active, A::Handle),
        (S::Active, E::Hello | E::Violation) => (S::Draining, A::Refuse),
        (
            S::Active,
            E::PeerGoodbye | E::EndOfStream | E::Shutdown | E::SlowConsumer | E::Deadline,
        ) => (S::Draining, A::SayGoodbye),

        (S::Draining, E::Drained) => (S::Lingering, A::ShutWrite),
        (S::Lingering, E::EndOfStream) => (S::Closing, A::Close),
        (S::Draining | S::Lingering, E::Deadline) => (S::Closing, A::Close),

        (S::Accepted | S::Negotiating | S::Active | S::Draining | S::Lingering, E::SocketError) => {
            (S::Closing, A::Close)
        }
        (S::Closed, _) => (S::Closed, A::Ignore),
        (_, E::Released) => (S::Closed, A::Free),
        (same, _) => (same, A::Ignore),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Accepted,
        State::Negotiating,
        State::Active,
        State::Draining,
        State::Lingering,
        State::Closing,
        State::Closed,
    ];
    const EVENTS: [Event; 12] = [
        Event::Bytes,
        Event::Hello,
        Event::Frame,
        Event::Violation,
        Event::PeerGoodbye,
        Event::EndOfStream,
        Event::SocketError,
        Event::Shutdown,
        Event::SlowConsumer,
        Event::Deadline,
        Event::Drained,
        Event::Released,
    ];

    #[test]
    fn a_connection_never_goes_back() {
        let rank = |state| STATES.iter().position(|s| *s == state);
        for state in STATES {
            for event in EVENTS {
                let (next, _) = transition(state, event);
                assert!(
                    rank(next) >= rank(state),
                    "{state:?} + {event:?} -> {next:?}"
                );
            }
        }
    }

    #[test]
    fn each_way_of_ending_is_done_once() {
        for state in STATES {
            for event in EVENTS {
                let (next, action) = transition(state, event);
                match action {
                    Action::Open => assert_eq!(next, State::Active),
                    Action::Refuse | Action::SayGoodbye => assert_eq!(next, State::Draining),
                    Action::ShutWrite => assert_eq!(next, State::Lingering),
                    Action::Close => assert_eq!(next, State::Closing),
                    Action::Free => assert_eq!(next, State::Closed),
                    Action::Handle => assert_eq!((state, next), (State::Active, State::Active)),
                    Action::Ignore => continue,
                }
                assert!(
                    action == Action::Handle || next != state,
                    "{state:?} + {event:?}"
                );
            }
        }
    }

    #[test]
    fn a_failed_socket_and_a_deadline_end_every_open_state() {
        for state in &STATES[..5] {
            let (next, action) = transition(*state, Event::SocketError);
            assert_eq!((next, action), (State::Closing, Action::Close));
            assert_ne!(transition(*state, Event::Deadline).0, *state);
        }
    }

    #[test]
    fn frames_are_handled_only_between_welcome_and_goodbye() {
        for state in STATES {
            let handled = transition(state, Event::Frame).1 == Action::Handle;
            assert_eq!(handled, state == State::Active);
        }
    }
}
