package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Pull policies, numbered as in the header.
const (
	PullMissing = C.MSB_PULL_MISSING
	PullAlways  = C.MSB_PULL_ALWAYS
	PullNever   = C.MSB_PULL_NEVER
)

// Progress is the progress of a pull or import. Phase is the header's number.
type Progress struct {
	Phase, Layers, LayersDone uint32
	Bytes, BytesTotal         uint64
}

// ImageEntry describes an image.
type ImageEntry struct {
	Layers                               uint32
	Size, DownloadSize                   uint64
	AddedMs                              int64
	ID, Architecture, Rootfs             string
	Workdir, User                        string
	Names, Digests, Env, Entrypoint, Cmd []string
	UsedBy                               []string
}

// Image is an in-progress image pull or import.
type Image struct {
	raw   *C.msb_image
	ready *Ready
}

// untilReported is until that also reports progress, all of it before the result.
func (r *Ready) untilReported(ctx context.Context, look func() C.msb_status, report func()) (C.msb_status, error) {
	status, err := r.until(ctx, func() C.msb_status {
		report()
		return look()
	})
	if err == nil && status >= 0 {
		report() // the last phase, however short
	}
	return status, err
}

// reporter returns a function that reports all pending progress. Without a callback it reads none,
// so that progress never wakes the caller.
func reporter(look func(*C.msb_progress, *C.msb_error) C.msb_status, callback func(Progress)) func() {
	if callback == nil {
		return func() {}
	}
	return func() {
		raw, err := C.go_progress(), C.go_error()
		for look(&raw, &err) == C.MSB_OK {
			callback(Progress{Phase: uint32(raw.phase), Layers: uint32(raw.layers),
				LayersDone: uint32(raw.layers_done), Bytes: uint64(raw.bytes),
				BytesTotal: uint64(raw.bytes_total)})
		}
	}
}

// WaitReady waits until the sandbox is created, started or found, and reports the progress of its
// image. callback may be nil.
func (s *Sandbox) WaitReady(ctx context.Context, callback func(Progress)) error {
	defer runtime.KeepAlive(s)
	err := C.go_error()
	report := reporter(func(raw *C.msb_progress, err *C.msb_error) C.msb_status {
		return C.msb_sandbox_progress(s.raw, 0, raw, err)
	}, callback)
	status, failed := s.ready.untilReported(ctx, func() C.msb_status {
		return C.msb_sandbox_wait_ready(s.raw, 0, &err)
	}, report)
	if failed != nil {
		return failed
	}
	return check(status, &err)
}

func newImage(raw *C.msb_image) *Image {
	i := &Image{raw: raw, ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) })}
	runtime.SetFinalizer(i, func(i *Image) { _ = i.Close() })
	return i
}

// PullImage starts the pull of an image from its registry; an empty platform selects this host's.
func PullImage(name, platform string) (*Image, error) {
	if platform != "" {
		return loadImage("", name, platform)
	}
	a := newArena(textSize(name))
	defer a.free()
	err := C.go_error()
	var raw *C.msb_image
	if status := C.msb_image_pull(a.text(name), &raw, &err); status < 0 {
		return nil, newError(&err)
	}
	return newImage(raw), nil
}

// ImportImage starts the import of an image from a file or directory; an empty name selects the
// name in the archive, an empty platform this host's.
func ImportImage(path, name, platform string) (*Image, error) {
	if platform != "" {
		return loadImage(path, name, platform)
	}
	a := newArena(textSize(path) + textSize(name))
	defer a.free()
	err := C.go_error()
	var raw *C.msb_image
	if status := C.msb_image_import(a.text(path), a.optional(name), &raw, &err); status < 0 {
		return nil, newError(&err)
	}
	return newImage(raw), nil
}

// loadImage starts the import of an image, or without a path its pull, for a platform.
func loadImage(path, name, platform string) (*Image, error) {
	a := newArena(textSize(path) + textSize(name) + textSize(platform))
	defer a.free()
	err := C.go_error()
	var raw *C.msb_image
	status := C.msb_image_load_platform(
		a.optional(path), a.optional(name), a.text(platform), &raw, &err)
	if status < 0 {
		return nil, newError(&err)
	}
	return newImage(raw), nil
}

// Wait waits until the image is in the store. callback may be nil.
func (i *Image) Wait(ctx context.Context, callback func(Progress)) (ImageEntry, error) {
	defer runtime.KeepAlive(i)
	list, err := C.go_image_entries(), C.go_error()
	defer C.msb_image_entries_release(&list)
	report := reporter(func(raw *C.msb_progress, err *C.msb_error) C.msb_status {
		return C.msb_image_progress(i.raw, 0, raw, err)
	}, callback)
	status, failed := i.ready.untilReported(ctx, func() C.msb_status {
		return C.msb_image_wait(i.raw, 0, &list, &err)
	}, report)
	if failed != nil {
		return ImageEntry{}, failed
	}
	if status < 0 {
		return ImageEntry{}, newError(&err)
	}
	return single(imageEntries(&list))
}

// Close closes the handle, which cancels the pull or import.
func (i *Image) Close() error {
	return closeHandle(i, i.ready, unsafe.Pointer(i.raw))
}

func imageEntries(list *C.msb_image_entries) (all []ImageEntry) {
	for _, entry := range unsafe.Slice(list.entries, int(list.len)) {
		all = append(all, ImageEntry{
			Layers: uint32(entry.layers), Size: uint64(entry.size),
			DownloadSize: uint64(entry.download_size), AddedMs: int64(entry.added_ms),
			ID: goText(entry.id), Architecture: goText(entry.architecture),
			Rootfs: goText(entry.rootfs), Workdir: goText(entry.workdir), User: goText(entry.user),
			Names:      goTexts(entry.names, entry.names_len),
			Digests:    goTexts(entry.digests, entry.digests_len),
			Env:        goTexts(entry.env, entry.env_len),
			Entrypoint: goTexts(entry.entrypoint, entry.entrypoint_len),
			Cmd:        goTexts(entry.cmd, entry.cmd_len),
			UsedBy:     goTexts(entry.used_by, entry.used_by_len),
		})
	}
	return all
}

// ListImages returns all images.
func ListImages() ([]ImageEntry, error) {
	list, err := C.go_image_entries(), C.go_error()
	if status := C.msb_image_list(&list, &err); status < 0 {
		return nil, newError(&err)
	}
	defer C.msb_image_entries_release(&list)
	return imageEntries(&list), nil
}

// RemoveImage removes a name of an image.
func RemoveImage(name string, force bool) error {
	a := newArena(textSize(name))
	defer a.free()
	var flags C.uint32_t
	if force {
		flags = C.MSB_REMOVE_FORCE
	}
	err := C.go_error()
	return check(C.msb_image_remove(a.text(name), flags, &err), &err)
}

// PruneImages removes unused images, and returns roughly how many bytes it freed.
func PruneImages(all bool) (uint64, error) {
	var flags C.uint32_t
	if all {
		flags = C.MSB_PRUNE_ALL
	}
	var freed C.uint64_t
	err := C.go_error()
	status := C.msb_image_prune(flags, &freed, &err)
	return uint64(freed), check(status, &err)
}
