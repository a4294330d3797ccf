//! Connections: accepted, secured by TLS if there is a certificate, handed to HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::StartError;
use crate::http::Peer;

/// How long a TLS handshake, and the head of a request, may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes that the head of a request may have.
const HEAD: usize = 16 << 10;
/// Time before the next attempt when the system has no sockets left.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads a certificate chain and its key.
pub(crate) fn tls(
    (certificate, key): &(impl AsRef<Path>, impl AsRef<Path>),
) -> Result<TlsAcceptor, StartError> {
    let (certificate, key) = (certificate.as_ref(), key.as_ref());
    let unusable = |file: &Path, cause: &dyn std::fmt::Display| StartError::Tls {
        file: file.to_owned(),
        cause: cause.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(certificate, &error))?;
    if chain.is_empty() {
        return Err(unusable(certificate, &"there is no certificate in it"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, secret)
        })
        .map_err(|error| unusable(certificate, &error))?;
    // WebSockets are upgraded from HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// Accepts connections until it is told to stop. At most `most` are open at once; more wait in the
/// kernel.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Router,
    most: usize,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(secure(stream, peer, tls.clone(), routes.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn secure(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    routes: Router,
    place: OwnedSemaphorePermit,
) {
    // Small messages must not wait for the acknowledgement of earlier ones.
    if stream.set_nodelay(true).is_err() {
        return; // it is gone already
    }
    match tls {
        None => serve(stream, peer, routes).await,
        Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, peer, routes).await,
            Ok(Err(error)) => tracing::info!(%peer, %error, "refused: no TLS handshake"),
            Err(_) => tracing::info!(%peer, "refused: the TLS handshake did not come in time"),
        },
    }
    drop(place);
}

async fn serve<S>(stream: S, peer: SocketAddr, routes: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        routes.call(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "an HTTP connection ended");
    }
}
