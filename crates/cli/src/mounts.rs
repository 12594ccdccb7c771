//! Mounts on the command line, in the forms that docker has.

use crate::values;
use microsandbox::{MountBuilder, VolumeMount};
use std::path::Path;

/// Parses `SOURCE:PATH[:OPTIONS]`. A source without a slash is the name of a volume, which is created
/// if it does not exist.
pub(crate) fn volume(text: &str) -> Result<VolumeMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, options) = match parts.as_slice() {
        [source, path] => (*source, *path, ""),
        [source, path, options] => (*source, *path, *options),
        [path] if path.starts_with('/') => {
            return Err(format!("a volume needs a name: NAME:{path}"));
        }
        _ => return Err("expected SOURCE:PATH or SOURCE:PATH:ro; see also --mount".to_owned()),
    };
    let mount = match is_volume_name(source) {
        true => MountBuilder::new(path).named_with(source, |volume| volume.ensure_exists()),
        false => MountBuilder::new(path).bind(source),
    };
    build(options.split(',').filter(|option| !option.is_empty()).try_fold(mount, flag)?)
}

fn is_volume_name(source: &str) -> bool {
    !source.is_empty() && !source.contains('/') && source != "." && source != ".."
}

/// Parses `PATH[:OPTIONS]` of a tmpfs.
pub(crate) fn tmpfs(text: &str) -> Result<VolumeMount, String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut pairs = Pairs::parse(options)?;
    let mount = MountBuilder::new(path).tmpfs();
    let mount = pairs.with(mount, &["size"], |mount, size| Ok(mount.size_bytes(bytes(size)?)))?;
    build(pairs.finish(mount)?)
}

/// Parses `type=bind,src=PATH,dst=PATH,readonly` and the like.
pub(crate) fn mount(text: &str) -> Result<VolumeMount, String> {
    let mut pairs = Pairs::parse(text)?;
    let target = pairs.take(&["dst", "destination", "target"])?;
    let target = target.ok_or("it has no destination; add dst=PATH")?;
    let source = pairs.take(&["src", "source"])?;
    let kind = pairs.take(&["type"])?.unwrap_or_else(|| "volume".to_owned());
    let needed = || source.clone().ok_or_else(|| format!("a {kind} needs a source; add src=..."));
    let mount = MountBuilder::new(target);
    let mount = match kind.as_str() {
        "bind" => mount.bind(needed()?),
        "volume" => {
            let name = needed()?;
            if !is_volume_name(&name) {
                return Err(format!("{name:?} is no name of a volume; add type=bind"));
            }
            mount.named_with(name, |volume| volume.ensure_exists())
        }
        "tmpfs" if source.is_some() => return Err("a tmpfs has no source".to_owned()),
        "tmpfs" => mount.tmpfs(),
        "disk" => match source {
            Some(image) => mount.disk(image),
            None => mount.own_disk(),
        },
        other => return Err(format!("unknown type {other:?}; use bind, volume, tmpfs or disk")),
    };
    let sizes: &[&str] = match kind.as_str() {
        "tmpfs" => &["size", "tmpfs-size"],
        _ => &["size"],
    };
    let mount = pairs.with(mount, sizes, |mount, size| {
        Ok(mount.size_bytes(if kind == "disk" { mib(size)? } else { bytes(size)? }))
    })?;
    build(pairs.finish(mount)?)
}

fn bytes(text: &str) -> Result<u64, String> {
    values::bytes(text).map_err(|error| format!("size: {error}"))
}

fn mib(text: &str) -> Result<u64, String> {
    values::size(text).map(|mib| mib << 20).map_err(|error| format!("size: {error}"))
}

fn build(mount: MountBuilder) -> Result<VolumeMount, String> {
    mount.build().map_err(|error| error.to_string())
}

/// Applies an option without a value.
fn flag(mount: MountBuilder, option: &str) -> Result<MountBuilder, String> {
    match option {
        "ro" | "readonly" => Ok(mount.readonly()),
        "noexec" => Ok(mount.noexec()),
        // Every mount has these, or is so.
        "rw" | "exec" | "nosuid" | "nodev" | "private" | "rprivate" | "z" | "Z" => Ok(mount),
        other => Err(format!("unknown option {other:?}; known: ro, rw, noexec, nosuid, nodev")),
    }
}

/// Options with and without values, by key.
struct Pairs(Vec<(String, Option<String>)>);

impl Pairs {
    fn parse(text: &str) -> Result<Pairs, String> {
        let mut pairs: Vec<(String, Option<String>)> = Vec::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option, None),
            };
            if pairs.iter().any(|(other, _)| other == key) {
                return Err(format!("{key} is given twice"));
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Pairs(pairs))
    }

    /// Takes the value of a key with several names.
    fn take(&mut self, names: &[&str]) -> Result<Option<String>, String> {
        let mut found = None;
        for name in names {
            let Some(at) = self.0.iter().position(|(key, _)| key == name) else { continue };
            let (_, value) = self.0.remove(at);
            let value = value.filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| format!("{name} has no value"))?;
            if found.replace(value).is_some() {
                return Err(format!("{} is given twice", names.join(" or ")));
            }
        }
        Ok(found)
    }

    fn with(
        &mut self,
        mount: MountBuilder,
        names: &[&str],
        set: impl FnOnce(MountBuilder, &str) -> Result<MountBuilder, String>,
    ) -> Result<MountBuilder, String> {
        match self.take(names)? {
            Some(value) => set(mount, &value),
            None => Ok(mount),
        }
    }

    /// Applies what every mount may have, and refuses the rest.
    fn finish(mut self, mut mount: MountBuilder) -> Result<MountBuilder, String> {
        let id = |text: Option<String>| match text {
            Some(text) => text.parse::<u32>().map(Some).map_err(|_| format!("{text:?} is no id")),
            None => Ok(None),
        };
        let (uid, gid) = (id(self.take(&["uid"])?)?, id(self.take(&["gid"])?)?);
        if uid.is_some() || gid.is_some() {
            mount = mount.owner(uid.unwrap_or(0), gid.unwrap_or(0));
        }
        for (key, value) in self.0 {
            mount = match (key.as_str(), value.as_deref()) {
                (flag_name, None) => flag(mount, flag_name)?,
                (flag_name, Some("true" | "1")) => flag(mount, flag_name)?,
                ("ro" | "readonly" | "noexec", Some("false" | "0")) => mount,
                ("bind-propagation", Some("private" | "rprivate")) => mount,
                ("format", Some("raw")) => mount,
                (key, Some(value)) => return Err(format!("unknown option {key}={value}")),
            };
        }
        Ok(mount)
    }
}

/// Returns a mount as `msb info` shows it.
pub(crate) fn show(mount: &VolumeMount) -> String {
    use microsandbox::MountSource as Source;
    let source = match &mount.source {
        Source::Bind { source } => source.to_string(),
        Source::Named { volume, .. } => format!("volume {volume}"),
        Source::Tmpfs { size_bytes: Some(size) } => {
            format!("tmpfs of {}", crate::text::binary_size(*size))
        }
        Source::Tmpfs { size_bytes: None } => "tmpfs".to_owned(),
        Source::Disk { size_mib: Some(size), .. } => {
            format!("disk of {}", crate::text::binary_size(size << 20))
        }
        Source::Disk { image: Some(image), .. } => format!("disk {image}"),
        _ => "unknown".to_owned(),
    };
    let mut text = format!("{source} at {}", Path::new(mount.target.as_os_str()).display());
    for (option, is_set) in [("read-only", mount.readonly), ("noexec", mount.noexec)] {
        if is_set {
            text += &format!(", {option}");
        }
    }
    if let Some(owner) = mount.owner {
        text += &format!(", owner {owner}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use microsandbox::{MountSource, Owner, VolumeCreation};

    fn named(mount: &VolumeMount) -> &str {
        match &mount.source {
            MountSource::Named { volume, create: VolumeCreation::EnsureExists(_) } => volume,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn l1_volume_option_binds_paths_and_names_volumes() {
        let mount = volume("/srv/data:/data:ro,noexec").unwrap();
        assert_eq!(mount.source, MountSource::Bind { source: "/srv/data".into() });
        assert!(mount.readonly && mount.noexec);
        for path in ["./x", "../x", "x/y", ".", ".."] {
            let mount = volume(&format!("{path}:/data")).unwrap();
            assert_eq!(mount.source, MountSource::Bind { source: path.into() });
        }
        assert_eq!(named(&volume("cache:/data:rw,z").unwrap()), "cache");
        for (text, reason) in [
            ("/data", "a volume needs a name: NAME:/data"),
            ("data", "expected SOURCE:PATH"),
            ("a:/b:ro:x", "expected SOURCE:PATH"),
            ("a:/b:wo", "unknown option \"wo\""),
        ] {
            let error = volume(text).unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }

    #[test]
    fn l1_mount_option_has_dockers_keys() {
        let bind = mount("type=bind,source=/srv,target=/data,readonly").unwrap();
        assert_eq!(bind.source, MountSource::Bind { source: "/srv".into() });
        assert!(bind.readonly);
        assert!(!mount("type=bind,src=/srv,dst=/data,ro=false").unwrap().readonly);
        let owned = mount("type=bind,src=/srv,dst=/d,uid=1000,gid=1000").unwrap();
        assert_eq!(owned.owner, Some(Owner { uid: 1000, gid: 1000 }));
        assert_eq!(named(&mount("src=cache,dst=/data").unwrap()), "cache");
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=65536").unwrap();
        assert_eq!(tmpfs.source, MountSource::Tmpfs { size_bytes: Some(65_536) });
        let disk = mount("type=disk,dst=/d,size=1g").unwrap();
        assert_eq!(disk.source, MountSource::Disk { size_mib: Some(1024), image: None });
        let disk = mount("type=disk,src=/i.img,dst=/d,format=raw").unwrap();
        let image = Some("/i.img".into());
        assert_eq!(disk.source, MountSource::Disk { size_mib: None, image });
        for (text, reason) in [
            ("type=bind,src=/srv", "it has no destination"),
            ("type=bind,dst=/data", "a bind needs a source"),
            ("type=nfs,src=a,dst=/data", "unknown type \"nfs\""),
            ("src=/srv,dst=/data", "\"/srv\" is no name of a volume; add type=bind"),
            ("type=tmpfs,src=a,dst=/t", "a tmpfs has no source"),
            ("type=bind,src=/a,dst=/b,dst=/c", "dst is given twice"),
            ("type=bind,src=/a,dst=/b,target=/c", "dst or destination or target is given twice"),
            ("type=bind,src=/a,dst=/b,bind-propagation=shared", "unknown option bind-propagation"),
            ("type=bind,src=/a,dst=/b,size=1", "cannot mount /b: only a tmpfs or a disk"),
            ("type=bind,src=,dst=/b", "src has no value"),
            ("type=tmpfs,dst=/t,size=x", "size: expected a number of bytes"),
            ("type=bind,src=/a,dst=/b,uid=me", "\"me\" is no id"),
        ] {
            let error = mount(text).unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }

    #[test]
    fn l3_tmpfs_option_has_a_size() {
        let mount = tmpfs("/t:size=64m,noexec").unwrap();
        assert_eq!(mount.source, MountSource::Tmpfs { size_bytes: Some(64 << 20) });
        assert!(mount.noexec);
        assert_eq!(tmpfs("/t").unwrap().source, MountSource::Tmpfs { size_bytes: None });
        assert!(tmpfs("/t:mode=0700").unwrap_err().starts_with("unknown option mode=0700"));
    }
}
