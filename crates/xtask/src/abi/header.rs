//! `include/microsandbox.h`: what cbindgen makes of each item, in the sections of the model, with an
//! INIT macro behind each struct that callers make.

use super::model::{Abi, SECTIONS, Struct, Type};
use crate::run::root;
use std::collections::HashMap;

const WIDTH: usize = 100;

/// The whole header.
pub(crate) fn generate(abi: &Abi) -> Result<String, String> {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml"))?;
    let intro = config.header.take().ok_or("cbindgen.toml has no header")?;
    let macros = config.after_includes.take().ok_or("cbindgen.toml has no after_includes")?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in SECTIONS.iter().flat_map(|(_, files)| *files) {
        builder = builder.with_src(root().join(format!("src/{file}.rs")));
    }
    let bindings = builder.generate().map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).map_err(|error| error.to_string())?;

    let mut items: HashMap<&str, &str> = HashMap::new();
    for item in text.split("\n\n").map(|item| item.trim_matches('\n')) {
        let Some(name) = name_of(item) else { continue };
        if items.insert(name, item).is_some() {
            return Err(format!("cbindgen gives two of {name}"));
        }
    }
    let mut header = format!(
        "{intro}\n\n#ifndef MICROSANDBOX_H\n#define MICROSANDBOX_H\n\n#include <stddef.h>\n\
         #include <stdint.h>\n\n{}\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n",
        macros.trim()
    );
    for (section, _) in SECTIONS {
        header += &format!("\n/* ---- {section} ---- */\n\n{}", body(abi, section, &mut items)?);
    }
    header += "\n#ifdef __cplusplus\n} /* extern \"C\" */\n#endif\n\n#endif /* MICROSANDBOX_H */\n";
    match items.keys().next() {
        Some(name) => Err(format!("{name} is in no section")),
        None => Ok(header),
    }
}

/// The items of a section, one line between them.
fn body(abi: &Abi, section: &str, items: &mut HashMap<&str, &str>) -> Result<String, String> {
    let names = abi.sections.iter().filter(|(_, of)| *of == section).map(|(name, _)| name.as_str());
    let mut ranked = Vec::new();
    for name in names {
        let item = items.remove(name).ok_or_else(|| format!("cbindgen gives no {name}"))?;
        let value = abi.constants.iter().find(|(constant, _)| constant == name);
        let made = abi.structs.iter().find(|one| one.name == name && one.is_callers);
        let is_function = abi.functions.iter().any(|function| function.name == name);
        let rank = if value.is_some() { 0 } else { 1 + u8::from(is_function) };
        let item = match (value, made) {
            (Some((_, value)), _) if *value < 0 => {
                item.replace(&format!(" {value}"), &format!(" ({value})"))
            }
            (_, Some(made)) => format!("{item}\n{}", init_of(made)),
            _ => item.to_owned(),
        };
        ranked.push((rank, item));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let items: Vec<String> = ranked.into_iter().map(|(_, item)| item + "\n").collect();
    Ok(items.join("\n"))
}

/// What an item of cbindgen's defines: the name in `#define`, `typedef`, or before the parameters.
fn name_of(item: &str) -> Option<&str> {
    let code = item
        .lines()
        .find(|line| !line.starts_with("///") && !line.is_empty() && *line != "MSB_MUST_USE")?;
    let words = |text: &'static str| code.strip_prefix(text)?.split([' ', ';']).next();
    if let Some(name) = words("#define ").or_else(|| words("typedef struct ")) {
        return Some(name);
    }
    if let Some(rest) = code.split("(*").nth(1) {
        return rest.split(')').next();
    }
    let head = code.split(['(', ';']).next()?;
    head.rsplit([' ', '*']).next()
}

/// `MSB_EVENT_INIT` for `msb_event`.
pub(crate) fn init_macro(name: &str) -> String {
    format!("{}_INIT", name.to_uppercase())
}

fn init_of(one: &Struct) -> String {
    let zeros = one.fields.iter().skip(1).map(|field| match field.of {
        Type::Pointer(_) => "NULL",
        Type::Array(..) => "{0}",
        Type::Name(_) => "0",
    });
    let mut lines = vec![format!("#define {} \\", init_macro(&one.name))];
    let mut line = format!("    MSB_INIT({}, sizeof({})", one.name, one.name);
    for zero in zeros {
        line.push(',');
        if line.len() + zero.len() + 4 > WIDTH {
            lines.push(format!("{line} \\"));
            line = " ".repeat(12);
        }
        line = format!("{line} {zero}");
    }
    lines.push(line + ")");
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_by_their_names() {
        assert_eq!(name_of("/// One.\n#define MSB_OK 0"), Some("MSB_OK"));
        assert_eq!(name_of("typedef struct msb_exec msb_exec;"), Some("msb_exec"));
        assert_eq!(
            name_of("typedef struct msb_error {\n    int x;\n} msb_error;"),
            Some("msb_error")
        );
        assert_eq!(name_of("typedef int32_t msb_status;"), Some("msb_status"));
        assert_eq!(name_of("typedef void (*msb_drop_fn)(void *user_data);"), Some("msb_drop_fn"));
        assert_eq!(name_of("MSB_MUST_USE\nmsb_status msb_x(int a,\n   int b);"), Some("msb_x"));
        assert_eq!(name_of("const char *msb_version_string(void);"), Some("msb_version_string"));
        assert_eq!(name_of("/// Nothing."), None);
    }
}
