//! How often each path was taken: a path that never was proves nothing.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of what the seeds have exercised.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage { $($(#[$doc])* pub $name: u64,)* }

        impl Coverage {
            /// Adds another run's counters.
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            /// Name and count of each.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    /// Turns of cores.
    turns,
    /// Connections accepted.
    accepted,
    /// WELCOMEs received.
    welcomed,
    /// EVENTs received and compared with the model.
    events,
    /// SNAPSHOTs received and compared with the model.
    snapshots,
    /// SUBSCRIBEDs received.
    subscribed,
    /// SUBSCRIBEDs that began with events of the past.
    replayed,
    /// SUBSCRIBEDs that took up exactly where an earlier connection ended.
    resumed,
    /// UNSUBSCRIBEDs received.
    unsubscribed,
    /// UNSUBSCRIBEDs of subscriptions that were not up to date.
    unsubscribed_behind,
    /// GAPs that announce a delay.
    gap_delayed,
    /// GAPs of conflation.
    gap_conflated,
    /// GAPs of history that is gone.
    gap_expired,
    /// GAPs of another numbering.
    gap_reset,
    /// Commands answered with success.
    replies,
    /// Commands refused.
    refused_commands,
    /// Quiet commands refused.
    refused_quiet,
    /// Commands that made several events or none.
    odd_events,
    /// PONGs received.
    pongs,
    /// ERRORs of subscription_limit.
    subscription_limit,
    /// Refusals of topic_limit.
    topic_limit,
    /// ERRORs of connection_limit.
    connection_limit,
    /// ERRORs of already_subscribed.
    already_subscribed,
    /// REPLYs and ERRORs of overloaded.
    overloaded,
    /// ERRORs of not_subscribed.
    not_subscribed,
    /// ERRORs of hello_timeout.
    hello_timeout,
    /// GOODBYEs of idle_timeout.
    idle_timeout,
    /// GOODBYEs of slow_consumer.
    slow_consumer,
    /// Fatal ERRORs of malformed or misplaced frames.
    violations,
    /// Ordinary GOODBYEs.
    goodbyes,
    /// GOODBYEs of a node that stops.
    shutting_down,
    /// Connections closed without a farewell, as they must be when the client is gone or stuck.
    silent_closes,
    /// Times that the core stopped reading a socket.
    receive_stopped,
    /// Times that it went on reading.
    receive_started,
    /// Turns after which input or a catch-up waited for a mailbox.
    parked_turns,
    /// Turns in which a core refused requests because its deliveries were stuck.
    requests_refused,
    /// Parcels that found their mailbox full.
    mailbox_full,
    /// Sends that the socket took only a part of.
    short_sends,
    /// Sends that failed.
    failed_sends,
    /// Turns after which a send was in flight.
    stuck_sends,
    /// Outboxes seen above outbox_bytes.
    outbox_over_budget,
    /// Nodes stopped in the middle of their work.
    early_shutdowns,
    /// Worlds in which a stalled client was left alone while all others had to be complete.
    stalled_worlds,
}
