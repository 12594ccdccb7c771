package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// PullPolicy is when a registry is asked for the image of a sandbox.
type PullPolicy string

// The policies.
const (
	// PullMissing: when the image is not in the store.
	PullMissing PullPolicy = "missing"
	// PullAlways: each time; what has not changed is not fetched again.
	PullAlways PullPolicy = "always"
	// PullNever: not at all; the image has to be in the store.
	PullNever PullPolicy = "never"
)

var policies = map[PullPolicy]uint32{
	PullMissing: ffi.PullMissing, PullAlways: ffi.PullAlways, PullNever: ffi.PullNever,
}

// WithPullPolicy sets when the registry is asked for the image, instead of PullMissing.
func WithPullPolicy(policy PullPolicy) SandboxOption {
	return func(c *sandboxConfig) {
		number, known := policies[policy]
		if c.options.PullPolicy = number; !known {
			c.refuse("there is no pull policy " + string(policy))
		}
	}
}

// ImagePhase is what is being done to get an image.
type ImagePhase string

// The phases, in their order; some may be left out.
const (
	// PhaseResolving: finding out what the name means.
	PhaseResolving ImagePhase = "resolving"
	// PhaseDownloading: getting the layers.
	PhaseDownloading ImagePhase = "downloading"
	// PhaseUnpacking: unpacking them.
	PhaseUnpacking ImagePhase = "unpacking"
	// PhaseStarting: the image is there, and the sandbox starts.
	PhaseStarting ImagePhase = "starting"
)

var phases = []ImagePhase{"", PhaseResolving, PhaseDownloading, PhaseUnpacking, PhaseStarting}

// Progress is how far getting an image is.
type Progress struct {
	// Phase is what is being done.
	Phase ImagePhase
	// LayersDone of Layers are finished in this phase; 0 Layers: how many there are is not known yet.
	LayersDone, Layers int
	// Bytes of BytesTotal are finished in this phase; 0 BytesTotal: not known yet.
	Bytes, BytesTotal uint64
}

// teller makes of what a user gave what package ffi calls.
func teller(told func(Progress)) func(ffi.Progress) {
	if told == nil {
		return nil
	}
	return func(raw ffi.Progress) {
		phase := named(phases, raw.Phase)
		if phase == "" {
			return // of a later version
		}
		told(Progress{Phase: phase, LayersDone: int(raw.LayersDone), Layers: int(raw.Layers),
			Bytes: raw.Bytes, BytesTotal: raw.BytesTotal})
	}
}

// WithProgress has told how far the image is. It is called by CreateSandbox itself, on the goroutine
// of the caller, at each layer and about ten times a second; a step that is over at once may be left
// out. An image that is a directory has no progress. A panic in it goes through CreateSandbox, and
// is as a context that is over.
func WithProgress(told func(Progress)) SandboxOption {
	return func(c *sandboxConfig) { c.told = teller(told) }
}

// ImageInfo is what is known about an image in the store.
type ImageInfo struct {
	// ID is "sha256:" and 64 digits.
	ID string
	// Names are its names, as short as they can be written; Digests those by which registries know it.
	Names, Digests []string
	// Architecture is the processor's that it is for, as in "amd64".
	Architecture string
	// Layers is how many layers it has.
	Layers int
	// Size is how many bytes its files have, DownloadSize how many its layers have as they came.
	Size, DownloadSize uint64
	// AddedAt is when it came into the store.
	AddedAt time.Time
	// Rootfs is its root filesystem, a directory that must not be written.
	Rootfs string
	// Env are its variables, Workdir and User its working directory and user, empty for none: what
	// sandboxes of it have unless they are given others.
	Env           map[string]string
	Workdir, User string
	// Entrypoint runs in front of a command of its own, Cmd.
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
	told func(ffi.Progress)
	name string
	err  error
}

// ImageOption changes what PullImage and ImportImage do.
type ImageOption func(*imageConfig)

// WithImageProgress is WithProgress for PullImage and ImportImage. A panic in it ends the work.
func WithImageProgress(told func(Progress)) ImageOption {
	return func(c *imageConfig) { c.told = teller(told) }
}

// WithImageName gives the image of ImportImage a name, instead of the one that it says itself.
func WithImageName(name string) ImageOption {
	return func(c *imageConfig) {
		if c.name = name; name == "" || strings.IndexByte(name, 0) >= 0 {
			c.err = badConfig("the name of an image is empty or has a NUL in it")
		}
	}
}

// PullImage gets an image from its registry, such as "python:3.12", also when it is in the store
// already; what has not changed is not fetched again. With ctx over it ends at once, and what was
// downloaded is kept for the next time.
//
// Errors of the kinds ErrImageNotFound, ErrImageUnauthorized and ErrRegistryUnreachable are to be
// expected.
func PullImage(ctx context.Context, name string, opts ...ImageOption) (*ImageInfo, error) {
	return gotImage(ctx, name, opts, func(c *imageConfig) (*ffi.Image, error) {
		if c.name != "" {
			return nil, invalid("the name of an image that is pulled is what it is pulled by")
		}
		return ffi.PullImage(name)
	})
}

// ImportImage takes an image from an archive of a root filesystem, from what docker save writes, or
// from OCI's layout; archives may be compressed with gzip or zstd. Otherwise it is as PullImage.
// That there is nothing at path is an error of kind ErrInvalidConfig.
func ImportImage(ctx context.Context, path string, opts ...ImageOption) (*ImageInfo, error) {
	return gotImage(ctx, path, opts, func(c *imageConfig) (*ffi.Image, error) {
		return ffi.ImportImage(path, c.name)
	})
}

func gotImage(
	ctx context.Context, from string, opts []ImageOption, begin func(*imageConfig) (*ffi.Image, error),
) (*ImageInfo, error) {
	c := &imageConfig{}
	for _, option := range opts {
		if option != nil {
			option(c)
		}
	}
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
	// Closing ends the work, whoever gives it up: also a panic in the caller's function.
	defer image.Close()
	raw, err := image.Wait(ctx, c.told)
	if err != nil {
		return nil, wrap(err)
	}
	return newImageInfo(raw), nil
}

// ListImages tells of all images in the store, the newest first. The store is the same for all
// programs of this user.
func ListImages(ctx context.Context) ([]ImageInfo, error) {
	raw, err := onThread(ctx, ffi.ListImages, nil)
	all := make([]ImageInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, *newImageInfo(entry))
	}
	return all, err
}

// RemoveImage takes a name from an image, and removes the image with its last name; called by its id
// it loses all its names. One that a sandbox uses is an error of kind ErrImageInUse; WithForce it
// loses its names, and goes with that sandbox and the next PruneImages.
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

// PruneOption changes what PruneImages does.
type PruneOption func(*pruneConfig)

type pruneConfig struct{ all bool }

// WithNamed removes also images that have a name.
func WithNamed() PruneOption { return func(c *pruneConfig) { c.all = true } }

// PruneImages removes images that have no name and that no sandbox uses, and what downloads have
// left. It waits for images that are being got, and tells about how many bytes are free again.
func PruneImages(ctx context.Context, opts ...PruneOption) (uint64, error) {
	var config pruneConfig
	for _, option := range opts {
		option(&config)
	}
	return onThread(ctx, func() (uint64, error) { return ffi.PruneImages(config.all) }, nil)
}

// validImage refuses what a C text cannot hold; the library refuses the rest.
func validImage(name string) error {
	if strings.IndexByte(name, 0) >= 0 {
		return badConfig("the name of an image has a NUL in it")
	}
	return nil
}
