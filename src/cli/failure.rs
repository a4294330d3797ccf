//! Why a command ends early, in the words of whoever typed it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tickring::journal::advice;
use tickring::node::NodeError;
use tickring_client::protocol::ErrorCode;
use tickring_client::{ClientError, Reason, RequestError};

use crate::config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Usage(String),
    #[error("the data directory {} cannot be used: {cause}{}", dir.display(), advice(cause))]
    Data { dir: PathBuf, cause: io::Error },
    #[error("cannot listen on {address}: {cause}; choose another address with --listen")]
    Listen { address: String, cause: io::Error },
    #[error(
        "cannot listen on {address} for metrics: {cause}; choose another address with --metrics"
    )]
    Metrics { address: String, cause: io::Error },
    #[error(transparent)]
    Node(NodeError),
    #[error("the market page: {0}; choose another address with --page")]
    Bridge(tickring_bridge::StartError),
    #[error(
        "nothing listens at {0}; start a server with `tickring serve`, or name another with --connect"
    )]
    NothingListens(String),
    #[error("{0} does not speak tickring's protocol; name a tickring server with --connect")]
    NotTickring(String),
    #[error("{0}")]
    Journal(tickring::journal::JournalError),
    #[error("the journal is not sound; what was found is told above")]
    Unsound,
    #[error("cannot connect to {address}: {reason}")]
    Unreachable { address: String, reason: Reason },
    #[error("{what} was refused: {}{}{text}", code_name(*code), if text.is_empty() { "" } else { ": " })]
    Refused {
        what: String,
        code: u16,
        text: String,
    },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{place}: {reason}")]
    Input { place: String, reason: String },
    #[error("cannot read the input: {0}")]
    Read(io::Error),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("{0}")]
    System(io::Error),
}

impl Failure {
    /// 2 for what only another command line, environment or file can mend; otherwise 1.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) | Self::Node(NodeError::Config { .. }) => {
                ExitCode::from(2)
            }
            Self::Client(ClientError::Request(RequestError::Topic(_) | RequestError::BadName)) => {
                ExitCode::from(2)
            }
            _ => ExitCode::FAILURE,
        }
    }
}

/// The code's name in the protocol's specification.
pub(super) fn code_name(code: u16) -> String {
    ErrorCode::from_u16(code).map_or_else(|| format!("code {code}"), |code| code.name().to_owned())
}
