//! The command line of `tickring-feed`.

mod args;
mod publisher;
mod replay;
mod summary;
mod synth;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tickring_feed::{DataError, Fault, SynthError};

use args::{Action, Args};
use publisher::PublishError;
use summary::Summary;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Synth(#[from] SynthError),
}

impl Failure {
    /// 1: the data or the server; 2: what was asked for.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Synth(_) => ExitCode::from(2),
            Self::Data(error) if matches!(error.fault, Fault::NoSymbol) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// Reads the arguments and does what they ask for.
pub(crate) fn run() -> ExitCode {
    let args = Args::parse();
    let mut summary = Summary::default();
    let outcome = match &args.action {
        Action::Replay(replay) => replay::run(replay, &mut summary),
        Action::Synth(synth) => synth::run(synth, &mut summary),
    };
    let json = match &args.action {
        Action::Replay(replay) => replay.target.json,
        Action::Synth(synth) => synth.target.json,
    };
    // Whoever closed the pipe does not want to know.
    let _ = summary.write(&mut std::io::stdout().lock(), json);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("error: {failure}"));
            failure.exit_code()
        }
    }
}

/// Tells the person at the terminal something.
fn say(text: std::fmt::Arguments<'_>) {
    // There is nobody to tell that nobody can be told.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
