//! A migrated database of its own for a test that runs whole services, and two tenants to put into it.
//!
//! Tests of a single crate use `#[sqlx::test]` instead. A service needs an address rather than a pool, so here each
//! database is copied from a migrated template on the cluster that `DATABASE_URL` names.

use std::str::FromStr;

use anyhow::{Context, Result};
use domain::{OrgId, ProjectId};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use store::api_keys::{self, NewApiKey, Pepper};
use store::organizations::{self, Organization};
use store::projects::{self, Project};
use store::sealed::Keyring;
use store::{MIGRATOR, Store};
use time::OffsetDateTime;

/// The pepper of test installations, as `ATTUNE_KEY_PEPPER` takes it.
pub const PEPPER_HEX: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// The pepper of test installations.
///
/// # Panics
/// Never: the digits are a constant.
pub fn pepper() -> Pepper {
    Pepper::from_hex(PEPPER_HEX).expect("64 hexadecimal digits")
}

/// The keyring of test installations.
///
/// # Panics
/// Never: the key is a constant.
pub fn keyring() -> Keyring {
    Keyring::parse(&format!("test:{PEPPER_HEX}")).expect("one key")
}

/// A database of this test alone. It goes with the cluster, or with [`TestDatabase::drop_database`].
#[derive(Debug)]
pub struct TestDatabase {
    admin: PgConnectOptions,
    name: String,
    pool: PgPool,
}

impl TestDatabase {
    /// A migrated database without rows.
    ///
    /// # Errors
    /// Without `DATABASE_URL`, or when its cluster does not answer.
    pub async fn create() -> Result<Self> {
        let url = std::env::var("DATABASE_URL")
            .context("DATABASE_URL is not set: `script/postgres start DIR` prints one")?;
        let admin = PgConnectOptions::from_str(&url)?.disable_statement_logging();
        let name = format!("test_{}", Uuid::now_v7().simple());
        copy_template(&admin, &name).await?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(admin.clone().database(&name))
            .await?;
        Ok(Self { admin, name, pool })
    }

    /// The address for an administrator: migrations, the operator's commands.
    pub fn url(&self) -> String {
        self.admin
            .clone()
            .database(&self.name)
            .to_url_lossy()
            .to_string()
    }

    /// The address for a service's login, for instance [`store::migrate::API_LOGIN`]. The test cluster trusts everyone.
    pub fn url_as(&self, login: &str) -> String {
        self.admin
            .clone()
            .database(&self.name)
            .username(login)
            .to_url_lossy()
            .to_string()
    }

    /// The database with an administrator's rights, for what no service may do.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Does what no service may do, for instance to move a time of the database's.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn run(&self, statement: &'static str) -> Result<()> {
        sqlx::query(statement).execute(&self.pool).await?;
        Ok(())
    }

    /// [`Self::run`] with a text as `$1`.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn run_with(&self, statement: &'static str, text: &str) -> Result<()> {
        sqlx::query(statement)
            .bind(text)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A store that may open every kind of transaction.
    pub fn store(&self) -> Store {
        Store::from_pool(self.pool.clone())
    }

    /// Drops the database and whatever is still connected to it.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn drop_database(self) -> Result<()> {
        self.pool.close().await;
        let mut admin = self.admin.connect().await?;
        run(
            &mut admin,
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        )
        .await?;
        Ok(admin.close().await?)
    }
}

/// A tenant with its keys.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The organization.
    pub org_id: OrgId,
    /// Its part in model names.
    pub org_slug: String,
    /// The project.
    pub project_id: ProjectId,
    /// The secret of a key that opens the project.
    pub api_key: String,
    /// The secret of a key that opens the organization.
    pub admin_key: String,
}

/// Two organizations with a project and keys each, under [`pepper`].
///
/// # Errors
/// When the database refuses, for instance because they are there already.
pub async fn seed_tenants(store: &Store, now: OffsetDateTime) -> Result<[Tenant; 2]> {
    Ok([
        seed_tenant(store, "acme", now).await?,
        seed_tenant(store, "umbrella", now).await?,
    ])
}

async fn seed_tenant(store: &Store, slug: &str, now: OffsetDateTime) -> Result<Tenant> {
    let mut tx = store.operator_tx().await?;
    let (org_id, project_id) = (OrgId::new(), ProjectId::new());
    let organization = Organization {
        id: org_id,
        name: slug.to_owned(),
        slug: slug.to_owned(),
        created_at: now,
    };
    organizations::create(&mut tx, &organization).await?;
    let project = Project {
        id: project_id,
        org_id,
        name: "Main".to_owned(),
        slug: "main".to_owned(),
        created_at: now,
    };
    projects::create(&mut tx, &project).await?;
    let mut secrets = Vec::new();
    for project_id in [Some(project_id), None] {
        let key = NewApiKey {
            org_id,
            project_id,
            name: "test".to_owned(),
            expires_at: None,
        };
        let (_, secret) = api_keys::create(&mut tx, &pepper(), &key, now).await?;
        secrets.push(secret.expose().to_owned());
    }
    tx.commit().await?;
    let admin_key = secrets.pop().context("two keys were made")?;
    let api_key = secrets.pop().context("two keys were made")?;
    Ok(Tenant {
        org_id,
        org_slug: slug.to_owned(),
        project_id,
        api_key,
        admin_key,
    })
}

/// Copies the template, which the first to come makes. The lock keeps others from copying one that is half made;
/// Postgres would refuse a template that somebody is connected to anyway.
async fn copy_template(admin: &PgConnectOptions, name: &str) -> Result<()> {
    let mut connection = admin
        .connect()
        .await
        .context("the cluster of DATABASE_URL")?;
    let template = template_name();
    sqlx::query("SELECT pg_advisory_lock(hashtext($1))")
        .bind(&template)
        .execute(&mut connection)
        .await?;
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&template)
            .fetch_one(&mut connection)
            .await?;
    if !exists {
        make_template(admin, &mut connection, &template).await?;
    }
    run(
        &mut connection,
        format!("CREATE DATABASE {name} TEMPLATE {template}"),
    )
    .await?;
    // The lock ends with the session.
    Ok(connection.close().await?)
}

/// Made under another name, so that a test killed half-way leaves no template behind that looks whole.
async fn make_template(
    admin: &PgConnectOptions,
    connection: &mut PgConnection,
    template: &str,
) -> Result<()> {
    run(
        connection,
        format!("DROP DATABASE IF EXISTS {template}_unfinished"),
    )
    .await?;
    run(connection, format!("CREATE DATABASE {template}_unfinished")).await?;
    let mut fresh = admin
        .clone()
        .database(&format!("{template}_unfinished"))
        .connect()
        .await?;
    MIGRATOR.run(&mut fresh).await?;
    fresh.close().await?;
    run(
        connection,
        format!("ALTER DATABASE {template}_unfinished RENAME TO {template}"),
    )
    .await
}

/// Carries the migrations' checksums: an edited one makes another template.
fn template_name() -> String {
    let digest = MIGRATOR
        .iter()
        .flat_map(|migration| migration.checksum.iter())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("attune_template_{digest:016x}")
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::query(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_databases_share_nothing_and_a_login_reaches_its_own() {
        let [first, second] = [
            TestDatabase::create().await.unwrap(),
            TestDatabase::create().await.unwrap(),
        ];
        let [acme, umbrella] = seed_tenants(&first.store(), OffsetDateTime::UNIX_EPOCH)
            .await
            .unwrap();
        assert_ne!(acme.project_id, umbrella.project_id);
        seed_tenants(&second.store(), OffsetDateTime::UNIX_EPOCH)
            .await
            .unwrap();

        let api = Store::connect(&first.url_as(store::migrate::API_LOGIN))
            .await
            .unwrap();
        let mut tx = api.auth_tx().await.unwrap();
        let pepper = pepper();
        let principal =
            api_keys::authenticate(&mut tx, &pepper, &acme.api_key, OffsetDateTime::UNIX_EPOCH);
        assert_eq!(
            principal.await.unwrap().unwrap().project_id,
            Some(acme.project_id)
        );
        tx.commit().await.unwrap();
        assert!(api.worker_tx().await.is_err());
        first.drop_database().await.unwrap();
        second.drop_database().await.unwrap();
    }
}
