//! Carries connections from the machine's loopback interface into the cluster's network: the listening socket was
//! made outside, the connections to the API server are made inside.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

use crate::printer;

/// Forwards every connection to `to`, until the process ends.
pub(super) fn serve(listener: TcpListener, to: (Ipv4Addr, u16)) {
    std::thread::spawn(move || {
        for outside in listener.incoming() {
            let Ok(outside) = outside else { continue };
            std::thread::spawn(move || match TcpStream::connect(to) {
                Ok(inside) => {
                    if let Err(error) = join(&outside, &inside) {
                        printer::note(&format!("forward: {error}"));
                    }
                }
                Err(error) => printer::note(&format!("forward to {}:{}: {error}", to.0, to.1)),
            });
        }
    });
}

/// Copies both ways; each end that is closed closes the other.
fn join(a: &TcpStream, b: &TcpStream) -> io::Result<()> {
    for stream in [a, b] {
        stream.set_nodelay(true)?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| copy(a, b));
        copy(b, a);
    });
    Ok(())
}

/// An error here is the end of a connection, which the other side sees as such.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
