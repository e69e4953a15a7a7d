//! `attune models`: base models into the installation, out of it, and which there are.

mod source;
mod transfer;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use artifacts::SharedObjects;
use clap::{Args, Subcommand};
use lm::base::BaseFiles;
use store::base_models::BaseModel;

use crate::data_dir::DataDir;
use crate::print;
use crate::registry::{self, Registry};
use crate::storage::{Reach, Visit};
use source::Source;

/// The model that a fresh installation takes in by itself when it is in the cache.
const FIRST_MODEL: &str = "smollm2-135m-instruct";
const FIRST_MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Arguments of `attune models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Check a base model and register it for every project
    Import(ImportArgs),
    /// Write a base model as a Hugging Face folder in f32
    Export(ExportArgs),
    /// Show the base models of the installation
    List(ListArgs),
}

/// Arguments of `attune models import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A folder in Hugging Face layout, a `.gguf` file, `s3://bucket/prefix`, or `org/name` on the Hugging Face hub
    source: String,
    /// What clients will call it
    #[arg(long)]
    name: String,
    /// The installation
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Arguments of `attune models export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A registered base model's name, or what `import` takes
    source: String,
    /// A folder that does not exist yet or is empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The installation
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Arguments of `attune models list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The installation
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs one of the commands.
///
/// # Errors
///
/// Whatever went wrong, with the model, the source or the installation named.
pub async fn run(command: ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::Import(args) => import(&args).await,
        ModelsCommand::Export(args) => export(&args).await,
        ModelsCommand::List(args) => list(&args).await,
    }
}

async fn import(args: &ImportArgs) -> Result<()> {
    // Fetched and checked before storage is touched: most things that can go wrong go wrong here.
    let fetched = Source::parse(&args.source)?.fetch().await?;
    let files = open(fetched.path(), &args.source).await?;
    let visit = Visit::open(args.data_dir.as_deref()).await?;
    let imported = import_files(&visit.reach(), &args.name, &files).await;
    visit.close().await;
    match imported? {
        Imported::New(model) => print::line(&format!(
            "Imported `{}`: {}, {} parameters, {} bytes",
            model.name, model.architecture, model.n_params, model.size_bytes
        )),
        Imported::Known => print::line(&format!("`{}` is this model already", args.name)),
    }
    Ok(())
}

enum Imported {
    New(BaseModel),
    /// The name stands for exactly these files already.
    Known,
}

async fn import_files(reach: &Reach, name: &str, files: &BaseFiles) -> Result<Imported> {
    let registry = Registry::connect(&reach.admin_url).await?;
    let imported = import_into(&registry, reach, name, files).await;
    registry.close().await;
    imported
}

async fn import_into(
    registry: &Registry,
    reach: &Reach,
    name: &str,
    files: &BaseFiles,
) -> Result<Imported> {
    let fingerprint = tokio::task::block_in_place(|| files.fingerprint())?;
    let mut model = registry::describe(name, files, fingerprint)?;
    if let Some(known) = registry.find(name).await? {
        if known.fingerprint == model.fingerprint {
            return Ok(Imported::Known);
        }
        bail!(
            "another base model is called `{name}` already; models never change: choose a new name"
        );
    }
    let objects = SharedObjects::connect(&reach.s3);
    transfer::upload(&objects, &mut model, files).await?;
    registry.register(&model).await?;
    Ok(Imported::New(model))
}

async fn export(args: &ExportArgs) -> Result<()> {
    let by_name = !Path::new(&args.source).exists() && Source::is_plain_name(&args.source);
    let (path, _fetched) = if by_name {
        (
            copy_of_registered(&args.source, args.data_dir.as_deref()).await?,
            None,
        )
    } else {
        let fetched = Source::parse(&args.source)?.fetch().await?;
        (fetched.path().to_owned(), Some(fetched))
    };
    let files = open(&path, &args.source).await?;
    tokio::task::block_in_place(|| files.export(&args.out, None, lm::Dtype::F32))
        .with_context(|| format!("cannot export to `{}`", args.out.display()))?;
    print::line(&format!(
        "Exported `{}` to `{}`",
        args.source,
        args.out.display()
    ));
    Ok(())
}

async fn list(args: &ListArgs) -> Result<()> {
    let visit = Visit::open(args.data_dir.as_deref()).await?;
    let listed = async {
        let registry = Registry::connect(&visit.reach().admin_url).await?;
        let models = registry.list().await;
        registry.close().await;
        models
    };
    let models = listed.await;
    visit.close().await;
    for model in models? {
        print::line(&format!(
            "{}  {}  {} parameters  {} bytes",
            model.name, model.architecture, model.n_params, model.size_bytes
        ));
    }
    Ok(())
}

/// The files of a registered base model in a folder of the installation's cache, whole and checked:
/// for commands that work on local files. Not to be called from async code.
///
/// # Errors
///
/// When there is no such model, or its files cannot be fetched.
fn local_copy(name: &str, data_dir: Option<&Path>) -> Result<PathBuf> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(copy_of_registered(name, data_dir))
}

/// Opens a base model by its name in the installation or by its path. Not to be called from async code.
///
/// # Errors
///
/// When there is no such model, or it is none that we can use.
pub fn open_local(name_or_path: &str, data_dir: Option<&Path>) -> Result<BaseFiles> {
    let path = Path::new(name_or_path);
    let path = if path.exists() {
        path.to_owned()
    } else {
        local_copy(name_or_path, data_dir)?
    };
    BaseFiles::open(&path).with_context(|| format!("cannot open the base model {name_or_path}"))
}

async fn copy_of_registered(name: &str, data_dir: Option<&Path>) -> Result<PathBuf> {
    let folder = DataDir::open(data_dir)?.private_dir("cache/models")?;
    let visit = Visit::open(data_dir).await?;
    let copied = copy_into(&folder, &visit.reach(), name).await;
    visit.close().await;
    copied
}

async fn copy_into(folder: &Path, reach: &Reach, name: &str) -> Result<PathBuf> {
    let registry = Registry::connect(&reach.admin_url).await?;
    let found = registry.find(name).await;
    registry.close().await;
    let model = found?.with_context(|| {
        format!("there is no base model `{name}`, neither as a path nor in the installation; see `attune models list`")
    })?;
    transfer::download(&SharedObjects::connect(&reach.s3), &model, folder).await
}

/// Registers the cached first model where there is no base model yet, so that a first start can be
/// tried at once.
///
/// # Errors
///
/// When the database or S3 fails. A damaged file in the cache is only a warning.
pub async fn import_first(reach: &Reach) -> Result<()> {
    let Some(path) = cached_first_model() else {
        return Ok(());
    };
    let registry = Registry::connect(&reach.admin_url).await?;
    let models = registry.list().await;
    registry.close().await;
    if !models?.is_empty() {
        return Ok(());
    }
    let files = match open(&path, FIRST_MODEL).await {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!("Did not import `{}`: {error:#}", path.display());
            return Ok(());
        }
    };
    import_files(reach, FIRST_MODEL, &files).await?;
    tracing::info!("Imported `{FIRST_MODEL}` from `{}`", path.display());
    Ok(())
}

fn cached_first_model() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("attune/models").join(FIRST_MODEL_FILE)).filter(|path| path.is_file())
}

/// Reading headers and a tokenizer takes a while, too long for a thread that serves others.
async fn open(path: &Path, source: &str) -> Result<BaseFiles> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || BaseFiles::open(&path)).await?;
    opened.with_context(|| format!("`{source}` is not a base model that we can use"))
}
