//! The schema, and the logins of the services.

use std::fmt;

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::StoreError;
use crate::tx::options;

/// Every migration, embedded in the binary.
pub static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The login of the API.
pub const API_LOGIN: &str = "attune_api";
/// The login of workers.
pub const WORKER_LOGIN: &str = "attune_worker";
/// The login of the inference service.
pub const INFERENCE_LOGIN: &str = "attune_inference";

/// Brings the schema up to date. `admin_url` is a superuser's, or that of the database's owner with CREATEROLE.
///
/// # Errors
/// [`StoreError::Unavailable`] without a connection, [`StoreError::Migrate`] if a migration fails; it leaves no trace.
pub async fn migrate(admin_url: &str) -> Result<(), StoreError> {
    let mut admin = connect(admin_url).await?;
    MIGRATOR.run(&mut admin).await?;
    admin.close().await?;
    Ok(())
}

/// A password for each service's login.
#[derive(Clone)]
pub struct LoginPasswords {
    /// Of [`API_LOGIN`].
    pub api: String,
    /// Of [`WORKER_LOGIN`].
    pub worker: String,
    /// Of [`INFERENCE_LOGIN`].
    pub inference: String,
}

impl fmt::Debug for LoginPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginPasswords(…)")
    }
}

/// Sets the passwords of the services' logins. Without one a login works only where the server trusts the connection.
pub async fn set_login_passwords(
    admin_url: &str,
    passwords: &LoginPasswords,
) -> Result<(), StoreError> {
    let mut admin = connect(admin_url).await?;
    for (login, password) in [
        (API_LOGIN, &passwords.api),
        (WORKER_LOGIN, &passwords.worker),
        (INFERENCE_LOGIN, &passwords.inference),
    ] {
        set_password(&mut admin, login, password).await?;
    }
    admin.close().await?;
    Ok(())
}

/// `ALTER ROLE` takes no parameters, so the server itself quotes the password first.
async fn set_password(
    admin: &mut PgConnection,
    login: &str,
    password: &str,
) -> Result<(), StoreError> {
    crate::nul::refuse("password", password)?;
    let statement = sqlx::query_scalar::<_, String>(
        "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)",
    )
    .bind(login)
    .bind(password)
    .fetch_one(&mut *admin)
    .await?;
    sqlx::query(AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}

async fn connect(url: &str) -> Result<PgConnection, StoreError> {
    // A migration may take longer than any statement of a service should.
    let options = options(url)?
        .options([("statement_timeout", "0")])
        .disable_statement_logging();
    Ok(options.connect().await?)
}
