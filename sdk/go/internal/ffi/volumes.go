package ffi

// #include "abi.h"
import "C"

import "unsafe"

// Kinds and flags of mounts, and kinds of volumes, numbered as in the header.
const (
	MountBind         = C.MSB_MOUNT_BIND
	MountVolume       = C.MSB_MOUNT_VOLUME
	MountTmpfs        = C.MSB_MOUNT_TMPFS
	MountDisk         = C.MSB_MOUNT_DISK
	MountReadonly     = C.MSB_MOUNT_READONLY
	MountNoexec       = C.MSB_MOUNT_NOEXEC
	MountOwner        = C.MSB_MOUNT_OWNER
	MountCreate       = C.MSB_MOUNT_CREATE
	MountEnsureExists = C.MSB_MOUNT_ENSURE_EXISTS
	VolumeDirectory   = C.MSB_VOLUME_DIRECTORY
	VolumeDisk        = C.MSB_VOLUME_DISK
)

// VolumeOptions is msb_volume_options in Go. Nothing in it holds a NUL.
type VolumeOptions struct {
	Kind              uint32
	Name              string
	QuotaMiB, SizeMiB uint64
	Labels            []string
}

// VolumeEntry describes a volume.
type VolumeEntry struct {
	Kind                 uint32
	Used, Size, QuotaMiB uint64
	CreatedMs            int64
	Name, Path           string
	Labels, UsedBy       []string
}

// CreateVolume creates a volume; blocks.
func CreateVolume(o *VolumeOptions) error {
	a := newArena(textSize(o.Name) + textsSize(o.Labels))
	defer a.free()
	raw, err := C.go_volume_options(), C.go_error()
	raw.kind, raw.name = C.uint32_t(o.Kind), a.text(o.Name)
	raw.quota_mib, raw.size_mib = C.uint64_t(o.QuotaMiB), C.uint64_t(o.SizeMiB)
	raw.labels, raw.labels_len = a.texts(o.Labels)
	return check(C.msb_volume_create(&raw, &err), &err)
}

// GetVolume finds a volume; blocks.
func GetVolume(name string) (VolumeEntry, error) {
	a := newArena(textSize(name))
	defer a.free()
	list, err := C.go_volume_entries(), C.go_error()
	if status := C.msb_volume_get(a.text(name), &list, &err); status < 0 {
		return VolumeEntry{}, newError(&err)
	}
	defer C.msb_volume_entries_release(&list)
	return single(volumeEntries(&list))
}

// ListVolumes returns all volumes; blocks.
func ListVolumes() ([]VolumeEntry, error) {
	list, err := C.go_volume_entries(), C.go_error()
	if status := C.msb_volume_list(&list, &err); status < 0 {
		return nil, newError(&err)
	}
	defer C.msb_volume_entries_release(&list)
	return volumeEntries(&list), nil
}

// RemoveVolume removes a volume; blocks.
func RemoveVolume(name string) error {
	a := newArena(textSize(name))
	defer a.free()
	err := C.go_error()
	return check(C.msb_volume_remove(a.text(name), &err), &err)
}

func volumeEntries(list *C.msb_volume_entries) (all []VolumeEntry) {
	for _, entry := range unsafe.Slice(list.entries, int(list.len)) {
		all = append(all, VolumeEntry{
			Kind: uint32(entry.kind), Used: uint64(entry.used), Size: uint64(entry.size),
			QuotaMiB: uint64(entry.quota_mib), CreatedMs: int64(entry.created_ms),
			Name: goText(entry.name), Path: goText(entry.path),
			Labels: goTexts(entry.labels, entry.labels_len),
			UsedBy: goTexts(entry.used_by, entry.used_by_len),
		})
	}
	return all
}
