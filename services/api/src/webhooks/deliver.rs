//! Delivers what is in the outbox. One loop in every API process; they take different rows.
//!
//! Delivering sees every project, so like sweeping it needs a login that may (the worker's).

use std::future::Future;
use std::time::Duration;

use domain::Clock;
use domain::failure::error_chain;
use futures::{StreamExt as _, stream};
use store::sealed::Keyring;
use store::webhooks::delivery::{self, Delivery, Next};
use store::{Store, StoreError};

use super::Sender;
use super::sender::Message;

/// Between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// Receivers that are talked to at once.
const AT_ONCE: usize = 16;
/// Deliveries taken at once.
const BATCH: u32 = 32;
/// After this a deliverer is taken for dead. Two rounds of the sender's ten seconds, and then some.
const LEASE: Duration = Duration::from_mins(2);

/// The deliverer of one process.
#[derive(Clone)]
pub struct Deliverer {
    store: Store,
    keyring: Keyring,
    sender: Sender,
    clock: Clock,
}

impl Deliverer {
    /// `store` must have a login that may take on the worker's role.
    pub fn new(store: Store, keyring: Keyring, sender: Sender, clock: Clock) -> Self {
        Self {
            store,
            keyring,
            sender,
            clock,
        }
    }

    /// Delivers until `shutdown` resolves; what is under way then is delivered again by the next process. Failures are
    /// logged, not returned.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            let delivered = tokio::select! {
                () = &mut shutdown => return,
                delivered = self.deliver_due() => delivered,
            };
            let pause = match delivered {
                Ok(0) => PERIOD,
                Ok(_) => continue,
                Err(error) => {
                    let chain = error_chain(&error);
                    tracing::warn!(error = %chain, "Could not deliver webhooks: {chain}");
                    PERIOD
                }
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One attempt at each delivery that is due, up to a batch of them. Says how many attempts there were.
    ///
    /// # Errors
    /// The database failed. What was taken comes up again two minutes later.
    pub async fn deliver_due(&self) -> Result<usize, StoreError> {
        let mut tx = self.store.worker_tx().await?;
        let due = delivery::take(&mut tx, BATCH, LEASE).await?;
        tx.commit().await?;
        let n = due.len();
        let attempts = due.into_iter().map(|delivery| async move {
            let outcome = self.attempt(&delivery).await;
            self.settle(&delivery, outcome).await
        });
        let settled: Vec<Result<(), StoreError>> = stream::iter(attempts)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        settled.into_iter().collect::<Result<(), StoreError>>()?;
        Ok(n)
    }

    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let now = self.clock.now();
        let secrets = match delivery.secrets(&self.keyring, now) {
            Ok(secrets) => secrets,
            Err(error) => {
                let chain = error_chain(&error);
                tracing::error!(error = %chain, "A webhook's secret cannot be read: {chain}");
                return Outcome::Failed("the signing secret cannot be read; rotate it".to_owned());
            }
        };
        let message = Message {
            id: delivery.id.to_string(),
            event_id: delivery.event_id.to_string(),
            event_type: delivery.event_type.clone(),
            object_id: delivery.object_id.clone(),
            created_at: delivery.created_at.unix_timestamp(),
        };
        let sent = self
            .sender
            .send(&delivery.url, &secrets, &message, now.unix_timestamp())
            .await;
        match sent {
            Ok(200..=299) => Outcome::Told,
            Ok(410) => Outcome::Gone,
            // A redirect is not followed: it could lead anywhere.
            Ok(status) => Outcome::Failed(format!("the receiver answered {status}")),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    async fn settle(&self, delivery: &Delivery, outcome: Outcome) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.worker_tx().await?;
        let (result, next) = match outcome {
            Outcome::Told => {
                delivery::told(&mut tx, delivery).await?;
                ("delivered", None)
            }
            Outcome::Gone => {
                let reason = "the receiver answered 410: it is gone for good";
                let next = delivery::failed(&mut tx, delivery, reason, true, now).await?;
                ("failed", Some(next))
            }
            Outcome::Failed(reason) => {
                let next = delivery::failed(&mut tx, delivery, &reason, false, now).await?;
                ("failed", Some(next))
            }
        };
        tx.commit().await?;
        metrics::counter!("attune_webhook_attempts_total", "result" => result).increment(1);
        if let Some(Next::GivenUp | Next::Disabled) = next {
            let endpoint = delivery.endpoint_id;
            tracing::warn!(
                webhook.endpoint = %endpoint,
                "Gave a delivery to `{endpoint}` up after {} attempts", delivery.attempt
            );
        }
        Ok(())
    }
}

enum Outcome {
    Told,
    Gone,
    Failed(String),
}
