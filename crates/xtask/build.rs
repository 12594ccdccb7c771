//! Reads which structs `src` has in C, and writes code that asks the compiler for their layout.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    files.sort();
    let mut code = String::from("const STRUCTS: &[Struct] = &[\n");
    for file in files {
        let parsed = syn::parse_file(&fs::read_to_string(&file)?)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        for item in parsed.items {
            if let syn::Item::Struct(item) = item
                && is_c(&item)
            {
                write_struct(&mut code, &item)?;
            }
        }
    }
    code += "];\n";
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&out).join("structs.rs"), code)?;
    Ok(())
}

/// Whether a struct is public and has the layout that C gives it.
fn is_c(item: &syn::ItemStruct) -> bool {
    let is_repr_c = |attribute: &syn::Attribute| {
        attribute.path().is_ident("repr")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "C")
    };
    matches!(item.vis, syn::Visibility::Public(_)) && item.attrs.iter().any(is_repr_c)
}

fn write_struct(code: &mut String, item: &syn::ItemStruct) -> Result<(), Box<dyn Error>> {
    let name = &item.ident.to_string();
    writeln!(code, "Struct {{ name: {name:?}, size: size_of::<ffi::{name}>(), fields: &[")?;
    for field in &item.fields {
        let field = field.ident.as_ref().ok_or("a field has no name")?.to_string();
        writeln!(
            code,
            "Field {{ name: {field:?}, offset: offset_of!(ffi::{name}, {field}), \
             size: size_of_field(|s: &ffi::{name}| &s.{field}) }},"
        )?;
    }
    code.push_str("] },\n");
    Ok(())
}
