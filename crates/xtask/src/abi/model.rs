//! The C ABI as `src` defines it: constants, structs, handles, callbacks and functions, in the order
//! of the header. Everything that repeats a part of the ABI is made from this.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use syn::{Expr, Fields, FnArg, Item, Lit, ReturnType, UnOp};

/// The sections of the header and the files of `src` that each is made of. What a struct points to
/// comes before it, as C wants it.
pub(crate) const SECTIONS: [(&str, &[&str]); 18] = [
    ("version", &["version"]),
    ("status", &["status"]),
    ("error", &["error"]),
    ("handle", &["handle", "any_handle"]),
    ("trace", &["trace"]),
    ("progress", &["progress"]),
    ("sandbox", &["mount", "sandbox_options", "sandbox_info", "sandbox"]),
    ("doctor", &["doctor"]),
    ("image", &["image_info", "image"]),
    ("volume", &["volume"]),
    ("exec", &["exec"]),
    ("event", &["event"]),
    ("output", &["output"]),
    ("sink", &["sink"]),
    ("session", &["session"]),
    ("log", &["log"]),
    ("fs", &["fs_request", "fs_info", "fs"]),
    ("attach", &["attach"]),
];

/// A type of the ABI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// `i8` to `u64`, `f64`, `usize`, `c_char`, `c_void`, or a name of the ABI.
    Name(String),
    Pointer(Box<Type>),
    Array(Box<Type>, String),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) of: Type,
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    /// Whether callers make it, from an INIT macro; else only the library does.
    pub(crate) is_callers: bool,
}

impl Struct {
    /// Whether its first field is its size.
    pub(crate) fn is_sized(&self) -> bool {
        let size = Type::Name("u32".to_owned());
        self.fields.first().is_some_and(|field| field.name == "struct_size" && field.of == size)
    }
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Type>,
    pub(crate) result: Option<Type>,
}

/// Everything, in the order of [`SECTIONS`].
#[derive(Debug, Default)]
pub(crate) struct Abi {
    pub(crate) constants: Vec<(String, i64)>,
    pub(crate) structs: Vec<Struct>,
    pub(crate) handles: Vec<String>,
    /// Names of other types, such as `msb_status` for `i32`.
    pub(crate) aliases: Vec<(String, Type)>,
    pub(crate) callbacks: Vec<Function>,
    pub(crate) functions: Vec<Function>,
    /// Error kinds by their names in Rust, and the status of each.
    pub(crate) statuses: Vec<(String, String)>,
    /// Which section an item is in.
    pub(crate) sections: Vec<(String, &'static str)>,
}

type Result<T> = std::result::Result<T, String>;

impl Abi {
    /// Reads the files below `src`.
    pub(crate) fn read(src: &Path) -> Result<Abi> {
        let mut abi = Abi::default();
        let mut callers = HashSet::new();
        let mut seen = HashSet::from(["lib".to_owned()]);
        for (section, files) in SECTIONS {
            for file in files {
                seen.insert((*file).to_owned());
                for item in parse(&src.join(format!("{file}.rs")))? {
                    abi.take(item, section, &mut callers)
                        .map_err(|why| format!("src/{file}.rs: {why}"))?;
                }
            }
        }
        for one in &mut abi.structs {
            one.is_callers = callers.remove(&one.name);
            if one.is_callers && !one.is_sized() {
                return Err(format!("{} does not start with struct_size: u32", one.name));
            }
        }
        if let Some(name) = callers.iter().next() {
            return Err(format!("{name} is not repr(C)"));
        }
        check_complete(src, &seen)?;
        Ok(abi)
    }

    fn take(
        &mut self,
        item: Item,
        section: &'static str,
        callers: &mut HashSet<String>,
    ) -> Result<()> {
        let before = self.names().count();
        match item {
            Item::Const(item) if is_public(&item.vis) => {
                self.constants.push((item.ident.to_string(), value_of(&item.expr)?));
            }
            Item::Struct(item) if is_public(&item.vis) => match is_c(&item) {
                true => self.structs.push(struct_of(&item)?),
                false => self.handles.push(item.ident.to_string()),
            },
            Item::Type(item) if is_public(&item.vis) => match callback_of(&item)? {
                Some(callback) => self.callbacks.push(callback),
                None => self.aliases.push((item.ident.to_string(), type_of(&item.ty)?)),
            },
            Item::Fn(item) if is_public(&item.vis) => self.functions.push(function_of(&item)?),
            Item::Fn(item) if item.sig.ident == "of_kind" => self.statuses = statuses_of(&item)?,
            // The macros that mark the structs that callers create: the name comes first.
            Item::Macro(item) if item.mac.path.is_ident("sized") => {
                callers.extend(first_name(item.mac.tokens));
            }
            Item::Macro(item) if item.mac.path.is_ident("list") => {
                callers.extend(first_name(item.mac.tokens));
            }
            _ => {}
        }
        let new = self.names().count() - before;
        let names =
            self.names().filter(|name| !self.sections.iter().any(|(known, _)| known == name));
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names.len() != new {
            return Err("a name is defined twice".to_owned());
        }
        self.sections.extend(names.into_iter().map(|name| (name, section)));
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let constants = self.constants.iter().map(|(name, _)| name.as_str());
        let aliases = self.aliases.iter().map(|(name, _)| name.as_str());
        let structs = self.structs.iter().map(|one| one.name.as_str());
        let functions = self.callbacks.iter().chain(&self.functions).map(|one| one.name.as_str());
        let handles = self.handles.iter().map(String::as_str);
        constants.chain(aliases).chain(structs).chain(functions).chain(handles)
    }

    /// The type that a name is an alias of, if it is one.
    pub(crate) fn resolve<'a>(&'a self, of: &'a Type) -> &'a Type {
        let Type::Name(name) = of else { return of };
        self.aliases.iter().find(|(alias, _)| alias == name).map_or(of, |(_, target)| target)
    }
}

fn parse(file: &Path) -> Result<Vec<Item>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let parsed = syn::parse_file(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(parsed.items)
}

/// Fails when a file that no section names has a public item.
fn check_complete(src: &Path, seen: &HashSet<String>) -> Result<()> {
    for entry in fs::read_dir(src).map_err(|error| format!("{}: {error}", src.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_none_or(|end| end != "rs") || seen.contains(&name) {
            continue;
        }
        let is_exported = |item: &Item| match item {
            Item::Const(item) => is_public(&item.vis),
            Item::Struct(item) => is_public(&item.vis),
            Item::Type(item) => is_public(&item.vis),
            Item::Fn(item) => is_public(&item.vis),
            _ => false,
        };
        if parse(&path)?.iter().any(is_exported) {
            return Err(format!("src/{name}.rs has public items, and no section of the header"));
        }
    }
    Ok(())
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

/// Whether a struct has the layout that C gives it.
fn is_c(item: &syn::ItemStruct) -> bool {
    item.attrs.iter().any(|attribute| {
        attribute.path().is_ident("repr")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "C")
    })
}

fn value_of(value: &Expr) -> Result<i64> {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().map_err(|error| error.to_string()),
            _ => Err("a constant that is not a number".to_owned()),
        },
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => Ok(-value_of(&unary.expr)?),
        _ => Err("a constant that is not written out as a number".to_owned()),
    }
}

fn struct_of(item: &syn::ItemStruct) -> Result<Struct> {
    let name = item.ident.to_string();
    let Fields::Named(fields) = &item.fields else { return Err(format!("{name} has no fields")) };
    let fields = fields.named.iter().map(|field| {
        let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        Ok(Field { name, of: type_of(&field.ty)? })
    });
    Ok(Struct { name, fields: fields.collect::<Result<_>>()?, is_callers: false })
}

fn type_of(from: &syn::Type) -> Result<Type> {
    match from {
        syn::Type::Ptr(pointer) => Ok(Type::Pointer(Box::new(type_of(&pointer.elem)?))),
        syn::Type::Array(array) => {
            let Expr::Path(len) = &array.len else {
                return Err("an array whose length has no name".to_owned());
            };
            let len = len.path.get_ident().map(ToString::to_string).unwrap_or_default();
            Ok(Type::Array(Box::new(type_of(&array.elem)?), len))
        }
        syn::Type::Path(path) => {
            let last = path.path.segments.last().ok_or("a type without a name")?;
            if !last.arguments.is_empty() {
                return Err(format!("{} is not a type of C", last.ident));
            }
            Ok(Type::Name(last.ident.to_string()))
        }
        _ => Err("a type that C does not have".to_owned()),
    }
}

fn function_of(item: &syn::ItemFn) -> Result<Function> {
    let parameters = item.sig.inputs.iter().map(|parameter| match parameter {
        FnArg::Typed(parameter) => type_of(&parameter.ty),
        FnArg::Receiver(_) => Err("an export with self".to_owned()),
    });
    Ok(Function {
        name: item.sig.ident.to_string(),
        parameters: parameters.collect::<Result<_>>()?,
        result: result_of(&item.sig.output)?,
    })
}

fn result_of(output: &ReturnType) -> Result<Option<Type>> {
    match output {
        ReturnType::Default => Ok(None),
        ReturnType::Type(_, of) => type_of(of).map(Some),
    }
}

/// The function pointer in `Option<fn>`; `None` for any other type.
fn callback_of(item: &syn::ItemType) -> Result<Option<Function>> {
    let syn::Type::Path(path) = &*item.ty else { return Ok(None) };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Option") else {
        return Ok(None);
    };
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return Ok(None) };
    let Some(syn::GenericArgument::Type(syn::Type::BareFn(function))) = arguments.args.first()
    else {
        return Err(format!("{} is an Option of something that is no function", item.ident));
    };
    let parameters = function.inputs.iter().map(|parameter| type_of(&parameter.ty));
    Ok(Some(Function {
        name: item.ident.to_string(),
        parameters: parameters.collect::<Result<_>>()?,
        result: result_of(&function.output)?,
    }))
}

/// The arms of the match that gives each error kind its status.
fn statuses_of(item: &syn::ItemFn) -> Result<Vec<(String, String)>> {
    let Some(syn::Stmt::Expr(Expr::Match(all), _)) = item.block.stmts.first() else {
        return Err("of_kind is not one match".to_owned());
    };
    let mut found = Vec::new();
    for arm in &all.arms {
        let Expr::Path(status) = &*arm.body else { return Err("of_kind: not a status".to_owned()) };
        let status = status.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let patterns: Vec<&syn::Pat> = match &arm.pat {
            syn::Pat::Or(or) => or.cases.iter().collect(),
            one => vec![one],
        };
        for pattern in patterns {
            // The wildcard is for kinds that are not known yet.
            if let syn::Pat::Path(kind) = pattern {
                let kind = kind.path.segments.last().ok_or("of_kind: a kind without a name")?;
                found.push((kind.ident.to_string(), status.clone()));
            }
        }
    }
    Ok(found)
}

fn first_name(tokens: impl IntoIterator<Item: ToString>) -> Option<String> {
    tokens.into_iter().next().map(|first| first.to_string())
}
