package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// VolumeKind is the form of a volume.
type VolumeKind uint32

const (
	// VolumeDirectory is a directory, which sandboxes can share.
	VolumeDirectory VolumeKind = ffi.VolumeDirectory
	// VolumeDisk is a filesystem in a file, for one running sandbox at a time.
	VolumeDisk VolumeKind = ffi.VolumeDisk
)

// VolumeInfo describes a volume.
type VolumeInfo struct {
	Name string
	Kind VolumeKind
	// Path is its directory, or the file of a disk.
	Path string
	// UsedBytes are those that its files take, as far as the caller may read them.
	UsedBytes uint64
	// CapacityBytes is the size of a disk; QuotaMiB is what a directory should hold, 0 if unset.
	CapacityBytes, QuotaMiB uint64
	Labels                  map[string]string
	CreatedAt               time.Time
	// UsedBy are the names of the sandboxes that use it, running or stopped.
	UsedBy []string
}

// VolumeOption configures CreateVolume.
type VolumeOption func(*ffi.VolumeOptions)

// WithVolumeKind sets the form of a volume; a directory unless set.
func WithVolumeKind(kind VolumeKind) VolumeOption {
	return func(o *ffi.VolumeOptions) { o.Kind = uint32(kind) }
}

// WithVolumeSize sets the size of a disk in MiB.
func WithVolumeSize(mib uint64) VolumeOption {
	return func(o *ffi.VolumeOptions) { o.SizeMiB = mib }
}

// WithVolumeQuota sets how much a directory should hold, in MiB. It is reported and not enforced.
func WithVolumeQuota(mib uint64) VolumeOption {
	return func(o *ffi.VolumeOptions) { o.QuotaMiB = mib }
}

// WithVolumeLabels adds labels.
func WithVolumeLabels(labels map[string]string) VolumeOption {
	return func(o *ffi.VolumeOptions) {
		for key, value := range labels {
			o.Labels = append(o.Labels, key+"="+value)
		}
	}
}

// CreateVolume creates a volume.
func CreateVolume(ctx context.Context, name string, options ...VolumeOption) (*VolumeInfo, error) {
	raw := ffi.VolumeOptions{Name: name}
	for _, option := range options {
		option(&raw)
	}
	if strings.IndexByte(name+strings.Join(raw.Labels, ""), 0) >= 0 {
		return nil, badConfig("the name or a label of a volume contains NUL")
	}
	if err := do(ctx, func() error { return ffi.CreateVolume(&raw) }); err != nil {
		return nil, err
	}
	return GetVolume(ctx, name)
}

// GetVolume finds a volume by its name.
func GetVolume(ctx context.Context, name string) (*VolumeInfo, error) {
	if err := validVolume(name); err != nil {
		return nil, err
	}
	raw, err := runBlocking(ctx, func() (ffi.VolumeEntry, error) { return ffi.GetVolume(name) }, nil)
	if err != nil {
		return nil, err
	}
	info := volumeInfo(raw)
	return &info, nil
}

// ListVolumes returns all volumes, by name.
func ListVolumes(ctx context.Context) ([]VolumeInfo, error) {
	raw, err := runBlocking(ctx, ffi.ListVolumes, nil)
	all := make([]VolumeInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, volumeInfo(entry))
	}
	return all, err
}

// RemoveVolume removes a volume with its files. One that a sandbox uses is an error of kind
// ErrVolumeInUse.
func RemoveVolume(ctx context.Context, name string) error {
	if err := validVolume(name); err != nil {
		return err
	}
	return do(ctx, func() error { return ffi.RemoveVolume(name) })
}

// validVolume rejects what a C string cannot hold; the library validates the rest.
func validVolume(name string) error {
	if strings.IndexByte(name, 0) >= 0 {
		return badConfig("the name of a volume contains NUL")
	}
	return nil
}

func volumeInfo(entry ffi.VolumeEntry) VolumeInfo {
	labels := map[string]string{}
	for _, label := range entry.Labels {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	return VolumeInfo{
		Name: entry.Name, Kind: VolumeKind(entry.Kind), Path: entry.Path,
		UsedBytes: entry.Used, CapacityBytes: entry.Size, QuotaMiB: entry.QuotaMiB,
		Labels: labels, CreatedAt: time.UnixMilli(entry.CreatedMs), UsedBy: entry.UsedBy,
	}
}
