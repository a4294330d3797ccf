//! Sockets as the rings want them: blocking mode (the ring polls for itself), small messages sent at once.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// How the sockets of a listener behave. Accepted sockets inherit all of it but `backlog` and `reuse_port`.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Lets several listeners share the address, one per core; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`; the kernel doubles it). None: the kernel sizes it as it goes.
    pub send_buffer: Option<usize>,
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`; the kernel doubles it). None: the kernel sizes it as it goes.
    pub receive_buffer: Option<usize>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: false,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

/// A TCP listener with `SO_REUSEADDR`, and `TCP_NODELAY` for what it accepts.
///
/// # Errors
/// Those of `socket(2)`, `setsockopt(2)`, `bind(2)` and `listen(2)`; the text names the address.
pub fn listener(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = options.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|cause: io::Error| {
        io::Error::new(cause.kind(), format!("cannot listen on {address}: {cause}"))
    })
}

/// A TCP socket that is not connected yet, for [`Ring::install`](super::Ring::install) and
/// [`Ring::connect`](super::Ring::connect): `TCP_NODELAY`, and bound to the source address if one is given (each
/// source address has some 28,000 ports towards one server).
///
/// # Errors
/// Those of `socket(2)`, `setsockopt(2)` and `bind(2)`.
pub fn unconnected(towards: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(towards),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        if source.is_ipv4() {
            choose_port_late(&socket)?;
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

/// Lets the kernel choose the port when the socket connects, not when it is bound: then a port has
/// to be free towards one server only, and thousands of connections that have just ended do not
/// make each choice a long search.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is an int, which `on` is, and the call does not keep the pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_named_in_the_error() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let taken = listener(any, &ListenOptions::default())
            .unwrap()
            .local_addr()
            .unwrap();
        let first = listener(taken, &ListenOptions::default());
        assert!(
            first.is_ok(),
            "the first listener is closed, so its address is free"
        );
        let text = listener(taken, &ListenOptions::default())
            .unwrap_err()
            .to_string();
        assert!(text.contains(&taken.to_string()), "{text}");
    }

    #[test]
    fn accepted_sockets_inherit_no_delay_and_the_send_buffer() {
        let options = ListenOptions {
            send_buffer: Some(64 * 1024),
            ..ListenOptions::default()
        };
        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0)), &options).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        assert!(accepted.nodelay().unwrap());
        assert_eq!(
            socket2::SockRef::from(&accepted)
                .send_buffer_size()
                .unwrap(),
            128 * 1024
        );
    }
}
