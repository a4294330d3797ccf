//! Running the binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, with an environment and a directory that hold no configuration.
pub(crate) fn tickring(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickring"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TICKRING_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end; fails the test if that takes too long.
pub(crate) fn finish(mut command: Command) -> Outcome {
    let child = command.spawn().expect("the binary starts");
    Running(child).outcome()
}

/// Runs to the end with this input.
pub(crate) fn finish_with(mut command: Command, input: &[u8]) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input); // a command may end before it has read everything
    });
    let outcome = Running(child).outcome();
    writer.join().expect("writing does not panic");
    outcome
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None`: a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Its output, if it ended well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A command that runs; killed if the test ends first.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("the binary starts"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the end and collects what was printed.
    pub(crate) fn outcome(mut self) -> Outcome {
        let stdout = collect(self.0.stdout.take());
        let stderr = collect(self.0.stderr.take());
        let code = self.wait();
        Outcome {
            code,
            stdout: stdout.join().expect("reading does not panic"),
            stderr: stderr.join().expect("reading does not panic"),
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < until, "the command does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(self.0.stdout.take().expect("stdout is a pipe"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_string(&mut text); // what came until then is shown
        }
        text
    })
}

/// A server on a free port.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) address: String,
    /// Where `/metrics` is, if `--metrics` was given.
    pub(crate) metrics: Option<SocketAddr>,
    /// What it prints beyond its first line.
    rest: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", more)
    }

    pub(crate) fn start_at(address: &str, more: &[&str]) -> Self {
        let mut args = vec!["serve", "--listen", address, "--cores", "2"];
        args.extend(more);
        let mut command = tickring(&args);
        command.env("TICKRING_LOG", "warn").stderr(Stdio::inherit());
        let mut running = Running::start(command);
        let mut rest = running.stdout();
        let mut line = String::new();
        rest.read_line(&mut line).expect("stdout can be read");
        let metrics = line
            .strip_prefix("metrics on http://")
            .and_then(|rest| rest.strip_suffix("/metrics\n"))
            .map(|address| address.parse().expect("an address"));
        if metrics.is_some() {
            line.clear();
            rest.read_line(&mut line).expect("stdout can be read");
        }
        let address = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split_once(" (2 cores, "))
            .unwrap_or_else(|| panic!("the first line is {line:?}"))
            .0
            .to_owned();
        address.parse::<SocketAddr>().expect("an address");
        Self {
            running,
            address,
            metrics,
            rest,
        }
    }

    /// A client command against this server.
    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut command = tickring(args);
        command.env("TICKRING_CONNECT", &self.address);
        command
    }

    /// Asks for the end and tells how it came: exit code, what was printed besides the first
    /// line, and how long it took.
    pub(crate) fn stop(mut self, signal: Signal) -> (Option<i32>, String, Duration) {
        let asked = Instant::now();
        self.running.signal(signal);
        let code = self.running.wait();
        let took = asked.elapsed();
        let mut text = String::new();
        self.rest
            .read_to_string(&mut text)
            .expect("stdout can be read");
        (code, text, took)
    }
}

/// The lines of a text as JSON.
pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
