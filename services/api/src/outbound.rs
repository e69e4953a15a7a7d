//! The way out: requests to addresses that somebody else names, and whose answers nobody vouches for.

pub mod target;

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{RequestBuilder, redirect};

use target::{Lookup, Policy, PublicOnly, TargetError};

/// The whole of a request: name, connection, request, answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is read so far, so that a connection ends cleanly, and no further.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// A receiver that was not reached. In words for the tenant: nothing of our network is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error("the URL {0}")]
    Target(#[from] TargetError),
    #[error("the receiver did not answer within 10 seconds")]
    TimedOut,
    #[error("the receiver could not be connected to")]
    NotConnected,
    #[error("the connection broke before the receiver answered")]
    Broken,
}

/// An answer, whatever its status. The body is cut at 16 KiB.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A client under an operator's policy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    http: reqwest::Client,
    targets: PublicOnly,
}

impl Outbound {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(policy: Policy, lookup: Lookup) -> reqwest::Result<Self> {
        let targets = PublicOnly { policy, lookup };
        let http = reqwest::Client::builder()
            // A proxy of the environment would look the name up again, by itself.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(targets.clone())
            // Every request is checked anew, so none rides on a connection that was made before.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("attune/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, targets })
    }

    /// Whether requests may go there as things are now.
    pub(crate) async fn check(&self, url: &str) -> Result<(), TargetError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.targets.check(url))
            .await
            .unwrap_or(Err(TargetError::UnknownHost))
            .map(drop)
    }

    /// Begins a POST, unless the URL's text alone rules it out.
    pub(crate) fn post(&self, url: &str) -> Result<RequestBuilder, TargetError> {
        Ok(self.http.post(self.targets.parse(url)?))
    }
}

/// Sends what [`Outbound::post`] began.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, OutboundError> {
    let answer = request.send().await.map_err(|error| sorted(&error))?;
    let status = answer.status().as_u16();
    let (mut stream, mut body) = (answer.bytes_stream(), Vec::new());
    while let Some(Ok(chunk)) = stream.next().await {
        let room = MAX_ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(Answer { status, body })
}

/// What the tenant may know of it. A name whose addresses are not allowed fails inside the client's connector.
fn sorted(error: &reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<TargetError>() {
            return refused.clone().into();
        }
        cause = inner.source();
    }
    if error.is_timeout() {
        OutboundError::TimedOut
    } else if error.is_connect() {
        OutboundError::NotConnected
    } else {
        OutboundError::Broken
    }
}
