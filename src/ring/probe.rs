//! What the running kernel can do.

use std::io;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use super::{RingError, buffers, machine};

/// What the running kernel offers above the floor, as [`probe`] found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Kernel release, such as `6.18.44`.
    pub kernel: String,
    /// Receive buffers can be filled in several steps (`IOU_PBUF_RING_INC`, Linux 6.12).
    pub incremental_buffers: bool,
    /// A closed direct descriptor is released at once (Linux 6.13). Before that, an older operation on any other
    /// descriptor of the ring can hold it back, so the ring shuts the socket down before it closes it.
    pub prompt_close: bool,
}

/// The operations in use, all older than Linux 6.1.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
    (opcode::Recv::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT"),
    (opcode::Shutdown::CODE, "IORING_OP_SHUTDOWN"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::MsgRingData::CODE, "IORING_OP_MSG_RING"),
];

/// Asks the kernel what it can do.
///
/// # Errors
/// [`RingError::Disabled`] if io_uring is switched off for this process, [`RingError::KernelTooOld`] below Linux 6.1,
/// with the names of what is missing.
pub fn probe() -> Result<Features, RingError> {
    let kernel = machine::kernel_release();
    let plain = IoUring::new(8).map_err(|cause| refused(&kernel, cause))?;
    let mut missing = missing_features(&plain);
    missing.extend(missing_operations(&plain));
    let floor = IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .build(8);
    match floor {
        Ok(ring) if missing.is_empty() => Ok(Features {
            incremental_buffers: buffers::incremental_supported(&ring),
            prompt_close: version(&kernel) >= (6, 13),
            kernel,
        }),
        floor => {
            if floor.is_err() {
                missing.push("IORING_SETUP_SINGLE_ISSUER with IORING_SETUP_DEFER_TASKRUN");
            }
            Err(RingError::KernelTooOld {
                kernel,
                missing: missing.join(", "),
            })
        }
    }
}

fn refused(kernel: &str, cause: io::Error) -> RingError {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => RingError::Disabled {
            kernel: kernel.to_owned(),
            cause,
        },
        _ => RingError::System {
            doing: "creating an io_uring",
            cause,
        },
    }
}

fn missing_features(ring: &IoUring) -> Vec<&'static str> {
    let parameters = ring.params();
    [
        (parameters.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (
            parameters.is_feature_submit_stable(),
            "IORING_FEAT_SUBMIT_STABLE",
        ),
        (parameters.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (parameters.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (
            parameters.is_feature_skip_cqe_on_success(),
            "IORING_FEAT_CQE_SKIP",
        ),
    ]
    .into_iter()
    .filter_map(|(found, name)| (!found).then_some(name))
    .collect()
}

fn missing_operations(ring: &IoUring) -> Vec<&'static str> {
    let mut known = Probe::new();
    if ring.submitter().register_probe(&mut known).is_err() {
        return vec!["IORING_REGISTER_PROBE"];
    }
    OPERATIONS
        .iter()
        .filter(|(code, _)| !known.is_supported(*code))
        .map(|(_, name)| *name)
        .collect()
}

/// Major and minor number of a kernel release; (0, 0) if it does not start with them.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version("6.1.0"), (6, 1));
        assert!(version("6.9.1") < version("6.13"));
        assert_eq!(version("unknown"), (0, 0));
    }

    #[test]
    fn a_refusal_names_the_kernel_and_the_switch() {
        let text = refused("6.6.1", io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(
            text.contains("6.6.1") && text.contains("kernel.io_uring_disabled"),
            "{text}"
        );
    }
}
