//! Carries the descriptors of the Envoy API into the crate, for resources written as JSON or YAML.
//!
//! The `envoy-types` package ships them (`src/generated/types.bin`) without exposing them. Its directory is found, in
//! this order: `MESH_ENVOY_TYPES_DIR`; beside this package (registry and vendored builds lie side by side); in the
//! registry's sources under `CARGO_HOME`; through `cargo metadata --offline --locked`, run where the build was started,
//! which sees a vendoring configuration. Nothing here uses the network or writes a lock file.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::FileDescriptorSet;

/// The version that `Cargo.toml` pins.
const PACKAGE: &str = "envoy-types-0.7.7";
const DESCRIPTORS: &str = "src/generated/types.bin";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MESH_ENVOY_TYPES_DIR");
    if let Err(problem) = run() {
        println!("cargo::error={problem}");
    }
}

fn run() -> Result<(), String> {
    let found = find().ok_or_else(|| {
        format!("the sources of {PACKAGE} were not found; set MESH_ENVOY_TYPES_DIR to their directory")
    })?;
    println!("cargo::rerun-if-changed={}", found.display());
    let bytes = fs::read(&found).map_err(|e| format!("{}: {e}", found.display()))?;
    let mut set = FileDescriptorSet::decode(&*bytes).map_err(|e| format!("{}: {e}", found.display()))?;
    for file in &mut set.file {
        // Comments and positions are four fifths of the size, and nothing here reads them.
        file.source_code_info = None;
    }
    let out = path("OUT_DIR")?.join("envoy.bin");
    fs::write(&out, set.encode_to_vec()).map_err(|e| format!("{}: {e}", out.display()))
}

fn find() -> Option<PathBuf> {
    let by_hand = env::var_os("MESH_ENVOY_TYPES_DIR").map(PathBuf::from);
    by_hand
        .into_iter()
        .chain(beside())
        .chain(in_registry())
        .map(|dir| dir.join(DESCRIPTORS))
        .find(|file| file.is_file())
        .or_else(by_metadata)
}

/// The directories that a registry or `cargo vendor` would put the package into.
fn beside() -> Vec<PathBuf> {
    let here = path("CARGO_MANIFEST_DIR").ok();
    let parent = here.as_deref().and_then(Path::parent).map(Path::to_owned);
    parent
        .into_iter()
        .flat_map(|dir| [dir.join(PACKAGE), dir.join("envoy-types")])
        .filter(|dir| dir.join("Cargo.toml").is_file())
        .filter(|dir| version_fits(dir))
        .collect()
}

/// `cargo vendor` leaves the version out of the name.
fn version_fits(dir: &Path) -> bool {
    let version = PACKAGE.rsplit('-').next().unwrap_or_default();
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line.trim() == format!("version = \"{version}\""))
}

fn in_registry() -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let user = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map(PathBuf::from);
    let Some(home) = home.or_else(|| user.map(|dir| dir.join(".cargo"))) else { return Vec::new() };
    let registries = fs::read_dir(home.join("registry").join("src")).into_iter().flatten().flatten();
    registries.map(|registry| registry.path().join(PACKAGE)).collect()
}

fn by_metadata() -> Option<PathBuf> {
    // Where the build was started (the variable survives cargo's change of directory), then every directory above the
    // output, which is under the target directory of the project that is built.
    let started = env::var_os("PWD").map(PathBuf::from);
    let out = path("OUT_DIR").ok()?;
    let here = path("CARGO_MANIFEST_DIR").ok();
    let above = out.ancestors().filter(|dir| dir.join("Cargo.toml").is_file()).map(Path::to_owned);
    started.into_iter().chain(above).chain(here).find_map(|dir| metadata_of(&dir))
}

fn metadata_of(dir: &Path) -> Option<PathBuf> {
    let cargo = env::var_os("CARGO")?;
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--offline", "--locked"]).current_dir(dir);
    if let Some(target) = env::var_os("TARGET") {
        // Packages of other platforms need not be there.
        command.arg("--filter-platform").arg(target);
    }
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    // The one line of JSON holds `"manifest_path":"…/envoy-types…/Cargo.toml"` for the package itself.
    let paths = text.split("\"manifest_path\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let manifests = paths.map(|path| PathBuf::from(path.replace("\\\\", "\\")));
    let dirs = manifests.filter_map(|manifest| manifest.parent().map(Path::to_owned));
    let is_package = |dir: &PathBuf| {
        dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("envoy-types"))
    };
    dirs.filter(is_package)
        .filter(|dir| version_fits(dir))
        .map(|dir| dir.join(DESCRIPTORS))
        .find(|file| file.is_file())
}

fn path(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("{variable} is not set"))
}
