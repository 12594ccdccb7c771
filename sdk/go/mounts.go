package microsandbox

import (
	"sort"
	"strings"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// MountConfig is a mount of a new sandbox; the functions of Mount make it.
type MountConfig struct{ raw ffi.Mount }

// MountOptions are the options of a mount. Set-user-ID bits and device files never work in a mount,
// whatever Nosuid and Nodev are.
type MountOptions struct {
	Readonly, Noexec, Nosuid, Nodev bool
	// Owner is the user of the sandbox to whom what belongs to the caller belongs; nil is root.
	Owner *MountOwner
}

// MountOwner is a user and a group of a sandbox.
type MountOwner struct{ UID, GID uint32 }

// VolumeMode says whether a new sandbox creates a volume.
type VolumeMode uint32

const (
	// VolumeExisting requires that it exists.
	VolumeExisting VolumeMode = 0
	// VolumeCreate creates it, and requires that it does not exist.
	VolumeCreate VolumeMode = VolumeMode(ffi.MountCreate)
	// VolumeEnsureExists creates it if it does not exist.
	VolumeEnsureExists VolumeMode = VolumeMode(ffi.MountEnsureExists)
)

// NamedVolumeOptions are the options of Mount.NamedWith.
type NamedVolumeOptions struct{ Mode VolumeMode }

// TmpfsOptions are the options of Mount.Tmpfs; without a size it has half of the sandbox's memory.
type TmpfsOptions struct {
	SizeMiB          uint64
	Readonly, Noexec bool
}

// DiskOptions are the options of Mount.Disk. SizeMiB is for a disk of the sandbox's own.
type DiskOptions struct {
	SizeMiB          uint64
	Readonly, Noexec bool
}

type mounts struct{}

// Mount makes mounts for WithMounts.
var Mount mounts

// Bind mounts a directory or a file of the host.
func (mounts) Bind(host string, options MountOptions) MountConfig {
	return options.mount(ffi.Mount{Kind: ffi.MountBind, Source: host})
}

// Named mounts an existing volume.
func (m mounts) Named(name string, options MountOptions) MountConfig {
	return m.NamedWith(name, options, NamedVolumeOptions{})
}

// NamedWith mounts a volume, which is created if volume.Mode says so.
func (mounts) NamedWith(name string, options MountOptions, volume NamedVolumeOptions) MountConfig {
	raw := ffi.Mount{Kind: ffi.MountVolume, Source: name, Flags: uint32(volume.Mode)}
	return options.mount(raw)
}

// Tmpfs mounts an empty filesystem in memory.
func (mounts) Tmpfs(o TmpfsOptions) MountConfig {
	options := MountOptions{Readonly: o.Readonly, Noexec: o.Noexec}
	return options.mount(ffi.Mount{Kind: ffi.MountTmpfs, Size: o.SizeMiB << 20})
}

// Disk mounts the filesystem in a file of the host; with an empty path, an empty one of the
// sandbox's own.
func (mounts) Disk(host string, o DiskOptions) MountConfig {
	options := MountOptions{Readonly: o.Readonly, Noexec: o.Noexec}
	return options.mount(ffi.Mount{Kind: ffi.MountDisk, Source: host, Size: o.SizeMiB << 20})
}

func (o MountOptions) mount(raw ffi.Mount) MountConfig {
	if o.Readonly {
		raw.Flags |= ffi.MountReadonly
	}
	if o.Noexec {
		raw.Flags |= ffi.MountNoexec
	}
	if o.Owner != nil {
		raw.Flags |= ffi.MountOwner
		raw.UID, raw.GID = o.Owner.UID, o.Owner.GID
	}
	return MountConfig{raw}
}

// WithMounts mounts something of the host at each absolute path in the sandbox.
func WithMounts(mounts map[string]MountConfig) SandboxOption {
	return func(c *sandboxConfig) {
		targets := make([]string, 0, len(mounts))
		for target := range mounts {
			targets = append(targets, target)
		}
		sort.Strings(targets)
		for _, target := range targets {
			raw := mounts[target].raw
			raw.Target = target
			if strings.IndexByte(target+raw.Source, 0) >= 0 {
				c.refuse("a path of a mount contains NUL")
			}
			c.options.Mounts = append(c.options.Mounts, raw)
		}
	}
}
