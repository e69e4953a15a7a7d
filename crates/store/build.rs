//! Migrations are embedded when this crate is compiled; a new one alone must compile it anew.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
