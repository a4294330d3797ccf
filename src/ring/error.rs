//! Why a ring could not be made.

use std::io;

/// Why a ring could not be made. Each text says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel refuses io_uring to this process.
    #[error(
        "io_uring is not available to this process on Linux {kernel}: {cause}. Check the sysctl kernel.io_uring_disabled \
         (0 allows it) and the container's seccomp profile (it must allow io_uring_setup, io_uring_enter, io_uring_register)"
    )]
    Disabled {
        /// Release of the running kernel.
        kernel: String,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// The kernel is older than the floor.
    #[error("tickring needs Linux 6.1 or newer; this is Linux {kernel}, which lacks {missing}")]
    KernelTooOld {
        /// Release of the running kernel.
        kernel: String,
        /// What is missing, by the kernel's names.
        missing: String,
    },
    /// The table of direct descriptors is larger than the open file limit.
    #[error(
        "the ring is asked for {asked} descriptors, but the open file limit is {limit}: raise it (`ulimit -n`, \
         LimitNOFILE= in a systemd unit) or ask for fewer connections"
    )]
    Descriptors {
        /// Descriptors in the configuration.
        asked: u32,
        /// `RLIMIT_NOFILE` of this process.
        limit: u64,
    },
    /// A field of the configuration is out of its bounds.
    #[error("ring configuration: {field} is {value}, must be {bound}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        bound: &'static str,
    },
    /// A system call failed for another reason.
    #[error("{doing} failed: {cause}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the kernel answered.
        cause: io::Error,
    },
}

impl RingError {
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { doing, cause }
    }
}
