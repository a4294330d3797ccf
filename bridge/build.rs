//! Puts the charting library of the page where `include_bytes!` finds it.
//!
//! TradingView Lightweight Charts comes as JavaScript and is not kept in this repository. A package that
//! Cargo can fetch has its release among its files; that package is named in Cargo.toml under a condition that
//! never holds, so that it is locked and checked like any other but never compiled. This script asks Cargo where
//! it lies, takes the one file, and checks that it is, byte for byte, what TradingView released.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// The package, and where in it the library and its licence are.
const PACKAGE: &str = "brk_website";
const FOLDER: &str = "website/scripts/modules/lightweight-charts/5.2.0";
/// The condition of Cargo.toml under which the package counts as a dependency.
const CONDITION: &str = "tickring_chart_library";
/// SHA-256 of `dist/lightweight-charts.standalone.production.js` of release 5.2.0.
const LIBRARY: &str = "c0992580867c4912cc9385b3c2728315bcc1a76c7f1087dca908430fccdf31d7";
/// SHA-256 of its `LICENSE`.
const LICENCE: &str = "70c9d5382506dd184465425c08a99ad9bd6d9ac1313c252968ba0b585e5ef823";
/// What the licence asks to be said, before the licence itself.
const NOTICE: &str = "\
This page draws its charts with TradingView Lightweight Charts(TM) 5.2.0
Copyright (c) 2026 TradingView, Inc. https://www.tradingview.com/
under the Apache License, Version 2.0:

";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg({CONDITION})");
    let folder = package().join(FOLDER);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    let library = read(
        &folder.join("dist/lightweight-charts.standalone.production.js"),
        LIBRARY,
    );
    fs::write(out.join("lightweight-charts.js"), library).expect("OUT_DIR can be written to");
    let licence = read(&folder.join("LICENSE"), LICENCE);
    let notice = [NOTICE.as_bytes(), &licence].concat();
    fs::write(out.join("third-party.txt"), notice).expect("OUT_DIR can be written to");
}

/// Where Cargo has the package's files; it fetches them if it has to.
fn package() -> PathBuf {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("Cargo sets {name}"));
    let output = Command::new(variable("CARGO"))
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg(variable("TARGET"))
        .arg("--manifest-path")
        .arg(Path::new(&variable("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg\x1f{CONDITION}"))
        .output()
        .unwrap_or_else(|error| panic!("cargo metadata does not start: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {told}");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("with packages");
    let manifest = packages
        .iter()
        .find(|package| package["name"] == PACKAGE)
        .and_then(|package| package["manifest_path"].as_str())
        .unwrap_or_else(|| panic!("Cargo does not know {PACKAGE}, which has the charting library"));
    Path::new(manifest)
        .parent()
        .expect("a file lies in a folder")
        .to_owned()
}

fn read(file: &Path, sha256: &str) -> Vec<u8> {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let found = format!("{:x}", Sha256::digest(&bytes));
    assert_eq!(
        found,
        sha256,
        "{} is not what was released (SHA-256)",
        file.display()
    );
    bytes
}
