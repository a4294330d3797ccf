//! `tickring-loadgen`: the command.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tickring_loadgen::options::{Common, Options, Shape};
use tickring_loadgen::process::{run, work};
use tickring_loadgen::report::{Report, export};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The run could not be done.
const CANNOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.shape() {
        Ok(Some(shape)) => lead(shape, &options.common),
        Ok(None) => work().map(|()| 0).map_err(|error| error.to_string()),
        Err(text) => Options::command()
            .error(ErrorKind::ValueValidation, text)
            .exit(),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            // Nobody is left to tell when this fails.
            drop(writeln!(io::stderr(), "tickring-loadgen: {text}"));
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// Does the run and reports it; the exit code.
fn lead(shape: Shape, common: &Common) -> Result<u8, String> {
    let finished = run(shape, common).map_err(|error| error.to_string())?;
    let report = Report::new(&finished, common.target);
    let to_stdout = common.json.as_deref() == Some(Path::new("-"));
    let text = if to_stdout {
        report.to_json()
    } else {
        report.to_table()
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("standard output: {error}"))?;
    if let Some(path) = common.json.as_deref().filter(|_| !to_stdout) {
        std::fs::write(path, report.to_json())
            .map_err(|error| format!("--json {}: {error}", path.display()))?;
    }
    if let Some(path) = &common.hdr {
        let took = Duration::from_nanos(finished.end_ns.saturating_sub(finished.start_ns));
        export(&finished.outcome.latency, path, took)
            .map_err(|error| format!("--hdr {}: {error}", path.display()))?;
    }
    Ok(report.exit_code())
}
