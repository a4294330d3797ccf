//! Connecting to a server, for every command that does.

use std::io::ErrorKind;
use std::time::Duration;

use tickring_client::{Client, ClientError, Options, Reason};

use super::failure::Failure;

/// Which server to talk to, and under which name.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connect {
    /// The server.
    #[arg(
        long,
        env = "TICKRING_CONNECT",
        value_name = "ADDR",
        default_value = "127.0.0.1:7400"
    )]
    pub(super) connect: String,

    /// What this connection calls itself; slow clients are listed by it. At most 64 bytes.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

impl Connect {
    /// Connects as `name` unless the user chose one.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do about it.
    pub(super) fn client(&self, name: &str) -> Result<Client, Failure> {
        self.client_with(name, |options| options)
    }

    /// As [`Connect::client`], with more options.
    pub(super) fn client_with(
        &self,
        name: &str,
        adjust: impl FnOnce(Options) -> Options,
    ) -> Result<Client, Failure> {
        let options = Options::new(&self.connect)
            .name(self.name.as_deref().unwrap_or(name))
            .connect_timeout(Duration::from_secs(5));
        adjust(options)
            .connect()
            .map_err(|error| self.explain(error))
    }

    fn explain(&self, error: ClientError) -> Failure {
        let address = self.connect.clone();
        match error {
            ClientError::Disconnected(Reason::Transport(ErrorKind::ConnectionRefused)) => {
                Failure::NothingListens(address)
            }
            ClientError::Disconnected(Reason::Transport(ErrorKind::InvalidInput)) => {
                Failure::Usage(format!(
                    "--connect {address}: write host:port, such as 127.0.0.1:7400"
                ))
            }
            ClientError::Disconnected(Reason::Protocol(_) | Reason::Eof | Reason::HelloTimeout) => {
                Failure::NotTickring(address)
            }
            ClientError::Disconnected(reason) => Failure::Unreachable { address, reason },
            other => other.into(),
        }
    }
}
