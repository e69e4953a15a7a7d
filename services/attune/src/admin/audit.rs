//! `attune admin audit`: verifies the chain of the audit log, and exports it.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use domain::OrgId;
use serde_json::json;
use store::Store;
use store::audit;
use store::audit::chain::{AuditRow, Hash};
use store::audit::listing;

use super::{Answer, Common};
use crate::admin::installation::organization;
use crate::print;

/// Rows that are read at once.
const BATCH: u32 = 1000;

/// Arguments of `attune admin audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no row was changed, removed or moved, and print the last hash of each organization
    Verify(VerifyArgs),
    /// Write an organization's log to standard output, one JSON object a line
    Export(ExportArgs),
}

/// Arguments of `attune admin audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this organization, by id or slug
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// A last hash of this organization that was printed earlier and kept elsewhere: it must still be there
    #[arg(long, value_name = "HASH", requires = "org")]
    head: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `attune admin audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The organization, by id or slug
    #[arg(long, value_name = "ORG", default_value = "default")]
    org: String,
    #[command(flatten)]
    common: Common,
}

impl AuditCommand {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::Verify(args) => &args.common,
            Self::Export(args) => &args.common,
        }
    }
}

/// Each reads in transactions of its own: a log may be long. None if everything was written already.
pub(super) async fn act(command: &AuditCommand, store: &Store) -> Result<Option<Answer>> {
    match command {
        AuditCommand::Verify(args) => verify(args, store).await.map(Some),
        AuditCommand::Export(args) => export(args, store).await.map(|()| None),
    }
}

async fn verify(args: &VerifyArgs, store: &Store) -> Result<Answer> {
    let head = args.head.as_deref().map(hash).transpose()?;
    let mut tx = store.operator_tx().await?;
    let orgs = if let Some(name) = &args.org {
        vec![organization(&mut tx, name).await?.id]
    } else {
        let heads = listing::heads(&mut tx).await?;
        heads.into_iter().map(|(org_id, _)| org_id).collect()
    };
    tx.commit().await?;
    let mut verified = Vec::with_capacity(orgs.len());
    for org_id in orgs {
        verified.push(verify_one(store, org_id, head).await?);
    }
    Ok(Answer::list(verified, "No organization has a log yet"))
}

async fn verify_one(
    store: &Store,
    org_id: OrgId,
    head: Option<Hash>,
) -> Result<(serde_json::Value, String)> {
    match audit::verify(store, org_id, head).await? {
        Ok((n_rows, last)) => {
            let last = hex::encode(last);
            let json = json!({"org_id": org_id, "n_rows": n_rows, "head": last});
            let text = format!("{org_id}  {n_rows} rows, unbroken\n  last hash {last}");
            Ok((json, text))
        }
        Err(broken) => bail!("the audit log of `{org_id}` is broken: {broken}"),
    }
}

async fn export(args: &ExportArgs, store: &Store) -> Result<()> {
    let mut tx = store.operator_tx().await?;
    let org_id = organization(&mut tx, &args.org).await?.id;
    tx.commit().await?;
    let mut after = 0;
    loop {
        let mut tx = store.operator_tx().await?;
        let rows = listing::next(&mut tx, org_id, after, BATCH).await?;
        tx.commit().await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.seq;
        let text: String = rows.iter().map(AuditRow::export_line).collect();
        print::line(text.trim_end());
    }
}

fn hash(text: &str) -> Result<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text, &mut hash).context(
        "--head takes the 64 hexadecimal digits that `attune admin audit verify` prints",
    )?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_whole_hash() {
        assert_eq!(hash(&"00".repeat(32)).unwrap(), Hash::default());
        for text in ["", "00", &"zz".repeat(32)] {
            let message = format!("{:#}", hash(text).unwrap_err());
            assert!(message.contains("--head"), "{message}");
        }
    }
}
