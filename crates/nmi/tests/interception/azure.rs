//! The real metadata service: tokens by client id, something at every other path. It notes who asked what, and can be
//! held up.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use serde_json::json;

/// The running service. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Azure(Arc<Inner>);

#[derive(Default)]
struct Inner {
    noted: Mutex<Noted>,
    held: Mutex<bool>,
    let_go: Condvar,
}

#[derive(Default)]
struct Noted {
    askers: BTreeSet<IpAddr>,
    targets: Vec<String>,
}

impl Azure {
    /// Serves on `listener`, on threads of its own.
    pub(crate) fn serve(listener: TcpListener) -> Self {
        let service = Self::default();
        let serving = service.clone();
        thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                serving.0.noted.lock().askers.insert(peer.ip());
                let service = serving.clone();
                thread::spawn(move || service.one(&stream));
            }
        });
        service
    }

    /// Who has opened a connection.
    pub(crate) fn askers(&self) -> BTreeSet<IpAddr> {
        self.0.noted.lock().askers.clone()
    }

    /// What was asked, path and query.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.0.noted.lock().targets.clone()
    }

    /// Requests are read and not answered until `let_go`.
    pub(crate) fn hold(&self) {
        *self.0.held.lock() = true;
    }

    /// Requests are answered again.
    pub(crate) fn let_go(&self) {
        *self.0.held.lock() = false;
        self.0.let_go.notify_all();
    }

    fn one(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head);
        let target = head.split(' ').nth(1).unwrap_or_default();
        self.0.noted.lock().targets.push(target.to_owned());
        self.0.let_go.wait_while(&mut self.0.held.lock(), |held| *held);
        let client_id = target
            .split_once("client_id=")
            .map_or("vm", |(_, id)| id.split('&').next().unwrap_or(id));
        let body = if target.contains("oauth2/token") {
            json!({ "access_token": format!("h.{client_id}.s"), "client_id": client_id, "expires_in": "86399",
                "expires_on": "4102444800", "resource": "https://vault.azure.net", "token_type": "Bearer" })
        } else {
            json!({ "passed": target })
        };
        let body = body.to_string();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
