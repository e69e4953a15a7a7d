//! Where requests may go whose address somebody else names: a tenant's webhook, an operator's server of Weights & Biases.
//! This service stands inside the operator's walls, and what lies in there must not be reachable through it.
//!
//! A host's name is looked up once, by [`PublicOnly`], on the way to the connection: the addresses that were checked are
//! the addresses that are connected to, and a name that answers differently the second time is never asked a second time.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Characters of a URL.
const MAX_URL_CHARS: usize = 2_048;

/// What the operator allows. By default neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// `http` too (`ATTUNE_…_ALLOW_HTTP`).
    pub allow_http: bool,
    /// Private, loopback and other addresses that are not the public internet's (`ATTUNE_…_ALLOW_PRIVATE`).
    pub allow_private: bool,
}

/// An address that nothing is sent to. It does not say which address a name has: that is nobody's business outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No URL.
    #[error("must be a URL of at most {MAX_URL_CHARS} characters")]
    Malformed,
    /// Another scheme.
    #[error("must begin with `{0}`")]
    Scheme(&'static str),
    /// Things that do not belong into it.
    #[error("must not hold a user, a password or a fragment")]
    Extra,
    /// No such name.
    #[error("the host's name is not known")]
    UnknownHost,
    /// Within the walls.
    #[error(
        "the host has an address that is not public, and this installation sends nothing there"
    )]
    NotPublic,
}

type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// How a name becomes addresses: the machine's way, or a test's.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String) -> Found + Send + Sync>);

impl Lookup {
    /// As the machine does it.
    pub fn system() -> Self {
        Self::of(|host| async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    /// By a function of one's own.
    pub fn of<F>(look_up: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |host| Box::pin(look_up(host))))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

/// Looks names up and gives only addresses that the policy allows.
#[derive(Debug, Clone)]
pub(crate) struct PublicOnly {
    pub(crate) policy: Policy,
    pub(crate) lookup: Lookup,
}

impl PublicOnly {
    /// The URL, if requests may go there as things are now.
    pub(crate) async fn check(&self, text: &str) -> Result<Url, TargetError> {
        let url = self.parse(text)?;
        if let Some(name) = url.host_str().filter(|_| literal(&url).is_none()) {
            self.addresses(name.to_owned()).await?;
        }
        Ok(url)
    }

    /// The URL, unless its text alone rules it out.
    pub(crate) fn parse(&self, text: &str) -> Result<Url, TargetError> {
        if text.chars().count() > MAX_URL_CHARS {
            return Err(TargetError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| TargetError::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if self.policy.allow_http => {}
            _ if self.policy.allow_http => {
                return Err(TargetError::Scheme("https://` or `http://"));
            }
            _ => return Err(TargetError::Scheme("https://")),
        }
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Extra);
        }
        // An address that stands in the URL itself is never looked up, so it is checked here.
        match literal(&url) {
            Some(address) if !self.allows(address) => Err(TargetError::NotPublic),
            _ => Ok(url),
        }
    }

    async fn addresses(&self, host: String) -> Result<Vec<IpAddr>, TargetError> {
        let found = (self.lookup.0)(host).await;
        let found = found.map_err(|_| TargetError::UnknownHost)?;
        if found.is_empty() {
            return Err(TargetError::UnknownHost);
        }
        // All of them: a name with one good address and one of ours is somebody's attempt.
        if found.iter().all(|address| self.allows(*address)) {
            Ok(found)
        } else {
            Err(TargetError::NotPublic)
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.policy.allow_private || is_public(address)
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.addresses(name.as_str().to_owned()).await?;
            // The port is the URL's.
            let found = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// Whether an address is one of the public internet's (IANA's registries of special-purpose addresses).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

#[expect(
    clippy::unnested_or_patterns,
    reason = "a registry's entry per pattern"
)]
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        // This network, private, shared (CGNAT), loopback, link-local.
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            // Protocol assignments, documentation, 6to4 relays, benchmarks.
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            // Multicast, reserved, broadcast.
            | (224..=255, _, _)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped, and what NAT64 and 6to4 make of an IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments (Teredo and ORCHID among them), documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is handed out. What lies outside is loopback, unspecified, unique local, link-local, multicast, or
        // not handed out.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_only(policy: Policy, addresses: &'static [&'static str]) -> PublicOnly {
        let lookup = Lookup::of(move |_| async move {
            Ok(addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect())
        });
        PublicOnly { policy, lookup }
    }

    #[test]
    fn only_the_internets_addresses_are_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.170",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.1.1",
            "11.0.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_url_is_read_however_its_address_is_written() {
        let only = public_only(Policy::default(), &[]);
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fd00::1]:8443/x",
            "https://10.0.0.1:443/",
        ] {
            assert_eq!(only.parse(url), Err(TargetError::NotPublic), "{url}");
        }
        for url in [
            "",
            "example.com",
            "https://",
            "/hook",
            &format!("https://h/{}", "x".repeat(3000)),
        ] {
            assert_eq!(only.parse(url), Err(TargetError::Malformed), "{url}");
        }
        for url in [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://h/",
        ] {
            assert_eq!(
                only.parse(url),
                Err(TargetError::Scheme("https://")),
                "{url}"
            );
        }
        for url in [
            "https://u@example.com/",
            "https://u:p@example.com/",
            "https://example.com/#x",
        ] {
            assert_eq!(only.parse(url), Err(TargetError::Extra), "{url}");
        }
        let open = Policy {
            allow_http: true,
            allow_private: true,
        };
        assert!(
            public_only(open, &[])
                .parse("http://127.0.0.1:9/hook")
                .is_ok()
        );
    }

    #[tokio::test]
    async fn every_address_of_a_name_must_be_public() {
        let check = async |addresses| {
            let only = public_only(Policy::default(), addresses);
            only.check("https://hooks.example.com/").await.map(drop)
        };
        assert_eq!(check(&["1.1.1.1", "2606:4700::1"]).await, Ok(()));
        assert_eq!(
            check(&["1.1.1.1", "10.0.0.1"]).await,
            Err(TargetError::NotPublic)
        );
        assert_eq!(check(&[]).await, Err(TargetError::UnknownHost));
    }
}
