//! Generates the messages, clients and servers of `api/*.proto`, without protoc.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let api = Path::new("api");
    println!("cargo::rerun-if-changed={}", api.display());
    let mut files = fs::read_dir(api)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "proto"));
    files.sort();
    let descriptors = protox::compile(&files, [api])?;
    let mut names = tonic_prost_build::Config::new();
    names.enable_type_names();
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, names)?;
    Ok(())
}
