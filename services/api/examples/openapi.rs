//! Prints the OpenAPI document; `script/openapi` keeps it in the repository.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(api::openapi::yaml().as_bytes())
}
