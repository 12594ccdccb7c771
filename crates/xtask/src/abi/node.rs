//! `sdk/node/src/abi.ts`: the constants of the header, the kind of each status, and the options that
//! the addon takes.

use super::kinds;
use super::model::Abi;
use super::options;

/// The whole file.
pub(crate) fn generate(abi: &Abi) -> Result<String, String> {
    let mut code = String::from(
        "/**\n * Made by `make abi` from src: the constants of microsandbox.h, by their names there, and \
         what kind of\n * error each status is.\n *\n * @internal\n * @module\n */\n\n",
    );
    for (name, value) in &abi.constants {
        code += &format!("export const {name} = {value};\n");
    }
    code +=
        "\n/** The kind of each status that is a failure. */\nexport const KIND_OF_STATUS = {\n";
    for kind in kinds::all(abi)? {
        code += &format!("  [{}]: \"{}\",\n", kind.status, kind.name);
    }
    code += "} as const;\n\n/** The kinds of failures that calls report. */\n\
             export type StatusKind = (typeof KIND_OF_STATUS)[keyof typeof KIND_OF_STATUS];\n";
    Ok(code + &options::typescript(abi)?)
}
