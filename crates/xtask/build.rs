//! Writes code that asks the compiler for the layout of every struct of the C ABI.

#[path = "src/abi/model.rs"]
#[allow(dead_code, reason = "only the structs matter here")]
mod model;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/abi/model.rs");
    println!("cargo::rerun-if-changed={}", src.display());
    println!("cargo::rustc-env=HOST={}", std::env::var("HOST")?);
    let mut code = String::from("const LAYOUTS: &[Layout] = &[\n");
    for model::Struct { name, fields, .. } in model::Abi::read(&src)?.structs {
        writeln!(code, "Layout {{ name: {name:?}, size: size_of::<ffi::{name}>(), fields: &[")?;
        for model::Field { name: field, .. } in fields {
            writeln!(
                code,
                "Place {{ name: {field:?}, offset: offset_of!(ffi::{name}, {field}), \
                 size: size_of_field(|s: &ffi::{name}| &s.{field}) }},"
            )?;
        }
        code.push_str("] },\n");
    }
    code += "];\n";
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&out).join("structs.rs"), code)?;
    Ok(())
}
