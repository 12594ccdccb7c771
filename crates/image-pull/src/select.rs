//! Selects an image: of an index by its platform, and of an archive by its name.

use crate::manifest::Descriptor;
use msb_image::{Error, OFFICIAL_REGISTRY, Platform, Reference, Result, shown};
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use std::collections::BTreeSet;

/// Media types of manifests and indexes.
pub(crate) const MANIFESTS: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];
/// Annotation of what docker attaches to an image, such as an attestation of its build.
const ATTACHED: &str = "vnd.docker.reference.type";
/// Annotations for the names of images in an archive.
const NAME_KEYS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Maximum number of names in an error.
const MAX_NAMES: usize = 16;

/// An image of an archive, and its names there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<T> {
    pub(crate) image: T,
    pub(crate) names: Vec<Reference>,
}

/// Selects the entry of an index for a platform.
pub(crate) fn select_platform<'a>(
    all: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> = all.iter().filter(|entry| is_image(entry)).collect();
    let ranked = images.iter().filter_map(|entry| Some((wanted.rank(&entry.platform)?, entry)));
    let best = ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, entry)| entry);
    // Of one without a platform the configuration says which it is for.
    let unknown = || images.iter().find(|entry| !entry.platform.is_known());
    if let Some(found) = best.or_else(unknown) {
        return Ok(found);
    }
    let others: BTreeSet<String> =
        images.iter().map(|entry| entry.platform.normalized().to_string()).collect();
    Err(Error::bad(match others.is_empty() {
        true => format!("no image for {wanted}: its index has no image at all"),
        false => format!("no image for {wanted}, only for {}", listed(&others)),
    }))
}

/// Whether an entry of an index is an image or an index of images, and nothing attached to one.
fn is_image(entry: &Descriptor) -> bool {
    let fits = |text: &str, known: &[&str]| text.is_empty() || known.contains(&text);
    fits(&entry.media_type, &MANIFESTS)
        && fits(&entry.artifact_type, &[IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE])
        && !entry.annotations.contains_key(ATTACHED)
        && entry.platform.os != "unknown"
}

/// Selects an entry of `index.json`: by its name, else the only image, else by its platform.
pub(crate) fn select_entry(
    all: Vec<Descriptor>,
    wanted: Option<&Reference>,
    platform: &Platform,
) -> Result<Candidate<Descriptor>> {
    let images = all.into_iter().filter(is_image);
    let images = images.map(|entry| Candidate { names: names_of(&entry), image: entry });
    let same = |a: &Descriptor, b: &Descriptor| a.digest == b.digest;
    let mut found = of_name(merged(images, same), wanted);
    let is_one_image = found.windows(2).all(|pair| match pair {
        [one, next] => one.names == next.names,
        _ => true,
    });
    if found.len() > 1 && is_one_image {
        let entries: Vec<Descriptor> = found.iter().map(|one| one.image.clone()).collect();
        let digest = &select_platform(&entries, platform)?.digest;
        found.retain(|one| one.image.digest == *digest);
    }
    only(found)
}

/// Selects an image of `manifest.json`: by its name, else the only one.
pub(crate) fn select_named<T>(
    all: impl Iterator<Item = Candidate<T>>,
    wanted: Option<&Reference>,
    same: impl Fn(&T, &T) -> bool,
) -> Result<Candidate<T>> {
    only(of_name(merged(all, same), wanted))
}

/// Makes one candidate of all for the same image.
fn merged<T>(
    all: impl Iterator<Item = Candidate<T>>,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<Candidate<T>> {
    let mut merged: Vec<Candidate<T>> = Vec::new();
    for Candidate { image, names } in all {
        match merged.iter_mut().find(|known| same(&known.image, &image)) {
            Some(known) => known.names.extend(names),
            None => merged.push(Candidate { image, names }),
        }
    }
    for one in &mut merged {
        one.names.sort();
        one.names.dedup();
    }
    merged
}

/// Leaves those with a name, if there are any.
fn of_name<T>(mut all: Vec<Candidate<T>>, wanted: Option<&Reference>) -> Vec<Candidate<T>> {
    let is_named = |one: &Candidate<T>| wanted.is_some_and(|name| one.names.contains(name));
    if all.iter().any(is_named) {
        all.retain(is_named);
    }
    all
}

fn only<T>(mut all: Vec<Candidate<T>>) -> Result<Candidate<T>> {
    let count = all.len();
    let names: BTreeSet<String> =
        all.iter().flat_map(|one| &one.names).map(Reference::familiar).collect();
    match (all.pop(), count) {
        (Some(only), 1) => Ok(only),
        (None, _) => Err(Error::bad("it has no image")),
        _ if names.is_empty() => {
            Err(Error::bad(format!("cannot select one of {count} images without names")))
        }
        _ => {
            let text = format!("cannot select one of {count} images: {}", listed(&names));
            Err(Error::bad(text).hint("import it with the name of one of them"))
        }
    }
}

/// Returns the names of an entry of `index.json`.
fn names_of(entry: &Descriptor) -> Vec<Reference> {
    let names = NAME_KEYS.iter().filter_map(|key| entry.annotations.get(*key));
    // A tag alone is no name outside of the registry that it came from.
    let mut names = names.filter(|name| name.contains(['/', ':']));
    let first = names.find_map(|name| Reference::parse(name, OFFICIAL_REGISTRY).ok());
    first.into_iter().collect()
}

/// Returns names for an error, in a line of bounded length.
fn listed(names: &BTreeSet<String>) -> String {
    let rest = names.len().saturating_sub(MAX_NAMES);
    let first = names.iter().take(MAX_NAMES);
    let first = first.map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    match rest {
        0 => first,
        rest => format!("{first} and {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_image::Digest;

    fn amd64() -> Platform {
        "linux/amd64".parse().unwrap()
    }

    fn entry(platform: &str) -> Descriptor {
        let digest = Digest::of(platform.as_bytes()).to_string();
        let platform = platform.parse().unwrap_or_default();
        Descriptor { digest, platform, ..Descriptor::default() }
    }

    fn named(salt: &str, name: &str) -> Descriptor {
        let annotations = [(NAME_KEYS[0].to_owned(), name.to_owned())].into();
        Descriptor { annotations, ..entry(salt) }
    }

    #[test]
    fn g_entry_for_the_platform_is_selected() {
        let all = [
            entry("windows/amd64"),
            entry("linux/s390x"),
            entry("linux/amd64/v3"),
            entry("linux/amd64"),
            entry("none"),
        ];
        let select = |all: &[Descriptor], platform: &str| {
            let selected = select_platform(all, &platform.parse().unwrap());
            selected.map(|entry| entry.digest.clone()).map_err(|error| error.to_string())
        };
        assert_eq!(select(&all, "linux/amd64").unwrap(), all[3].digest);
        assert_eq!(select(&all[..3], "linux/amd64").unwrap(), all[2].digest);
        assert_eq!(select(&all, "linux/amd64/v3").unwrap(), all[2].digest);
        assert_eq!(select(&all, "linux/x86_64").unwrap(), all[3].digest);
        assert_eq!(select(&all, "linux/arm64").unwrap(), all[4].digest, "without a platform");
        let error = select(&all[..3], "linux/amd64/v2").unwrap_err();
        assert_eq!(
            error,
            "no image for linux/amd64/v2, only for linux/amd64/v3, linux/s390x, windows/amd64"
        );
    }

    #[test]
    fn g_attestations_and_artifacts_are_not_selected() {
        let with = |change: fn(&mut Descriptor)| {
            let mut entry = entry("linux/amd64");
            change(&mut entry);
            entry
        };
        let no_images = [
            with(|entry| entry.platform = "unknown/unknown".parse().unwrap()),
            with(|entry| {
                entry.annotations.insert(ATTACHED.into(), "attestation-manifest".into());
            }),
            with(|entry| entry.artifact_type = "application/x".into()),
            with(|entry| entry.media_type = "application/vnd.oci.image.config.v1+json".into()),
        ];
        let expected = "no image for linux/amd64: its index has no image at all";
        for all in [&no_images[..], &[]] {
            assert_eq!(select_platform(all, &amd64()).unwrap_err().to_string(), expected);
        }
        let mut all = no_images.to_vec();
        all.push(entry("none"));
        assert_eq!(select_platform(&all, &amd64()).unwrap().digest, all[4].digest);
        assert_eq!(select_entry(all, None, &amd64()).unwrap().image.digest, entry("none").digest);
    }

    #[test]
    fn g_error_lists_a_bounded_number_of_platforms() {
        let all: Vec<Descriptor> = (0..1000).map(|n| entry(&format!("linux/cpu{n}"))).collect();
        let error = select_platform(&all, &amd64()).unwrap_err().to_string();
        assert!(error.ends_with("linux/cpu111 and 984 more"), "{error}");
    }

    #[test]
    fn g_image_of_an_archive_keeps_all_its_names() {
        let select = |all: &[Descriptor], wanted: Option<&str>| {
            let wanted = wanted.map(|name| Reference::parse(name, OFFICIAL_REGISTRY).unwrap());
            let found = select_entry(all.to_vec(), wanted.as_ref(), &amd64());
            let names = found.map(|one| one.names.iter().map(Reference::familiar).collect());
            names.map_err(|error| error.to_string()) as std::result::Result<Vec<String>, String>
        };
        let all = [named("a", "x:1"), named("a", "y:2"), named("a", "x:1")];
        assert_eq!(select(&all, None).unwrap(), ["x:1", "y:2"]);
        assert_eq!(select(&all, Some("z")).unwrap(), ["x:1", "y:2"], "the only image");
        let all = [named("a", "x:1"), named("b", "y:2"), entry("c")];
        assert_eq!(select(&all, Some("y:2")).unwrap(), ["y:2"]);
        let expected = "cannot select one of 3 images: x:1, y:2; \
            import it with the name of one of them";
        assert_eq!(select(&all, None).unwrap_err(), expected);
        assert_eq!(select(&all, Some("z")).unwrap_err(), expected);
        assert_eq!(select(&[], None).unwrap_err(), "it has no image");
    }

    #[test]
    fn g_entries_of_one_name_are_selected_by_platform() {
        let all = [named("linux/arm64", "x:1"), named("linux/amd64", "x:1")];
        let found = select_entry(all.to_vec(), None, &amd64()).unwrap();
        assert_eq!(found.image.digest, all[1].digest);
        let all = [entry("linux/arm64"), entry("linux/amd64")];
        let found = select_entry(all.to_vec(), None, &amd64()).unwrap();
        assert_eq!(found.image.digest, all[1].digest);
    }
}
