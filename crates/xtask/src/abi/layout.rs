//! `bindings-test/abi/layout.c`: the layout of every struct, as the Rust compiler reports it, in
//! assertions for a C compiler; and a use of every INIT macro.

use super::header::init_macro;
use super::model::Abi;
use crate::ffi;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};

struct Layout {
    name: &'static str,
    size: usize,
    fields: &'static [Place],
}

struct Place {
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
pub(crate) fn generate(abi: &Abi) -> Result<String, String> {
    write_file(abi).map_err(|error| error.to_string())
}

fn write_file(abi: &Abi) -> Result<String, std::fmt::Error> {
    let mut code = String::from(
        "/* Made by `make abi` from src: the layout of every struct, as Rust has it. */\n\
         #include <microsandbox.h>\n\
         #include <assert.h>\n\
         #include <stddef.h>\n\n\
         #if !defined(__cplusplus) && __STDC_VERSION__ < 201112L /* C99 has none */\n\
         #define static_assert(...) struct unused\n\
         #endif\n\
         #define IS_AT(type, field, offset, size) \\\n    \
         static_assert(offsetof(type, field) == offset && sizeof(((type *)0)->field) == size, \\\n                  \
         #type \".\" #field)\n",
    );
    for one in LAYOUTS {
        let name = one.name;
        writeln!(code, "\nstatic_assert(sizeof({name}) == {}, \"{name}\");", one.size)?;
        for field in one.fields {
            writeln!(code, "IS_AT({name}, {}, {}, {});", field.name, field.offset, field.size)?;
        }
    }
    code += "\n/* Each struct of the caller's starts from its macro, which has to name every field. */\n\
             int layout_is_usable(void);\nint layout_is_usable(void)\n{\n    int usable = 1;\n";
    for one in abi.structs.iter().filter(|one| one.is_callers) {
        let (name, init) = (&one.name, init_macro(&one.name));
        write!(code, "    {{\n        {name} one = {init};\n\n")?;
        writeln!(code, "        usable &= one.struct_size == sizeof one;\n    }}")?;
    }
    code += "    return usable;\n}\n";
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_struct_of_the_header_is_in_the_layout() {
        let header = include_str!("../../../../include/microsandbox.h");
        let in_header: Vec<&str> = header
            .lines()
            .filter_map(|line| line.strip_prefix("typedef struct ")?.strip_suffix(" {"))
            .collect();
        assert!(in_header.len() >= 6, "{in_header:?}");
        for name in in_header {
            assert!(LAYOUTS.iter().any(|one| one.name == name), "{name}");
        }
    }
}
