//! What a ring is asked to be.

/// The sizes of a ring. All of them are bounds: nothing here grows later.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// Submission queue entries, a power of two, at most 32,768. A full queue costs an extra system call, never an entry.
    pub entries: u32,
    /// Completion queue entries, at least `entries`, at most 65,536. When it is full the kernel keeps the rest in
    /// memory of its own and every multishot operation has to be armed again, so be generous: 16 bytes each.
    pub cq_entries: u32,
    /// Direct descriptors, thus connections of this ring. At most the open file limit (`RLIMIT_NOFILE`).
    pub descriptors: u32,
    /// Receive buffers shared by all sockets of the ring: a power of two, at most 32,768.
    pub recv_buffers: u16,
    /// Bytes of each receive buffer. A completion never carries more than one buffer.
    pub recv_buffer_len: u32,
    /// Which io_uring techniques may be used.
    pub techniques: Techniques,
}

impl Default for RingConfig {
    /// 4,096 submissions, 16,384 completions, 16,384 descriptors, 512 receive buffers of 16 KiB.
    fn default() -> Self {
        Self {
            entries: 4096,
            cq_entries: 16_384,
            descriptors: 16_384,
            recv_buffers: 512,
            recv_buffer_len: 16 * 1024,
            techniques: Techniques::default(),
        }
    }
}

/// Each technique can be switched off, so that a benchmark can say what it is worth. On means: used if the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Techniques {
    /// One receive operation per connection that stays armed, instead of a new one for each arrival.
    pub multishot_recv: bool,
    /// Several arrivals share a receive buffer until it is full (Linux 6.12), instead of a buffer for each.
    pub incremental_buffers: bool,
    /// Completion work runs when the ring waits, instead of whenever the kernel returns to this thread.
    pub defer_taskrun: bool,
    /// No interrupt is sent to this thread for completion work. Implied by `defer_taskrun`.
    pub coop_taskrun: bool,
    /// Another ring is woken by `IORING_OP_MSG_RING` with the next submit, instead of a write to its eventfd at once.
    pub message_wake: bool,
    /// A turn sends to some of many connections and then takes in what came meanwhile, instead of sending to all first.
    pub slices: bool,
    /// Connections of a busy stream rest after a send, and arrivals wake nobody meanwhile, so that the next carries more.
    pub gather: bool,
    /// While conversations go on, the ring is looked at for a moment before this thread sleeps.
    pub spin: bool,
}

impl Techniques {
    /// All that the kernel has.
    pub const ALL: Self = Self {
        multishot_recv: true,
        incremental_buffers: true,
        defer_taskrun: true,
        coop_taskrun: true,
        message_wake: true,
        slices: true,
        gather: true,
        spin: true,
    };

    /// Switches one off by its name, in which `-` stands for `_`. Whether there is one of that name.
    pub fn switch_off(&mut self, name: &str) -> bool {
        let switch = match name {
            "multishot-recv" => &mut self.multishot_recv,
            "incremental-buffers" => &mut self.incremental_buffers,
            "defer-taskrun" => &mut self.defer_taskrun,
            "coop-taskrun" => &mut self.coop_taskrun,
            "message-wake" => &mut self.message_wake,
            "slices" => &mut self.slices,
            "gather" => &mut self.gather,
            "spin" => &mut self.spin,
            _ => return false,
        };
        *switch = false;
        true
    }

    /// The names that [`switch_off`](Self::switch_off) knows.
    pub const NAMES: [&str; 8] = [
        "multishot-recv",
        "incremental-buffers",
        "defer-taskrun",
        "coop-taskrun",
        "message-wake",
        "slices",
        "gather",
        "spin",
    ];
}

impl Default for Techniques {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_technique_can_be_switched_off() {
        let mut left = Techniques::ALL;
        for name in Techniques::NAMES {
            let before = left;
            assert!(left.switch_off(name), "{name}");
            assert_ne!(left, before, "{name}");
        }
        assert!(!left.switch_off("magic"));
    }
}
