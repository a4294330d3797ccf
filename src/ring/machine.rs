//! The machine under the rings: kernel release, processors, limits.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Release of the running kernel, such as `6.18.44`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Numbers of the processors that this thread may run on, ascending.
///
/// # Errors
/// Those of `sched_getaffinity(2)`.
pub fn allowed_processors() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|processor| set.is_set(*processor))
        .collect())
}

/// Pins the calling thread to one processor.
///
/// # Errors
/// `InvalidInput` if this thread may not run on that processor.
pub fn pin_thread(processor: usize) -> io::Result<()> {
    if processor >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no processor {processor}"),
        ));
    }
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// The open file limit of this process (`RLIMIT_NOFILE`, soft). It bounds sockets and the direct descriptors of a ring.
#[must_use]
pub fn open_file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the open file limit to the hard limit, and returns what it is then.
///
/// # Errors
/// Those of `setrlimit(2)`.
pub fn raise_open_file_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(open_file_limit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_each_allowed_processor_and_to_no_other() {
        std::thread::spawn(|| {
            for processor in allowed_processors().unwrap() {
                pin_thread(processor).unwrap();
                assert_eq!(allowed_processors().unwrap(), [processor]);
                pin_thread(CpuSet::MAX_CPU).unwrap_err();
                let all = (0..CpuSet::MAX_CPU).fold(CpuSet::new(), |mut set, each| {
                    set.set(each);
                    set
                });
                sched_setaffinity(None, &all).unwrap();
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_open_file_limit_is_raised_to_the_hard_limit() {
        let raised = raise_open_file_limit().unwrap();
        assert_eq!(
            Some(raised),
            getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX))
        );
    }
}
