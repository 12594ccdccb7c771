//! `sdk/python/src/microsandbox/_abi.py`: the header written out for ctypes.

use super::kinds;
use super::model::{Abi, Function, Struct, Type};

const WIDTH: usize = 100;

const HEAD: &str = r#""""microsandbox.h written out for ctypes. Made by `make abi` from src.

Names are the header's, so that both can be read side by side.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

"#;

const SIZED: &str = r#"

class Sized(ctypes.Structure):
    """A struct whose first field is its size. Arrays of them need it set one by one."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)
"#;

/// The whole file.
pub(crate) fn generate(abi: &Abi) -> Result<String, String> {
    let mut code = HEAD.to_owned();
    for (name, value) in &abi.constants {
        code += &format!("{name} = {value}\n");
    }
    code += "\n# The kind of each status that is a failure.\nKIND_OF_STATUS: dict[int, str] = {\n";
    for kind in kinds::all(abi)? {
        code += &format!("    {}: \"{}\",\n", kind.status, kind.name);
    }
    code += "}\n";
    code += SIZED;
    for one in &abi.structs {
        let base = if one.is_sized() { "Sized" } else { "ctypes.Structure" };
        code += &format!("\n\nclass {}({base}):\n    _fields_ = [\n", one.name);
        for field in &one.fields {
            code += &format!("        (\"{}\", {}),\n", field.name, field_of(abi, one, &field.of)?);
        }
        code += "    ]\n";
    }
    code += "\n\n";
    for callback in &abi.callbacks {
        let parameters = parameters_of(abi, callback)?;
        let all: Vec<_> = [result_of(abi, callback)?].into_iter().chain(parameters).collect();
        code +=
            &format!("{} = ctypes.CFUNCTYPE({})\n", constant_of(&callback.name), all.join(", "));
    }
    code += "\nHANDLE = c_void_p\n_OUT_HANDLE = POINTER(c_void_p)\n_ERR = POINTER(msb_error)\n\n\
             # What each function returns and takes.\n\
             FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {\n";
    for function in &abi.functions {
        let name = &function.name;
        let result = result_of(abi, function)?;
        let parameters = format!("[{}]", parameters_of(abi, function)?.join(", "));
        let line = format!("    \"{name}\": ({result}, {parameters}),\n");
        code += &match line.len() - 1 <= WIDTH {
            true => line,
            false => {
                format!("    \"{name}\": (\n        {result},\n        {parameters},\n    ),\n")
            }
        };
    }
    Ok(code + "}\n")
}

/// `TRACE_FN` for `msb_trace_fn`.
fn constant_of(name: &str) -> String {
    name.trim_start_matches("msb_").to_uppercase()
}

fn result_of(abi: &Abi, function: &Function) -> Result<String, String> {
    function.result.as_ref().map_or(Ok("None".to_owned()), |of| parameter_of(abi, of))
}

fn parameters_of(abi: &Abi, function: &Function) -> Result<Vec<String>, String> {
    function.parameters.iter().map(|of| parameter_of(abi, of)).collect()
}

fn parameter_of(abi: &Abi, of: &Type) -> Result<String, String> {
    let is_handle = |name: &String| abi.handles.contains(name);
    Ok(match of {
        Type::Name(name) if abi.callbacks.iter().any(|one| one.name == *name) => constant_of(name),
        Type::Pointer(to) => match to.as_ref() {
            Type::Name(name) if is_handle(name) => "HANDLE".to_owned(),
            Type::Name(name) if name == "msb_error" => "_ERR".to_owned(),
            Type::Name(name) if name == "u8" => "c_void_p".to_owned(),
            Type::Pointer(to) if matches!(to.as_ref(), Type::Name(name) if is_handle(name)) => {
                "_OUT_HANDLE".to_owned()
            }
            _ => plain(abi, of)?,
        },
        _ => plain(abi, of)?,
    })
}

/// Bytes that the caller lends are given as such; those that the library lends are an address.
fn field_of(abi: &Abi, one: &Struct, of: &Type) -> Result<String, String> {
    let is_bytes = *of == Type::Pointer(Box::new(Type::Name("u8".to_owned())));
    let is_lent = one.is_callers && !one.fields.iter().any(|field| field.name == "owner");
    match (is_bytes, is_lent) {
        (true, true) => Ok("c_char_p".to_owned()),
        (true, false) => Ok("c_void_p".to_owned()),
        (false, _) => plain(abi, of),
    }
}

fn plain(abi: &Abi, of: &Type) -> Result<String, String> {
    match abi.resolve(of) {
        Type::Pointer(to) => Ok(match abi.resolve(to) {
            Type::Name(name) if name == "c_char" => "c_char_p".to_owned(),
            Type::Name(name) if name == "c_void" => "c_void_p".to_owned(),
            to => format!("POINTER({})", plain(abi, to)?),
        }),
        Type::Array(of, len) => Ok(format!("{} * {len}", plain(abi, of)?)),
        Type::Name(name) => Ok(match name.as_str() {
            "c_char" => "c_char".to_owned(),
            "u16" => "c_uint16".to_owned(),
            "i32" => "c_int32".to_owned(),
            "u32" => "c_uint32".to_owned(),
            "i64" => "c_int64".to_owned(),
            "u64" => "c_uint64".to_owned(),
            "f64" => "c_double".to_owned(),
            "usize" => "c_size_t".to_owned(),
            name if abi.structs.iter().any(|one| one.name == name) => name.to_owned(),
            name => return Err(format!("no type of ctypes for {name}")),
        }),
    }
}
