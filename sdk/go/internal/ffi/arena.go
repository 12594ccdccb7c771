package ffi

// #include "abi.h"
import "C"

import "unsafe"

// arena is one block of C memory that is lent for the duration of a call and holds all its
// arguments. C must not be passed structs that contain pointers to Go memory.
type arena struct {
	base unsafe.Pointer
	rest []byte
}

const word = int(unsafe.Sizeof(uintptr(0)))

// textSize returns the space needed by a text, and textsSize that of a list of texts.
func textSize(text string) int { return len(text) + 1 + word }

func textsSize(texts []string) (size int) {
	for _, text := range texts {
		size += textSize(text) + word
	}
	return size + word
}

func newArena(size int) *arena {
	size += word                     // for alignment at the end
	base := C.malloc(C.size_t(size)) // cgo's malloc never returns NULL
	return &arena{base, unsafe.Slice((*byte)(base), size)}
}

func (a *arena) free() { C.free(a.base) }

// take returns the next bytes, aligned for a pointer.
func (a *arena) take(size int) unsafe.Pointer {
	at := unsafe.Pointer(&a.rest[0])
	a.rest = a.rest[(size+word-1)/word*word:]
	return at
}

func (a *arena) bytes(data []byte) *C.uint8_t {
	at := a.take(len(data) + 1)
	copy(unsafe.Slice((*byte)(at), len(data)), data)
	return (*C.uint8_t)(at)
}

func (a *arena) text(text string) *C.char {
	at := a.take(len(text) + 1)
	to := unsafe.Slice((*byte)(at), len(text)+1)
	copy(to, text)
	to[len(text)] = 0
	return (*C.char)(at)
}

// optional returns NULL for an empty text.
func (a *arena) optional(text string) *C.char {
	if text == "" {
		return nil
	}
	return a.text(text)
}

func (a *arena) texts(texts []string) (**C.char, C.size_t) {
	if len(texts) == 0 {
		return nil, 0
	}
	at := (**C.char)(a.take(len(texts) * word))
	list := unsafe.Slice(at, len(texts))
	for i, text := range texts {
		list[i] = a.text(text)
	}
	return at, C.size_t(len(texts))
}

// optionalBytes gives NULL for nil.
func (a *arena) optionalBytes(data []byte) (*C.uint8_t, C.size_t) {
	if data == nil {
		return nil, 0
	}
	return a.bytes(data), C.size_t(len(data))
}

func bytesSize(data []byte) int { return len(data) + 1 + word }

// Mount is msb_mount in Go. Nothing in it holds a NUL.
type Mount struct {
	Kind, Flags    uint32
	Target, Source string
	Size           uint64
	UID, GID       uint32
}

func mountsSize(mounts []Mount) int {
	size := len(mounts)*int(C.sizeof_msb_mount) + word
	for _, mount := range mounts {
		size += textSize(mount.Target) + textSize(mount.Source)
	}
	return size
}

func (a *arena) mounts(mounts []Mount) (*C.msb_mount, C.size_t) {
	if len(mounts) == 0 {
		return nil, 0
	}
	at := (*C.msb_mount)(a.take(len(mounts) * int(C.sizeof_msb_mount)))
	for i, mount := range mounts {
		unsafe.Slice(at, len(mounts))[i] = C.msb_mount{
			struct_size: C.uint32_t(C.sizeof_msb_mount),
			kind:        C.uint32_t(mount.Kind),
			flags:       C.uint32_t(mount.Flags),
			target:      a.text(mount.Target),
			source:      a.optional(mount.Source),
			size:        C.uint64_t(mount.Size),
			uid:         C.uint32_t(mount.UID),
			gid:         C.uint32_t(mount.GID),
		}
	}
	return at, C.size_t(len(mounts))
}

func rlimitsSize(limits []Rlimit) int { return len(limits)*int(C.sizeof_msb_rlimit) + word }

func (a *arena) rlimits(limits []Rlimit) (*C.msb_rlimit, C.size_t) {
	if len(limits) == 0 {
		return nil, 0
	}
	at := (*C.msb_rlimit)(a.take(len(limits) * int(C.sizeof_msb_rlimit)))
	for i, limit := range limits {
		unsafe.Slice(at, len(limits))[i] = C.msb_rlimit{
			resource: C.uint32_t(limit.Resource),
			soft:     C.uint64_t(limit.Soft),
			hard:     C.uint64_t(limit.Hard),
		}
	}
	return at, C.size_t(len(limits))
}
