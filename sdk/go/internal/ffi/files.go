package ffi

// #include "abi.h"
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// The operations on files, numbered as in the header.
const (
	FsStat      = C.MSB_FS_OP_STAT
	FsSetStat   = C.MSB_FS_OP_SET_STAT
	FsExists    = C.MSB_FS_OP_EXISTS
	FsList      = C.MSB_FS_OP_LIST
	FsMkdir     = C.MSB_FS_OP_MKDIR
	FsRemove    = C.MSB_FS_OP_REMOVE
	FsRemoveDir = C.MSB_FS_OP_REMOVE_DIR
	FsRename    = C.MSB_FS_OP_RENAME
	FsCopy      = C.MSB_FS_OP_COPY
	FsSymlink   = C.MSB_FS_OP_SYMLINK
	FsReadLink  = C.MSB_FS_OP_READ_LINK
	FsRealPath  = C.MSB_FS_OP_REAL_PATH
	FsRead      = C.MSB_FS_OP_READ
	FsWrite     = C.MSB_FS_OP_WRITE

	FsCopyFromHost = C.MSB_FS_OP_COPY_FROM_HOST
	FsCopyToHost   = C.MSB_FS_OP_COPY_TO_HOST
)

// Flags and set attributes of operations, and the types of files.
const (
	FsNoFollow    = C.MSB_FS_NO_FOLLOW
	FsRecursive   = C.MSB_FS_RECURSIVE
	FsParents     = C.MSB_FS_PARENTS
	FsNoReplace   = C.MSB_FS_NO_REPLACE
	FsAppend      = C.MSB_FS_APPEND
	FsSync        = C.MSB_FS_SYNC
	FsSetMode     = C.MSB_FS_SET_MODE
	FsSetUID      = C.MSB_FS_SET_UID
	FsSetGID      = C.MSB_FS_SET_GID
	FsSetSize     = C.MSB_FS_SET_SIZE
	FsSetAccessed = C.MSB_FS_SET_ACCESSED
	FsSetModified = C.MSB_FS_SET_MODIFIED

	FsKindFile      = C.MSB_FS_KIND_FILE
	FsKindDirectory = C.MSB_FS_KIND_DIRECTORY
	FsKindSymlink   = C.MSB_FS_KIND_SYMLINK
)

// FsRequest is an operation on files; see msb_fs_request.
type FsRequest struct {
	Op, Flags, Set       uint32
	Path, To, User       string
	Offset, Length, Size uint64
	AccessedS, ModifiedS int64
	AccessedN, ModifiedN uint32
	Mode, UID, GID       uint32
}

// FsEntry is the attributes of a file.
type FsEntry struct {
	Name                           string
	Kind, Mode, UID, GID           uint32
	Size, Allocated, Links         uint64
	Inode, Device                  uint64
	AccessedS, ModifiedS, ChangedS int64
	CreatedS                       int64
	AccessedN, ModifiedN, ChangedN uint32
	CreatedN                       uint32
}

// FsResult is the result of an operation. All its memory is Go's.
type FsResult struct {
	Exists  bool
	Path    string
	Entries []FsEntry
}

// FsError is a failure of an operation on a file.
type FsError struct {
	Call            *Error
	Operation, Path string
}

// Error returns the message.
func (e *FsError) Error() string { return e.Call.Message }

// Unwrap returns the failed call.
func (e *FsError) Unwrap() error { return e.Call }

// Fs is an operation on files.
type Fs struct {
	raw   *C.msb_fs
	ready *Ready
}

// StartFs starts an operation on the files of the sandbox.
func (s *Sandbox) StartFs(r FsRequest) (*Fs, error) {
	a := newArena(textSize(r.Path) + textSize(r.To) + textSize(r.User))
	defer a.free()
	request, err := C.go_fs_request(), C.go_error()
	request.op, request.flags, request.set = C.uint32_t(r.Op), C.uint32_t(r.Flags), C.uint32_t(r.Set)
	request.path, request.to, request.user = a.text(r.Path), a.text(r.To), a.optional(r.User)
	request.offset, request.length = C.uint64_t(r.Offset), C.uint64_t(r.Length)
	request.size, request.mode = C.uint64_t(r.Size), C.uint32_t(r.Mode)
	request.uid, request.gid = C.uint32_t(r.UID), C.uint32_t(r.GID)
	request.accessed_s, request.accessed_ns = C.int64_t(r.AccessedS), C.uint32_t(r.AccessedN)
	request.modified_s, request.modified_ns = C.int64_t(r.ModifiedS), C.uint32_t(r.ModifiedN)
	var raw *C.msb_fs
	status := C.msb_fs_start(s.raw, &request, &raw, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return nil, newError(&err)
	}
	f := &Fs{raw: raw, ready: newReady(func() (int, error) { return descriptor(unsafe.Pointer(raw)) })}
	runtime.SetFinalizer(f, func(f *Fs) { _ = f.Close() })
	return f, nil
}

// failure returns the error of a failed call, with the path if it failed on a file.
func (f *Fs) failure(err *C.msb_error) error {
	failed, details, none := newError(err), C.go_fs_failure(), C.go_error()
	if f.ready.Closed() || C.msb_fs_failed(f.raw, &details, &none) != C.MSB_OK {
		return failed
	}
	defer C.msb_fs_failure_release(&details)
	return &FsError{Call: failed, Operation: goText(details.operation), Path: goText(details.path)}
}

// until waits until a call returns something else than MSB_AGAIN.
func (f *Fs) until(ctx context.Context, err *C.msb_error, look func() C.msb_status) (C.msb_status, error) {
	status, failed := f.ready.until(ctx, look)
	if failed == nil && status < 0 {
		failed = f.failure(err)
	}
	return status, failed
}

// Wait waits for the result.
func (f *Fs) Wait(ctx context.Context) (*FsResult, error) {
	defer runtime.KeepAlive(f)
	raw, err := C.go_fs_result(), C.go_error()
	_, failed := f.until(ctx, &err, func() C.msb_status { return C.msb_fs_wait(f.raw, 0, &raw, &err) })
	if failed != nil {
		return nil, failed
	}
	defer C.msb_fs_result_release(&raw)
	result := &FsResult{Exists: raw.exists != 0, Path: goText(raw.path)}
	for _, entry := range unsafe.Slice(raw.entries, int(raw.len)) {
		result.Entries = append(result.Entries, FsEntry{
			Name: goText(entry.name), Kind: uint32(entry.kind), Mode: uint32(entry.mode),
			UID: uint32(entry.uid), GID: uint32(entry.gid), Size: uint64(entry.size),
			Allocated: uint64(entry.allocated), Links: uint64(entry.links),
			Inode: uint64(entry.inode), Device: uint64(entry.device),
			AccessedS: int64(entry.accessed_s), AccessedN: uint32(entry.accessed_ns),
			ModifiedS: int64(entry.modified_s), ModifiedN: uint32(entry.modified_ns),
			ChangedS: int64(entry.changed_s), ChangedN: uint32(entry.changed_ns),
			CreatedS: int64(entry.created_s), CreatedN: uint32(entry.created_ns),
		})
	}
	return result, nil
}

// Recv waits for content and returns its length; 0 at the end. The buffer is not empty.
func (f *Fs) Recv(ctx context.Context, buffer []byte) (int, error) {
	defer runtime.KeepAlive(f)
	err := C.go_error()
	var received C.size_t
	status, failed := f.until(ctx, &err, func() C.msb_status {
		first := (*C.uint8_t)(unsafe.Pointer(&buffer[0]))
		return C.msb_fs_recv(f.raw, 0, first, C.size_t(len(buffer)), &received, &err)
	})
	if failed != nil || status == C.MSB_EOF {
		return 0, failed
	}
	return int(received), nil
}

// Opened waits until a read has content, its end or a failure, and returns the failure.
func (f *Fs) Opened(ctx context.Context) error {
	defer runtime.KeepAlive(f)
	for looked := false; ; looked = true {
		raw, err := C.go_fs_result(), C.go_error()
		status := C.msb_fs_wait(f.raw, 0, &raw, &err)
		C.msb_fs_result_release(&raw)
		if status < 0 {
			return f.failure(&err)
		}
		if status == C.MSB_OK || looked {
			return nil
		}
		if err := f.ready.Wait(ctx); err != nil {
			return err
		}
	}
}

// Send sends all of the data. On failure or cancellation it returns how much was sent.
func (f *Fs) Send(ctx context.Context, data []byte) (sent int, _ error) {
	defer runtime.KeepAlive(f)
	err := C.go_error()
	for sent < len(data) {
		var taken C.size_t
		rest := data[sent:]
		_, failed := f.until(ctx, &err, func() C.msb_status {
			first := (*C.uint8_t)(unsafe.Pointer(&rest[0]))
			return C.msb_fs_send(f.raw, first, C.size_t(len(rest)), 0, &taken, &err)
		})
		if failed != nil {
			return sent, failed
		}
		sent += int(taken)
	}
	return sent, nil
}

// Finish ends the content; Wait waits until the file is complete.
func (f *Fs) Finish() error {
	defer runtime.KeepAlive(f)
	if f.ready.Closed() {
		return errClosed
	}
	err := C.go_error()
	if C.msb_fs_finish(f.raw, &err) < 0 {
		return f.failure(&err)
	}
	return nil
}

// Close closes the handle, which cancels the operation.
func (f *Fs) Close() error {
	return closeHandle(f, f.ready, unsafe.Pointer(f.raw))
}
