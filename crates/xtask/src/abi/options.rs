//! The options of sandboxes and commands in the SDKs, between their own forms and the header's
//! structs: TypeScript's interfaces, the addon's conversion, and Go's structs.

use super::model::{Abi, Struct, Type};

/// The structs that callers lend with a call.
const STRUCTS: [&str; 2] = ["msb_sandbox_options", "msb_exec_options"];

/// The structs of arrays in them.
const PARTS: [&str; 2] = ["msb_mount", "msb_rlimit"];

/// Texts that are never left out.
const REQUIRED: [&str; 2] = ["name", "cmd"];

/// The meaning of a field for an SDK; one that holds the length of another belongs to that one.
enum Kind<'a> {
    Number(&'a str),
    Text,
    Texts,
    Bytes,
    Structs(&'a str),
}

type Result<T> = std::result::Result<T, String>;

fn structs(abi: &Abi) -> impl Iterator<Item = &Struct> {
    abi.structs.iter().filter(|one| STRUCTS.contains(&one.name.as_str()))
}

fn fields<'a>(abi: &'a Abi, one: &'a Struct) -> Result<Vec<(&'a str, Kind<'a>)>> {
    let own = |name: &str| !["struct_size", "reserved"].contains(&name) && !name.ends_with("_len");
    let fields = one.fields.iter().filter(|field| own(&field.name));
    fields.map(|field| Ok((field.name.as_str(), kind_of(abi, &field.of)?))).collect()
}

fn kind_of<'a>(abi: &'a Abi, of: &'a Type) -> Result<Kind<'a>> {
    match of {
        Type::Name(name) => Ok(Kind::Number(name)),
        Type::Pointer(to) => match to.as_ref() {
            Type::Name(name) if name == "c_char" => Ok(Kind::Text),
            Type::Name(name) if name == "u8" => Ok(Kind::Bytes),
            Type::Name(name) if abi.structs.iter().any(|one| one.name == *name) => {
                Ok(Kind::Structs(name))
            }
            Type::Pointer(to) if **to == Type::Name("c_char".to_owned()) => Ok(Kind::Texts),
            _ => Err(format!("an option of the type {of:?}")),
        },
        Type::Array(..) => Err("an option that is an array".to_owned()),
    }
}

/// The field with the length of another: `args_len`, `stdin_len` of `stdin_data`.
fn len_of(name: &str) -> String {
    format!("{}_len", name.trim_end_matches("_data"))
}

/// `PidsLimit` for `pids_limit`.
fn pascal(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// `pidsLimit` for `pids_limit`.
fn camel(name: &str) -> String {
    let name = pascal(name);
    name[..1].to_lowercase() + &name[1..]
}

/// `SandboxOptions` for `msb_sandbox_options`.
fn type_name(name: &str) -> String {
    pascal(name.trim_start_matches("msb_"))
}

/// The interfaces of TypeScript, whose objects the addon takes.
pub(crate) fn typescript(abi: &Abi) -> Result<String> {
    let mut code = String::new();
    let number = |of: &str| if matches!(of, "u64" | "i64") { "number | bigint" } else { "number" };
    for one in structs(abi) {
        code += &format!("\n/** `{}`, as the addon takes it. */\n", one.name);
        code += &format!("export interface Native{} {{\n", type_name(&one.name));
        for (name, kind) in fields(abi, one)? {
            let of = match kind {
                Kind::Number(of) => number(of).to_owned(),
                Kind::Text | Kind::Bytes => "Buffer | undefined".to_owned(),
                Kind::Texts => "Buffer[]".to_owned(),
                Kind::Structs(of) => format!("Native{}[]", type_name(of)),
            };
            code += &format!("  {}: {of};\n", camel(name));
        }
        code += "}\n";
    }
    for part in PARTS {
        let missing = || format!("no {part}");
        let found = abi.structs.iter().find(|one| one.name == part).ok_or_else(missing)?;
        let name = type_name(part);
        code += &format!("\n/** `{part}`, as the addon takes it. */\n");
        code += &format!("export interface Native{name} {{\n");
        for (name, kind) in fields(abi, found)? {
            let of = match kind {
                Kind::Number(of) => number(of),
                Kind::Text => "Buffer | undefined",
                _ => return Err(format!("{name} of {part} is neither a number nor a text")),
            };
            code += &format!("  {}: {of};\n", camel(name));
        }
        code += "}\n";
    }
    Ok(code)
}

/// `sdk/node/native/options.c`.
pub(crate) fn addon(abi: &Abi) -> Result<String> {
    let mut code = String::from(
        "/* options.c - made by `make abi` from src: options of JavaScript as structs of the header. */\n\
         #include \"addon.h\"\n",
    );
    for one in structs(abi) {
        let short = one.name.trim_start_matches("msb_");
        code += &format!(
            "\nvoid lend_{short}(napi_env env, struct lent *lent, napi_value from, {} *to)\n{{\n",
            one.name
        );
        for (name, kind) in fields(abi, one)? {
            let (key, len) = (camel(name), len_of(name));
            code += &match kind {
                Kind::Number("f64") => format!("    to->{name} = real(env, from, \"{key}\");\n"),
                Kind::Number("u64") => format!("    to->{name} = field(env, from, \"{key}\");\n"),
                Kind::Number(of) => {
                    let of = match of {
                        "u16" => "uint16_t",
                        "u32" => "uint32_t",
                        _ => return Err(format!("{name} is a {of}")),
                    };
                    format!("    to->{name} = ({of})field(env, from, \"{key}\");\n")
                }
                Kind::Text => {
                    format!("    to->{name} = lend(env, lent, from, \"{key}\", NULL);\n")
                }
                Kind::Texts => {
                    format!("    to->{name} = lend_all(env, lent, from, \"{key}\", &to->{len});\n")
                }
                Kind::Bytes => format!(
                    "    to->{name} = (const uint8_t *)lend(env, lent, from, \"{key}\", \
                     &to->{len});\n"
                ),
                Kind::Structs(_) => {
                    format!("    to->{name} = lend_{name}(env, lent, from, &to->{len});\n")
                }
            };
        }
        code += "}\n";
    }
    Ok(code)
}

/// `sdk/go/internal/ffi/options.go`.
pub(crate) fn go(abi: &Abi) -> Result<String> {
    let mut code = String::from(
        "// Code generated by `make abi` from src. DO NOT EDIT.\n\npackage ffi\n\n\
         // #include \"abi.h\"\nimport \"C\"\n",
    );
    for one in structs(abi) {
        let (of, fields) = (type_name(&one.name), fields(abi, one)?);
        let width = fields.iter().map(|(name, _)| pascal(name).len()).max().unwrap_or(0);
        code += &format!("\n// {of} is {} in Go. Nothing in it holds a NUL.\n", one.name);
        code += &format!("type {of} struct {{\n");
        let (mut sizes, mut lends) = (Vec::new(), String::new());
        for (name, kind) in &fields {
            let (field, len) = (pascal(name), len_of(name));
            let (type_of, size, lend) = match kind {
                Kind::Number(number) => {
                    let (own, c) = number_types(number)?;
                    (own.to_owned(), None, format!("to.{name} = C.{c}(o.{field})"))
                }
                Kind::Text => {
                    let take = if REQUIRED.contains(name) { "text" } else { "optional" };
                    let lend = format!("to.{name} = a.{take}(o.{field})");
                    ("string".to_owned(), Some("textSize".to_owned()), lend)
                }
                Kind::Texts => {
                    let lend = format!("to.{name}, to.{len} = a.texts(o.{field})");
                    ("[]string".to_owned(), Some("textsSize".to_owned()), lend)
                }
                Kind::Bytes => {
                    let lend = format!("to.{name}, to.{len} = a.optionalBytes(o.{field})");
                    ("[]byte".to_owned(), Some("bytesSize".to_owned()), lend)
                }
                Kind::Structs(other) => {
                    let lend = format!("to.{name}, to.{len} = a.{name}(o.{field})");
                    (format!("[]{}", type_name(other)), Some(format!("{name}Size")), lend)
                }
            };
            code += &format!("\t{field:width$} {type_of}\n");
            sizes.extend(size.map(|size| format!("{size}(o.{field})")));
            lends += &format!("\t{lend}\n");
        }
        code += &format!(
            "}}\n\nfunc (o *{of}) size() int {{\n\treturn {}\n}}\n\n\
             // lend writes the options for C, with all that they point to in the arena.\n\
             func (o *{of}) lend(a *arena) C.{} {{\n\tto := C.go_{}()\n{lends}\treturn to\n}}\n",
            sizes.join(" +\n\t\t"),
            one.name,
            one.name.trim_start_matches("msb_"),
        );
    }
    Ok(code)
}

fn number_types(of: &str) -> Result<(&'static str, &'static str)> {
    Ok(match of {
        "u16" => ("uint16", "uint16_t"),
        "u32" => ("uint32", "uint32_t"),
        "u64" => ("uint64", "uint64_t"),
        "f64" => ("float64", "double"),
        _ => return Err(format!("no number of Go for {of}")),
    })
}
