//! Reads JSON as Go's `encoding/json` does, which writes the documents of images and the files of
//! credentials, and reads them in docker and podman.
//!
//! - A key is the name of a field in any case. `null` is as good as an absent field; in a list or
//!   map it is an empty value.
//! - Of a repeated key the last value counts: objects and maps are merged, lists are replaced.
//! - Unknown fields are skipped without being stored, however deep they are.
//! - A value of a wrong type is an error that names the field and never quotes the value, which
//!   may be a secret.
//!
//! Not `#[derive(Deserialize)]`: it compares keys exactly and refuses repeated ones. Not by way of
//! `serde_json::Value`: 4 MiB of JSON become up to 330 MiB of values.

use crate::error::shown;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

pub use serde::de::{IgnoredAny, MapAccess};

/// Maximum number of items of a list or map: an item of 3 bytes in a document takes 200 in memory.
const MAX_ITEMS: usize = 100_000;

/// A value that can be read. By default each type of JSON is a wrong one.
pub trait Json {
    /// What it has to be, in errors.
    const EXPECTED: &'static str;

    /// Takes `null`.
    fn null(&mut self) {}

    /// Takes a string. Returns false if the type is wrong.
    fn text(&mut self, _: &str) -> bool {
        false
    }

    /// Takes a whole number from 0 on. Returns false if the type is wrong.
    fn number(&mut self, _: u64) -> bool {
        false
    }

    /// Takes a list.
    fn list<'de, A: SeqAccess<'de>>(&mut self, _: A) -> Result<(), A::Error> {
        Err(wrong_type::<Self, _>())
    }

    /// Takes an object.
    fn object<'de, A: MapAccess<'de>>(&mut self, _: A) -> Result<(), A::Error> {
        Err(wrong_type::<Self, _>())
    }
}

/// Reads a whole document. Invalid UTF-8 is replaced, as Go does it.
pub fn from_slice<T: Json + Default>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let text = String::from_utf8_lossy(bytes);
    let mut value = T::default();
    let mut document = serde_json::Deserializer::from_str(&text);
    Slot(&mut value).deserialize(&mut document)?;
    document.end()?;
    Ok(value)
}

/// Reads the value of a field into it.
pub fn read_field<'de, A: MapAccess<'de>, T: Json>(
    name: &str,
    map: &mut A,
    field: &mut T,
) -> Result<(), A::Error> {
    map.next_value_seed(Slot(field)).map_err(|error| within(name, error))
}

/// Returns the name among `names` that a key stands for: the same, else one that differs in case.
pub fn known_name<'a>(key: &str, names: &[&'a str]) -> Option<&'a str> {
    let same = names.iter().find(|name| **name == key);
    let folded = || names.iter().find(|name| fold(name).eq(fold(key)));
    same.or_else(folded).copied()
}

/// Returns a text without the differences that Go ignores. A long s and the sign for Kelvin are
/// the only characters outside of ASCII that fold to a letter of it.
fn fold(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

/// Implements [`Json`] for a struct: the names of fields in documents, and here.
#[macro_export]
macro_rules! json_object {
    ($type:ty { $($name:literal: $field:ident),* $(,)? }) => {
        impl $crate::json::Json for $type {
            const EXPECTED: &'static str = "an object";

            fn object<'de, A: $crate::json::MapAccess<'de>>(
                &mut self,
                mut map: A,
            ) -> ::core::result::Result<(), A::Error> {
                while let Some(key) = map.next_key::<::std::string::String>()? {
                    match $crate::json::known_name(&key, &[$($name),*]) {
                        $(Some($name) => {
                            $crate::json::read_field($name, &mut map, &mut self.$field)?;
                        })*
                        _ => drop(map.next_value::<$crate::json::IgnoredAny>()?),
                    }
                }
                Ok(())
            }
        }
    };
}

impl Json for String {
    const EXPECTED: &'static str = "a string";

    fn text(&mut self, text: &str) -> bool {
        text.clone_into(self);
        true
    }
}

impl Json for u64 {
    const EXPECTED: &'static str = "a whole number from 0 on";

    fn number(&mut self, number: u64) -> bool {
        *self = number;
        true
    }
}

/// A field whose absence matters; Go has a pointer.
impl<T: Json + Default> Json for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn null(&mut self) {
        *self = None;
    }

    fn text(&mut self, text: &str) -> bool {
        self.get_or_insert_default().text(text)
    }

    fn number(&mut self, number: u64) -> bool {
        self.get_or_insert_default().number(number)
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, list: A) -> Result<(), A::Error> {
        self.get_or_insert_default().list(list)
    }

    fn object<'de, A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error> {
        self.get_or_insert_default().object(map)
    }
}

impl<T: Json + Default> Json for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn null(&mut self) {
        self.clear();
    }

    fn list<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        self.clear();
        loop {
            let (mut item, number) = (T::default(), self.len());
            let next = list.next_element_seed(Slot(&mut item));
            if next.map_err(|error| within(number, error))?.is_none() {
                return Ok(());
            }
            if number == MAX_ITEMS {
                return Err(A::Error::custom(format_args!("has more than {MAX_ITEMS} items")));
            }
            self.push(item);
        }
    }
}

impl<T: Json + Default> Json for BTreeMap<String, T> {
    const EXPECTED: &'static str = "an object";

    fn null(&mut self) {
        self.clear();
    }

    fn object<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let mut item = T::default();
            let read = map.next_value_seed(Slot(&mut item));
            read.map_err(|error| within(format_args!("\"{}\"", shown(&key)), error))?;
            if self.len() == MAX_ITEMS {
                return Err(A::Error::custom(format_args!("has more than {MAX_ITEMS} items")));
            }
            self.insert(key, item);
        }
        Ok(())
    }
}

/// Where a value goes.
struct Slot<'a, T: ?Sized>(&'a mut T);

impl<'de, T: Json> DeserializeSeed<'de> for Slot<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, T: Json> Visitor<'de> for Slot<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.null();
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.0.text(text) { Ok(()) } else { Err(wrong_type::<T, E>()) }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        if self.0.number(number) { Ok(()) } else { Err(wrong_type::<T, E>()) }
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Err(wrong_type::<T, E>())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Err(wrong_type::<T, E>())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Err(wrong_type::<T, E>())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.object(map)
    }
}

fn wrong_type<T: Json + ?Sized, E: serde::de::Error>() -> E {
    E::custom(format_args!("must be {}", T::EXPECTED))
}

/// Adds the name of the field in which an error is.
fn within<E: serde::de::Error>(name: impl Display, error: E) -> E {
    E::custom(format_args!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        text: String,
        number: u64,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Outer {
        inner: Inner,
        maybe: Option<Inner>,
        list: Vec<String>,
        map: BTreeMap<String, String>,
    }

    json_object!(Inner { "someText": text, "size": number });
    json_object!(Outer { "inner": inner, "maybe": maybe, "list": list, "tasks": map });

    fn read(text: &str) -> Result<Outer, String> {
        from_slice(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn inner(text: &str, number: u64) -> Inner {
        Inner { text: text.into(), number }
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_one_counts() {
        let found = read(
            r#"{"INNER":{"sometext":"a","Size":1},"inner":{"someTeXt":"b"},"Inner":null,
            "maybe":{"size":1},"Maybe":{"SOMETEXT":"c"},"list":["a","b"],"List":["c",null],
            "tasks":{"a":"1","b":"2"},"ta\u017f\u212as":{"A":"3","b":null}}"#,
        );
        let map = [("A", "3"), ("a", "1"), ("b", "")];
        let expected = Outer {
            inner: inner("b", 1),
            maybe: Some(inner("c", 1)),
            list: vec!["c".into(), String::new()],
            map: map.map(|(key, value)| (key.into(), value.into())).into(),
        };
        assert_eq!(found.unwrap(), expected);
        let nulls = r#"{"maybe":{},"maybe":null,"list":["a"],"list":null,"tasks":{"a":"1"},
            "tasks":null}"#;
        assert_eq!(read(nulls).unwrap(), Outer::default());
        assert_eq!(read("null").unwrap(), Outer::default());
    }

    #[test]
    fn unknown_fields_are_skipped_however_deep() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&format!(r#"{{"x":{deep},"y":1e999}}"#)).unwrap(), Outer::default());
        assert!(read(&format!(r#"{{"list":{deep}}}"#)).is_err());
    }

    #[test]
    fn wrong_type_names_the_field_and_hides_the_value() {
        let cases = [
            (r#"{"inner":{"someText":4711}}"#, "inner: someText: must be a string"),
            (r#"{"inner":{"size":"secret"}}"#, "inner: size: must be a whole number from 0 on"),
            (r#"{"inner":{"size":-4711}}"#, "inner: size: must be a whole number from 0 on"),
            (r#"{"inner":{"size":4711.0}}"#, "inner: size: must be a whole number from 0 on"),
            (r#"{"inner":["secret"]}"#, "inner: must be an object"),
            (r#"{"maybe":true}"#, "maybe: must be an object"),
            (r#"{"list":{"secret":1}}"#, "list: must be a list"),
            (r#"{"list":["a",4711]}"#, "list: 1: must be a string"),
            (r#"{"tasks":{"a\n":{"b":"secret"}}}"#, r#"tasks: "a\n": must be a string"#),
            (r#""secret""#, "must be an object"),
        ];
        for (text, expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(error.contains(" at line 1 column "), "{error}");
            assert!(!error.contains("secret") && !error.contains("4711"), "{error}");
        }
        assert!(read("{} {}").is_err() && read("").is_err());
    }

    #[test]
    fn lists_and_maps_have_a_bounded_number_of_items() {
        let list = |count| format!(r#"{{"list":[{}]}}"#, vec!["null"; count].join(","));
        assert_eq!(read(&list(MAX_ITEMS)).unwrap().list.len(), MAX_ITEMS);
        let error = read(&list(MAX_ITEMS + 1)).unwrap_err();
        assert!(error.starts_with("list: has more than 100000 items"), "{error}");
        let items: Vec<String> = (0..=MAX_ITEMS).map(|n| format!(r#""{n}":null"#)).collect();
        let error = read(&format!(r#"{{"tasks":{{{}}}}}"#, items.join(","))).unwrap_err();
        assert!(error.starts_with("tasks: has more than 100000 items"), "{error}");
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let found: Outer = from_slice(b"{\"list\":[\"a\xff\"]}").unwrap();
        assert_eq!(found.list, ["a\u{fffd}"]);
    }
}
