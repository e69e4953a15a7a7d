//! Where a request came from, as the audit log writes it down.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use domain::OrgId;
use store::audit::Actor;

use super::Caller;
use crate::answer;

/// What a proxy says of whom it speaks for.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    address: Option<IpAddr>,
    request_id: String,
}

impl Origin {
    /// The peer; behind a proxy that the operator trusts, the peer of that proxy.
    pub(super) fn of(parts: &Parts, trusts_proxy: bool) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|ConnectInfo(address)| address.ip());
        let forwarded = trusts_proxy.then(|| forwarded(parts)).flatten();
        Self {
            address: forwarded.or(peer),
            request_id: answer::request_id(),
        }
    }

    /// The caller, at this place.
    pub(super) fn actor(&self, org_id: OrgId, caller: &Caller) -> Actor {
        let (id, key_id) = match caller {
            Caller::Key {
                id,
                service_account: Some(account),
                ..
            } => (account.to_string(), Some(id.to_string())),
            Caller::Key { id, .. } => (id.to_string(), Some(id.to_string())),
            Caller::User { id, .. } => (id.to_string(), None),
        };
        Actor {
            org_id,
            kind: caller.kind().to_owned(),
            id,
            name: caller.name().to_owned(),
            key_id,
            address: self
                .address
                .map(|address| address.to_canonical().to_string()),
            request_id: Some(self.request_id.clone()),
        }
    }
}

/// The last address is the one that the proxy itself saw; those before it are whatever the client wrote.
fn forwarded(parts: &Parts) -> Option<IpAddr> {
    let header = parts.headers.get_all(FORWARDED_FOR).iter().next_back()?;
    let last = header.to_str().ok()?.rsplit(',').next()?.trim();
    let with_port = || last.parse::<SocketAddr>().map(|address| address.ip());
    last.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn address(headers: &[&str], trusts_proxy: bool) -> Option<String> {
        let mut request = Request::get("/");
        for header in headers {
            request = request.header(FORWARDED_FOR, *header);
        }
        let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
        let request = request.extension(ConnectInfo(peer)).body(()).unwrap();
        let origin = Origin::of(&request.into_parts().0, trusts_proxy);
        origin.address.map(|address| address.to_string())
    }

    #[test]
    fn a_client_cannot_choose_its_address() {
        for (headers, trusts_proxy, expected) in [
            (&[][..], true, "192.0.2.1"),
            (&["203.0.113.9"], false, "192.0.2.1"),
            (&["203.0.113.9"], true, "203.0.113.9"),
            (&["10.0.0.1, 203.0.113.9"], true, "203.0.113.9"),
            (&["10.0.0.1", "203.0.113.9:4711"], true, "203.0.113.9"),
            (&["2001:db8::1"], true, "2001:db8::1"),
            (&["unknown"], true, "192.0.2.1"),
        ] {
            assert_eq!(
                address(headers, trusts_proxy).as_deref(),
                Some(expected),
                "{headers:?}"
            );
        }
    }
}
