//! The one binary that people install.

fn main() -> anyhow::Result<()> {
    attune::cli::run()
}
