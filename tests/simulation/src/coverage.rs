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
    /// Turns that left some of a fan-out to the next.
    sliced_turns,
    /// Turns at the end of which connections rested.
    resting_turns,
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
    /// HISTORY_PAGEs received and compared with what was read.
    pages,
    /// Reads refused at a bound.
    reads_refused,
    /// Reads that the database did not answer.
    reads_unanswered,
    /// HISTORYs to a node without a database.
    no_database,
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
    /// Refusals of durable kinds by a node without a journal.
    no_journal,
    /// Crashes by loss of power, with what was not synced.
    power_losses,
    /// Processes killed, with their disks whole.
    kills,
    /// Orderly stops behind which the node was started again.
    restarts,
    /// Nodes that stopped because a lane failed.
    journal_failures,
    /// Starts with another number of cores than before.
    cores_changed,
    /// Writes brought to disk.
    commits,
    /// Writes of which the disk took only a part.
    short_writes,
    /// Writes that a crash cut.
    torn_writes,
    /// Writes, and makings and removals of files, that failed.
    failed_writes,
    /// Syncs that failed.
    failed_syncs,
    /// Writes and makings of files for which the disk had no room.
    full_disks,
    /// Turns of a lane that had no room.
    journal_full,
    /// Files that were made before their segments.
    spare_files,
    /// Lanes without room for longer than commands wait, while everybody had an answer.
    answered_while_full,
    /// Worlds whose lanes were so small that states found no room in them, which stays so.
    stuck_journals,
    /// Turns of a core that found a lane's mailbox full.
    port_full,
    /// Segments removed.
    segments_removed,
    /// Torn tails that recovery cut.
    torn_tails,
    /// Recoveries that were done again before the node went on.
    second_recoveries,
    /// Topics that were recovered from a state.
    from_states,
    /// Events of durable topics that a crash took before anybody saw them.
    lost_unseen,
    /// Events of volatile topics that a crash took.
    lost_volatile,
    /// Commands that were sent again in the same run, and were answered.
    repeats,
    /// Commands that were sent again after a restart, and were answered.
    repeats_after_restart,
    /// Of those, the ones that had been done before.
    remembered_after_restart,
    /// Refusals of commands whose answers are no longer kept.
    forgotten,
    /// Of those, the ones that went for the bytes of all sessions.
    forgotten_for_room,
    /// Commands refused because one more session could not be remembered.
    sessions_refused,
    /// SUBSCRIBEDs that took up exactly where an earlier run ended.
    resumed_after_restart,
    /// GAPs that tell a client that a restart has ended its numbering.
    reset_after_restart,
    /// Worlds in which a stalled client was left alone while all others had to be complete.
    stalled_worlds,
}
