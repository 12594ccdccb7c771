//! Where the fields of every struct of the C ABI lie, as the Rust compiler says, in assertions for
//! a C compiler.

use crate::ffi;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};

struct Struct {
    name: &'static str,
    size: usize,
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
}

/// Only the types of the function are looked at.
const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

include!(concat!(env!("OUT_DIR"), "/structs.rs"));

/// The whole C file.
pub(crate) fn generate() -> Result<Vec<u8>, String> {
    let mut code = String::from(
        "/* Made by `make header` from src: the layout of every struct, as Rust has it. */\n\
         #include <microsandbox.h>\n\
         #include <assert.h>\n\
         #include <stddef.h>\n\n\
         #define IS_AT(type, field, offset, size) \\\n    \
         static_assert(offsetof(type, field) == offset && sizeof(((type *)0)->field) == size, \\\n                  \
         #type \".\" #field)\n",
    );
    for one in STRUCTS {
        write_struct(&mut code, one).map_err(|error| error.to_string())?;
    }
    Ok(code.into_bytes())
}

fn write_struct(code: &mut String, one: &Struct) -> std::fmt::Result {
    let name = one.name;
    writeln!(code, "\nstatic_assert(sizeof({name}) == {}, \"{name}\");", one.size)?;
    for field in one.fields {
        writeln!(code, "IS_AT({name}, {}, {}, {});", field.name, field.offset, field.size)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_struct_of_the_header_is_in_the_layout() {
        let header = include_str!("../../../include/microsandbox.h");
        let in_header: Vec<&str> = header
            .lines()
            .filter_map(|line| line.strip_prefix("typedef struct ")?.strip_suffix(" {"))
            .collect();
        assert!(in_header.len() >= 6, "{in_header:?}");
        for name in in_header {
            assert!(STRUCTS.iter().any(|one| one.name == name), "{name}");
        }
    }
}
