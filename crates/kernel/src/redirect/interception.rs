//! The ways of interception behind one door. Each closes the way by routing rules; nf_tables only ever says where it
//! leads.
//!
//! | way | the agent listens on | port 80 of the node | after `nft flush ruleset` |
//! |---|---|---|---|
//! | local route | the metadata address, port 80 | taken | as before |
//! | local route and port | the metadata address, another port | free | no answer, until mended |
//! | node address (DNAT) | an address of the node's, another port | free | refused, until mended |

use std::net::{SocketAddrV4, TcpListener};

use super::nftables::{Rewrite, Target};
use super::{LocalRoute, Part, RedirectError, State, Watch, listen};

/// How connections to one address get to the agent, in the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interception {
    asked: SocketAddrV4,
    routing: LocalRoute,
    rewrite: Option<Rewrite>,
}

impl Interception {
    /// By routing alone: the agent listens on `asked` itself.
    pub fn local_route(asked: SocketAddrV4) -> Self {
        Self {
            asked,
            routing: LocalRoute::new(*asked.ip()),
            rewrite: None,
        }
    }

    /// By routing, and nf_tables rewrites the port: `asked`'s own port stays free for others (an ingress on
    /// 0.0.0.0:80).
    pub fn local_route_and_port(asked: SocketAddrV4, port: u16) -> Self {
        let rewrite = Rewrite {
            asked,
            target: Target::Port(port),
        };
        Self {
            rewrite: Some(rewrite),
            ..Self::local_route(asked)
        }
    }

    /// By nf_tables: connections are led to `to`, an address of the node's own that pods can reach, and connections
    /// made to `to` directly are dropped. Routing rules refuse what is not led away.
    pub fn node_address(asked: SocketAddrV4, to: SocketAddrV4) -> Self {
        let rewrite = Rewrite {
            asked,
            target: Target::Node(to),
        };
        Self {
            asked,
            routing: LocalRoute::new(*asked.ip()).refuse_only(),
            rewrite: Some(rewrite),
        }
    }

    /// With another routing table and first preference, where the defaults are taken.
    pub fn at(self, table: u32, preference: u32) -> Self {
        Self {
            routing: self.routing.at(table, preference),
            ..self
        }
    }

    /// The address that pods ask: the far end of their sockets, which attestation compares, whatever address the
    /// agent accepts on.
    pub fn asked(&self) -> SocketAddrV4 {
        self.asked
    }

    /// The address that the agent listens on.
    pub fn listens_on(&self) -> SocketAddrV4 {
        match self.rewrite {
            None => self.asked,
            Some(Rewrite {
                target: Target::Port(port),
                ..
            }) => SocketAddrV4::new(*self.asked.ip(), port),
            Some(Rewrite {
                target: Target::Node(to),
                ..
            }) => to,
        }
    }

    /// The agent's socket.
    pub fn listen(&self) -> Result<TcpListener, RedirectError> {
        let address = self.listens_on();
        listen(*address.ip(), address.port())
    }

    /// Puts in place what is missing and gives what that was. Closes the way first, then opens it to the agent.
    /// A table left by another way of interception is removed. A rule of somebody else's that comes first is an error,
    /// but only after all of ours is in place.
    pub fn install(&self) -> Result<Vec<Part>, RedirectError> {
        let routing = self.routing.install();
        if !matches!(routing, Ok(_) | Err(RedirectError::Taken(_))) {
            return routing;
        }
        let mut rewritten = None;
        match self.rewrite {
            Some(rewrite) if !there(rewrite)? => {
                rewrite
                    .install()
                    .map_err(|source| RedirectError::kernel("add nf_tables table podid", source))?;
                rewritten = Some(Part::Rewrite);
            }
            Some(_) => {}
            None => {
                remove_table()?;
            }
        }
        let mut added = routing?;
        added.extend(rewritten);
        Ok(added)
    }

    /// What is there, without changing anything.
    pub fn check(&self) -> Result<State, RedirectError> {
        let mut state = self.routing.check()?;
        if let Some(rewrite) = self.rewrite
            && !there(rewrite)?
        {
            state.missing.push(Part::Rewrite);
        }
        Ok(state)
    }

    /// Removes all that any way of interception of this address puts in place, and nothing else. Goes on after a
    /// failure and reports the first.
    pub fn remove(&self) -> Result<Vec<Part>, RedirectError> {
        let table = remove_table();
        let mut removed = self.routing.all_parts().remove()?;
        if table? {
            removed.push(Part::Rewrite);
        }
        Ok(removed)
    }

    /// Wakes when something changed that the interception depends on; [`Self::check`] says what. To be called inside
    /// a runtime.
    pub fn watch(&self) -> Result<Watch, RedirectError> {
        self.routing
            .watch_with(self.rewrite.is_some())
            .map_err(|source| RedirectError::kernel("watch the interception", source))
    }
}

fn there(rewrite: Rewrite) -> Result<bool, RedirectError> {
    rewrite
        .is_there()
        .map_err(|source| RedirectError::kernel("list nf_tables table podid", source))
}

/// Removes our table; whether there was one. Without nf_tables there is none.
fn remove_table() -> Result<bool, RedirectError> {
    match Rewrite::remove() {
        Err(error) if super::nftables::is_unsupported(&error) => Ok(false),
        other => other.map_err(|source| RedirectError::kernel("remove nf_tables table podid", source)),
    }
}
