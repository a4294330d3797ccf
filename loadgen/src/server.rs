//! What a run costs the server, as `/proc` tells it.

use std::fs;
use std::io;

/// A process that is measured.
#[derive(Clone, Copy, Debug)]
pub struct ServerProcess {
    pid: u32,
}

impl ServerProcess {
    /// The process `pid`.
    ///
    /// # Errors
    /// When there is none, or it may not be looked at.
    pub fn new(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.cpu_ns()?;
        process.rss_bytes()?;
        Ok(process)
    }

    /// CPU time of all its threads so far, ended ones included, user and system, in nanoseconds.
    /// The kernel counts exactly but shows clock ticks, usually of 10 ms.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let stat = self.read("stat")?;
        let ticks = ticks(&stat).ok_or_else(|| self.unreadable("stat"))?;
        Ok(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
    }

    /// Memory that it occupies now, in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        // smaps_rollup counts pages; the cheaper figures lag behind by what each CPU has cached.
        let text = self.read("smaps_rollup").or_else(|_| self.read("status"))?;
        let kib = kib(&text, "Rss:").or_else(|| kib(&text, "VmRSS:"));
        Ok(kib.ok_or_else(|| self.unreadable("smaps_rollup"))? * 1024)
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("--server-pid: {path}: {error}")))
    }

    fn unreadable(&self, file: &str) -> io::Error {
        io::Error::other(format!(
            "--server-pid: /proc/{}/{file} reads unlike any known kernel's",
            self.pid
        ))
    }
}

/// utime + stime of a `/proc/<pid>/stat` line.
fn ticks(stat: &str) -> Option<u64> {
    // The second field is the name in brackets, which may hold anything, brackets included.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b) R 1 2 3 4 5 6 7 8 9 10 300 45 0 0 20 0 1 0 99 1 1";
        assert_eq!(ticks(stat), Some(345));
    }

    #[test]
    fn this_process_can_be_measured() {
        let process = ServerProcess::new(std::process::id()).unwrap();
        assert!(process.rss_bytes().unwrap() > 100_000);
        let before = process.cpu_ns().unwrap();
        let until = crate::clock::now_ns() + 60_000_000;
        crate::schedule::spin_until(until);
        assert!(process.cpu_ns().unwrap() > before);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let error = ServerProcess::new(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("--server-pid"), "{error}");
    }
}
