package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// PullPolicy is when the image of a sandbox is pulled from its registry.
type PullPolicy string

// The policies.
const (
	// PullMissing: when the image is not in the store.
	PullMissing PullPolicy = "missing"
	// PullAlways: each time; unchanged layers are not downloaded again.
	PullAlways PullPolicy = "always"
	// PullNever: never; the image must be in the store.
	PullNever PullPolicy = "never"
)

var policies = map[PullPolicy]uint32{
	PullMissing: ffi.PullMissing, PullAlways: ffi.PullAlways, PullNever: ffi.PullNever,
}

// WithPullPolicy sets when the image is pulled, instead of PullMissing.
func WithPullPolicy(policy PullPolicy) SandboxOption {
	return func(c *sandboxConfig) {
		number, known := policies[policy]
		if c.options.PullPolicy = number; !known {
			c.refuse("unknown pull policy " + string(policy))
		}
	}
}

// ImagePhase is the phase of an image pull or import.
type ImagePhase string

// The phases, in order; some may be skipped.
const (
	// PhaseResolving: resolving the name to a manifest.
	PhaseResolving ImagePhase = "resolving"
	// PhaseDownloading: downloading the layers.
	PhaseDownloading ImagePhase = "downloading"
	// PhaseUnpacking: unpacking the layers.
	PhaseUnpacking ImagePhase = "unpacking"
	// PhaseStarting: the image is ready and the sandbox is starting.
	PhaseStarting ImagePhase = "starting"
)

var phases = []ImagePhase{"", PhaseResolving, PhaseDownloading, PhaseUnpacking, PhaseStarting}

// Progress is the progress of an image pull or import.
type Progress struct {
	// Phase is the current phase.
	Phase ImagePhase
	// LayersDone of Layers are finished in this phase; Layers is 0 while the number is unknown.
	LayersDone, Layers int
	// Bytes of BytesTotal are finished in this phase; BytesTotal is 0 while unknown.
	Bytes, BytesTotal uint64
}

// progressFunc adapts a caller's progress function for package ffi.
func progressFunc(report func(Progress)) func(ffi.Progress) {
	if report == nil {
		return nil
	}
	return func(raw ffi.Progress) {
		phase := named(phases, raw.Phase)
		if phase == "" {
			return // unknown to this version
		}
		report(Progress{Phase: phase, LayersDone: int(raw.LayersDone), Layers: int(raw.Layers),
			Bytes: raw.Bytes, BytesTotal: raw.BytesTotal})
	}
}

// WithProgress reports the progress of the image pull or import. CreateSandbox calls report on the
// caller's goroutine, after each layer and about ten times a second; a short phase may be skipped.
// An image that is a directory has no progress. A panic in report propagates through CreateSandbox
// and cancels it like a context that is done.
func WithProgress(report func(Progress)) SandboxOption {
	return func(c *sandboxConfig) { c.progress = progressFunc(report) }
}

// ImageInfo describes an image in the store.
type ImageInfo struct {
	// ID is "sha256:" and 64 digits.
	ID string
	// Names are its names in their shortest form; Digests its digests in registries.
	Names, Digests []string
	// Architecture is the processor architecture, such as "amd64".
	Architecture string
	// Layers is how many layers it has.
	Layers int
	// Size is the size of its files in bytes, DownloadSize that of its layers as downloaded.
	Size, DownloadSize uint64
	// AddedAt is when it was added to the store.
	AddedAt time.Time
	// Rootfs is its root filesystem, a directory that must not be modified.
	Rootfs string
	// Env are its variables, Workdir and User its working directory and user, empty if not set: the
	// defaults of its sandboxes.
	Env           map[string]string
	Workdir, User string
	// Entrypoint and Cmd are the image's own command.
	Entrypoint, Cmd []string
	// UsedBy are the sandboxes that use it, running or not.
	UsedBy []string
}

func newImageInfo(raw ffi.ImageEntry) *ImageInfo {
	info := &ImageInfo{
		ID: raw.ID, Names: raw.Names, Digests: raw.Digests, Architecture: raw.Architecture,
		Layers: int(raw.Layers), Size: raw.Size, DownloadSize: raw.DownloadSize,
		AddedAt: time.UnixMilli(raw.AddedMs), Rootfs: raw.Rootfs, Env: map[string]string{},
		Workdir: raw.Workdir, User: raw.User, Entrypoint: raw.Entrypoint, Cmd: raw.Cmd,
		UsedBy: raw.UsedBy,
	}
	for _, pair := range raw.Env {
		name, value, _ := strings.Cut(pair, "=")
		info.Env[name] = value
	}
	return info
}

type imageConfig struct {
	progress func(ffi.Progress)
	name     string
	platform string
	err      error
}

// ImageOption configures PullImage and ImportImage.
type ImageOption func(*imageConfig)

// WithImageProgress reports the progress of PullImage and ImportImage; see WithProgress. A panic in
// report cancels the pull or import.
func WithImageProgress(report func(Progress)) ImageOption {
	return func(c *imageConfig) { c.progress = progressFunc(report) }
}

// WithImageName sets the name of the image for ImportImage, instead of the name in the archive.
func WithImageName(name string) ImageOption {
	return func(c *imageConfig) {
		if c.name = name; name == "" || strings.IndexByte(name, 0) >= 0 {
			c.err = badConfig("the name of an image is empty or contains NUL")
		}
	}
}

// WithImagePlatform sets the platform of the image for PullImage and ImportImage, such as
// "linux/arm64" or "linux/arm/v7", instead of this host's.
func WithImagePlatform(platform string) ImageOption {
	return func(c *imageConfig) {
		if c.platform = platform; platform == "" || strings.IndexByte(platform, 0) >= 0 {
			c.err = badConfig("the platform of an image is empty or contains NUL")
		}
	}
}

// PullImage pulls an image such as "python:3.12" from its registry, even if it is in the store
// already; unchanged layers are not downloaded again. When ctx is done the pull is cancelled at
// once, and what was downloaded is kept for the next pull.
//
// Expected errors are of the kinds ErrImageNotFound, ErrImageUnauthorized and
// ErrRegistryUnreachable.
func PullImage(ctx context.Context, name string, opts ...ImageOption) (*ImageInfo, error) {
	return loadImage(ctx, name, opts, func(c *imageConfig) (*ffi.Image, error) {
		if c.name != "" {
			return nil, invalid("a pulled image cannot be renamed")
		}
		return ffi.PullImage(name, c.platform)
	})
}

// ImportImage imports an image from an archive of a root filesystem, from the output of docker
// save, or from an OCI image layout; archives may be compressed with gzip or zstd. It is cancelled
// as PullImage is. A missing path is an error of kind ErrInvalidConfig.
func ImportImage(ctx context.Context, path string, opts ...ImageOption) (*ImageInfo, error) {
	return loadImage(ctx, path, opts, func(c *imageConfig) (*ffi.Image, error) {
		return ffi.ImportImage(path, c.name, c.platform)
	})
}

func loadImage(
	ctx context.Context, from string, opts []ImageOption, begin func(*imageConfig) (*ffi.Image, error),
) (*ImageInfo, error) {
	c := applied(&imageConfig{}, opts)
	if c.err != nil {
		return nil, c.err
	}
	if err := validImage(from); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	image, err := begin(c)
	if err != nil {
		return nil, wrap(err)
	}
	// Closing cancels the work, also when the caller's progress function panics.
	defer image.Close()
	raw, err := image.Wait(ctx, c.progress)
	if err != nil {
		return nil, wrap(err)
	}
	return newImageInfo(raw), nil
}

// ListImages returns all images in the store, newest first. All programs of this user share the
// store.
func ListImages(ctx context.Context) ([]ImageInfo, error) {
	raw, err := runBlocking(ctx, ffi.ListImages, nil)
	all := make([]ImageInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, *newImageInfo(entry))
	}
	return all, err
}

// RemoveImage removes a name of an image, and the image with its last name. Given an id, it removes
// all names. An image that a sandbox uses is an error of kind ErrImageInUse; WithForce removes its
// names, and PruneImages removes the image once that sandbox is removed.
func RemoveImage(ctx context.Context, name string, opts ...RemoveOption) error {
	if err := validImage(name); err != nil {
		return err
	}
	var config removeConfig
	for _, option := range opts {
		option(&config)
	}
	return do(ctx, func() error { return ffi.RemoveImage(name, config.force) })
}

// PruneOption configures PruneImages.
type PruneOption func(*pruneConfig)

type pruneConfig struct{ all bool }

// WithNamed also removes images that have a name.
func WithNamed() PruneOption { return func(c *pruneConfig) { c.all = true } }

// PruneImages removes images without a name that no sandbox uses, and leftovers of downloads. It
// waits for pulls and imports in progress, and returns roughly how many bytes it freed.
func PruneImages(ctx context.Context, opts ...PruneOption) (uint64, error) {
	var config pruneConfig
	for _, option := range opts {
		option(&config)
	}
	return runBlocking(ctx, func() (uint64, error) { return ffi.PruneImages(config.all) }, nil)
}

// validImage rejects what a C string cannot hold; the library validates the rest.
func validImage(name string) error {
	if strings.IndexByte(name, 0) >= 0 {
		return badConfig("the name of an image contains NUL")
	}
	return nil
}
