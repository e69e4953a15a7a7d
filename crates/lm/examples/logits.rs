//! The scores that a model gives every token to come next, for checks against other programs.
//!
//! ```text
//! logits MODEL [--adapter DIR] IDS...
//! ```
//! Each of IDS is one prompt, token ids separated by commas; standard output gets one JSON list a prompt.

use std::io::Write;
use std::path::PathBuf;

use lm::{Adapter, BaseFiles, Device, Precision, Ragged};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("no model is given")?);
    let mut args = args.peekable();
    let base = BaseFiles::open(&path)?;
    let model = base.load(&Device::cpu(), Precision::F32)?;
    let adapter = match args.next_if(|arg| arg == "--adapter") {
        Some(_) => {
            let dir = PathBuf::from(args.next().ok_or("--adapter needs a folder")?);
            Some(Adapter::load(&dir, base.config(), model.device())?)
        }
        None => None,
    };
    let mut out = std::io::stdout().lock();
    for prompt in args {
        let ids = prompt
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()?;
        let hidden = model.hidden(&Ragged::from_rows([ids.as_slice()]), adapter.as_ref(), None);
        let last = hidden.narrow(0, ids.len() - 1, 1);
        let logits = model.logits(last).into_data().try_to_vec::<f32>();
        let logits = logits.map_err(|error| format!("{error:?}"))?;
        serde_json::to_writer(&mut out, &logits)?;
        writeln!(out)?;
    }
    Ok(())
}
