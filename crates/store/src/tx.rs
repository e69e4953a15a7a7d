//! Connections and the transactions that say whose rows they see.
//!
//! Each transaction takes on a role as it begins. The login has no rights of its own, so work outside such a
//! transaction is refused by Postgres, and so is work in a transaction of the wrong kind.

use std::str::FromStr;
use std::time::Duration;

use domain::{OrgId, ProjectId};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};

use crate::StoreError;
use crate::wake::Pending;

/// Connections a service holds open at most.
const MAX_CONNECTIONS: u32 = 16;

/// How long a request waits for a connection before it learns that the database is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database of one service's login. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    pub(crate) pending: Pending,
}

impl Store {
    /// Connects, so that a wrong address or password is an error now.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::connect_lazy(url)?;
        store.ready().await?;
        Ok(store)
    }

    /// Connects when it is first used: for a service that may start before its database.
    pub fn connect_lazy(url: &str) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // Each was tested when it came back; `begin` tries another where one died since.
            .test_before_acquire(false)
            .connect_lazy_with(options(url)?);
        Ok(Self::from_pool(pool))
    }

    /// A store over connections that were made elsewhere: a test's.
    pub fn from_pool(pool: PgPool) -> Self {
        Self {
            pool,
            pending: Pending::default(),
        }
    }

    /// For what is no transaction at all.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the database answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction in which Postgres itself shows only the rows of `project_id`.
    pub async fn tenant_tx(&self, project_id: ProjectId) -> Result<TenantTx, StoreError> {
        let sees = format!("SET LOCAL app.project_id = '{}'; ", project_id.0);
        let tx = self.begin("app_tenant", &sees).await?;
        Ok(TenantTx { tx, project_id })
    }

    /// A transaction over the queue: claim, heartbeat, reap, sweeps.
    pub async fn worker_tx(&self) -> Result<WorkerTx, StoreError> {
        Ok(WorkerTx {
            tx: self.begin("app_worker", "").await?,
        })
    }

    /// A transaction that may look up API keys and nothing else.
    pub async fn auth_tx(&self) -> Result<AuthTx, StoreError> {
        Ok(AuthTx {
            tx: self.begin("app_auth", "").await?,
        })
    }

    /// A transaction that may see which jobs have news, and nothing of what the news is.
    pub async fn feed_tx(&self) -> Result<FeedTx, StoreError> {
        Ok(FeedTx {
            tx: self.begin("app_feed", "").await?,
        })
    }

    /// A transaction in which Postgres itself shows only what belongs to the organization `org_id`: its projects, users
    /// and keys, and nothing of what its projects hold but the names of their models.
    pub async fn org_tx(&self, org_id: OrgId) -> Result<OrgTx, StoreError> {
        let sees = format!("SET LOCAL app.org_id = '{}'; ", org_id.0);
        let tx = self.begin("app_org", &sees).await?;
        Ok(OrgTx { tx, org_id })
    }

    /// A transaction that makes organizations, projects, keys and base models. Only an administrator's login has it.
    pub async fn operator_tx(&self) -> Result<OperatorTx, StoreError> {
        Ok(OperatorTx {
            tx: self.begin("app_operator", "").await?,
        })
    }

    /// A transaction in `role`, after the settings that say whose rows it `sees`.
    ///
    /// All in one round trip, with `BEGIN` last: it makes what stood before it in the same message part of the
    /// transaction, and a setting that fails leaves none behind.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place, which takes on a role"
    )]
    async fn begin(
        &self,
        role: &'static str,
        sees: &str,
    ) -> Result<Transaction<'static, Postgres>, StoreError> {
        let statement = format!("SET LOCAL ROLE {role}; {sees}BEGIN");
        let mut n_died = 0;
        loop {
            // Roles are constants of this file and ids print as letters, digits and dashes.
            match self.pool.begin_with(AssertSqlSafe(statement.clone())).await {
                Err(sqlx::Error::Io(_)) if n_died < MAX_CONNECTIONS => n_died += 1,
                begun => return Ok(begun?),
            }
        }
    }
}

/// A forgotten transaction would hold back vacuum and make every claim dearer; a statement that hangs would hold a
/// job's row. Neither has a reason to last a minute.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(url)?
        .application_name("attune")
        .options([
            ("idle_in_transaction_session_timeout", "60s"),
            ("statement_timeout", "60s"),
        ]))
}

/// A transaction in which Postgres itself shows only one tenant's rows.
#[derive(Debug)]
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    project_id: ProjectId,
}

impl TenantTx {
    /// The tenant.
    pub fn project_id(&self) -> ProjectId {
        self.project_id
    }
}

/// A transaction over the queue of all tenants. Once a job is claimed, its worker too uses a [`TenantTx`].
#[derive(Debug)]
pub struct WorkerTx {
    tx: Transaction<'static, Postgres>,
}

/// A transaction that turns a secret into a principal.
#[derive(Debug)]
pub struct AuthTx {
    tx: Transaction<'static, Postgres>,
}

/// A transaction that learns which jobs of all tenants have news.
#[derive(Debug)]
pub struct FeedTx {
    tx: Transaction<'static, Postgres>,
}

/// A transaction in which Postgres itself shows only one organization.
#[derive(Debug)]
pub struct OrgTx {
    tx: Transaction<'static, Postgres>,
    org_id: OrgId,
}

impl OrgTx {
    /// The organization.
    pub fn org_id(&self) -> OrgId {
        self.org_id
    }
}

/// A transaction of whoever runs the installation.
#[derive(Debug)]
pub struct OperatorTx {
    tx: Transaction<'static, Postgres>,
}

/// Any of them: for what everyone may read.
pub trait AnyTx: connection::Connection {}

/// An administrator's transaction: of one organization, or of the whole installation.
pub trait AdminTx: connection::Connection {}

impl AdminTx for OrgTx {}
impl AdminTx for OperatorTx {}

pub(crate) mod connection {
    //! Keeps the connection itself inside this crate.

    /// What statements run on.
    pub trait Connection: Send {
        /// The connection of the transaction.
        fn connection(&mut self) -> &mut sqlx::PgConnection;
    }
}

pub(crate) use connection::Connection;

macro_rules! transaction {
    ($name:ident) => {
        impl Connection for $name {
            fn connection(&mut self) -> &mut PgConnection {
                &mut self.tx
            }
        }

        impl AnyTx for $name {}

        impl $name {
            /// Makes everything that was done in it last. Dropping the transaction instead undoes it.
            pub async fn commit(self) -> Result<(), StoreError> {
                Ok(self.tx.commit().await?)
            }
        }
    };
}

transaction!(TenantTx);
transaction!(WorkerTx);
transaction!(AuthTx);
transaction!(FeedTx);
transaction!(OrgTx);
transaction!(OperatorTx);
