//! `attune export`: a trained model as files that other programs load.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use lm::gguf::GgufDtype;
use lm::{Adapter, BaseFiles, Device, Dtype, Learned};

use crate::models;
use crate::print;

/// Arguments of `attune export`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("format").required(true).args(["merged", "gguf"]))]
pub struct ExportArgs {
    /// A registered base model's name, a folder in Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "NAME_OR_PATH")]
    model: String,
    /// The adapter (PEFT layout) to put into the model, as `attune train` writes it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Write the model with the adapter in it as a folder in Hugging Face layout
    #[arg(long)]
    merged: bool,
    /// Write a GGUF file, as llama.cpp loads it: the model, with the adapter in it if one is given
    #[arg(long)]
    gguf: bool,
    /// With `--gguf`: write the adapter alone, for a program that loads the base model itself
    #[arg(long)]
    adapter_only: bool,
    /// How matrices are stored [default: as in the model, f16 if it is quantised; f32 for an adapter alone]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<ExportDtype>,
    /// What to write: a folder that does not exist yet or is empty, or a file that does not exist yet
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The installation that knows the model's name
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// A type of numbers in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportDtype {
    F32,
    Bf16,
    F16,
    /// 8-bit numbers that share a scale by 32; only with `--gguf`
    #[value(name = "q8_0")]
    Q8_0,
}

/// What the arguments come to.
#[derive(Debug, PartialEq, Eq)]
enum Export<'a> {
    Folder(&'a Path, Option<Dtype>),
    Gguf(Option<&'a Path>, Option<GgufDtype>),
    AdapterGguf(&'a Path, Dtype),
}

/// Writes what the arguments ask for.
///
/// # Errors
///
/// When the arguments contradict each other, or reading or writing fails; nothing is left then.
pub fn run(args: &ExportArgs) -> Result<()> {
    let export = args.export()?;
    let base = models::open_local(&args.model, args.data_dir.as_deref())?;
    let out = &args.out;
    let written = match export {
        Export::Folder(adapter, dtype) => {
            let adapter = Learned::Adapter(load_adapter(adapter, &base)?);
            let dtype = dtype.map_or_else(|| base.dtype(), Ok);
            dtype.and_then(|dtype| base.export(out, Some(&adapter), dtype))
        }
        Export::Gguf(adapter, dtype) => {
            let adapter = adapter.map(|dir| load_adapter(dir, &base)).transpose()?;
            let adapter = adapter.map(Learned::Adapter);
            let dtype = dtype.map_or_else(|| base.dtype().map(GgufDtype::from), Ok);
            dtype.and_then(|dtype| base.export_gguf(out, adapter.as_ref(), dtype))
        }
        Export::AdapterGguf(adapter, dtype) => {
            load_adapter(adapter, &base)?.export_gguf(out, base.config(), dtype)
        }
    };
    written.with_context(|| format!("cannot export to `{}`", out.display()))?;
    print::line(&format!("Exported to `{}`", out.display()));
    Ok(())
}

impl ExportArgs {
    /// # Errors
    ///
    /// When the arguments contradict each other.
    fn export(&self) -> Result<Export<'_>> {
        let plain = self.dtype.and_then(ExportDtype::plain);
        let quantised = self.dtype == Some(ExportDtype::Q8_0);
        match (self.merged, self.adapter_only, self.adapter.as_deref()) {
            (true, true, _) => {
                bail!(
                    "--adapter-only goes with --gguf; in PEFT layout the adapter is what training wrote"
                )
            }
            (true, false, None) => {
                bail!(
                    "--merged needs --adapter; `attune models export` writes a base model as it is"
                )
            }
            (true, false, Some(_)) if quantised => {
                bail!("a folder holds f32, bf16 or f16; --dtype q8_0 goes with --gguf")
            }
            (true, false, Some(adapter)) => Ok(Export::Folder(adapter, plain)),
            (false, true, None) => bail!("--adapter-only needs --adapter"),
            (false, true, Some(_)) if quantised => {
                bail!("an adapter's rows are too short for q8_0; choose f32, bf16 or f16")
            }
            (false, true, Some(adapter)) => {
                Ok(Export::AdapterGguf(adapter, plain.unwrap_or(Dtype::F32)))
            }
            (false, false, adapter) => Ok(Export::Gguf(adapter, self.dtype.map(ExportDtype::gguf))),
        }
    }
}

impl ExportDtype {
    fn plain(self) -> Option<Dtype> {
        match self {
            Self::F32 => Some(Dtype::F32),
            Self::Bf16 => Some(Dtype::Bf16),
            Self::F16 => Some(Dtype::F16),
            Self::Q8_0 => None,
        }
    }

    fn gguf(self) -> GgufDtype {
        self.plain().map_or(GgufDtype::Q8_0, GgufDtype::from)
    }
}

fn load_adapter(dir: &Path, base: &BaseFiles) -> Result<Adapter> {
    Adapter::load(dir, base.config(), &Device::cpu())
        .with_context(|| format!("cannot use the adapter {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: ExportArgs,
    }

    fn parse(line: &str) -> Result<ExportArgs, clap::Error> {
        let fixed = ["export", "--model", "m", "--out", "o"].into_iter();
        Command::try_parse_from(fixed.chain(line.split_whitespace())).map(|parsed| parsed.args)
    }

    #[test]
    fn arguments_come_to_one_of_three_exports() {
        let a = Path::new("a");
        for (line, expected) in [
            ("--merged --adapter a", Export::Folder(a, None)),
            (
                "--merged --adapter a --dtype bf16",
                Export::Folder(a, Some(Dtype::Bf16)),
            ),
            ("--gguf", Export::Gguf(None, None)),
            (
                "--gguf --adapter a --dtype q8_0",
                Export::Gguf(Some(a), Some(GgufDtype::Q8_0)),
            ),
            (
                "--gguf --adapter-only --adapter a",
                Export::AdapterGguf(a, Dtype::F32),
            ),
        ] {
            assert_eq!(parse(line).unwrap().export().unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn contradictions_are_refused_in_one_sentence() {
        for (line, expected) in [
            ("--merged", "--merged needs --adapter"),
            ("--merged --adapter a --dtype q8_0", "goes with --gguf"),
            ("--merged --adapter a --adapter-only", "goes with --gguf"),
            ("--gguf --adapter-only", "--adapter-only needs --adapter"),
            (
                "--gguf --adapter-only --adapter a --dtype q8_0",
                "too short for q8_0",
            ),
        ] {
            let message = parse(line).unwrap().export().unwrap_err().to_string();
            assert!(message.contains(expected), "{line}: {message}");
            assert!(!message.contains('\n'), "{line}: {message}");
        }
        assert!(parse("").is_err());
        assert!(parse("--merged --gguf --adapter a").is_err());
        assert!(parse("--gguf --dtype q4_0").is_err());
    }
}
