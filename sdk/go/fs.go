package microsandbox

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// FsEntryKind is the type of a file.
type FsEntryKind string

// The types of files.
const (
	FsEntryFile      FsEntryKind = "file"
	FsEntryDirectory FsEntryKind = "directory"
	FsEntrySymlink   FsEntryKind = "symlink"
	FsEntryOther     FsEntryKind = "other"
)

// FsStat is the attributes of a file.
type FsStat struct {
	// Kind is its type.
	Kind FsEntryKind
	// Size is its length in bytes; of a link, of its target.
	Size int64
	// Mode is its permissions with set-user-id, set-group-id and sticky bit.
	Mode uint32
	// UID and GID are its owner and group.
	UID, GID uint32
	// Accessed, Modified and Changed are the times of the last access, of the last change of the
	// content, and of the attributes.
	Accessed, Modified, Changed time.Time
	// Created is the time of creation; zero where the file system does not record it.
	Created time.Time
	// Links is the number of hard links; Inode and Device identify the file.
	Links, Inode, Device uint64
	// Allocated is how many bytes it takes on the disk.
	Allocated uint64
}

// FsEntry is an entry of a directory. A link is not followed.
type FsEntry struct {
	// Path is its path, Name its name in the directory: any bytes.
	Path, Name string
	FsStat
}

// FsSetAttrs is new attributes of a file; those that are nil stay.
type FsSetAttrs struct {
	Mode, UID, GID     *uint32
	Size               *int64
	Accessed, Modified *time.Time
	// NoFollow changes a symbolic link itself.
	NoFollow bool
}

// FsWriteOption configures Write, WriteString and WriteStream.
type FsWriteOption func(*ffi.FsRequest)

// WithFsMode sets the mode of the file, instead of that of the old file, or 0644.
func WithFsMode(mode uint32) FsWriteOption {
	return func(r *ffi.FsRequest) { r.Set, r.Mode = r.Set|ffi.FsSetMode, mode }
}

// WithFsParents makes missing parent directories.
func WithFsParents() FsWriteOption { return func(r *ffi.FsRequest) { r.Flags |= ffi.FsParents } }

// WithFsAppend appends to the content, in place.
func WithFsAppend() FsWriteOption { return func(r *ffi.FsRequest) { r.Flags |= ffi.FsAppend } }

// WithFsCreateNew fails if the file exists.
func WithFsCreateNew() FsWriteOption { return func(r *ffi.FsRequest) { r.Flags |= ffi.FsNoReplace } }

// WithFsSync writes the file to the disk before the call returns.
func WithFsSync() FsWriteOption { return func(r *ffi.FsRequest) { r.Flags |= ffi.FsSync } }

// SandboxFSOps is the operations on the files of a sandbox, which need no program in it.
//
// Paths are absolute, and any bytes but NUL. A symbolic link at the end of a path is followed,
// unless a method says otherwise. A failure on a file is an *Error with its Path and Errno, so that
// errors.Is finds os.ErrNotExist and its like. When ctx is done the operation is cancelled; a file
// that is being written keeps its old content.
type SandboxFSOps struct {
	raw  *ffi.Sandbox
	user string
}

// FS returns the operations on the files of the sandbox.
func (s *Sandbox) FS() *SandboxFSOps { return &SandboxFSOps{raw: s.raw} }

// AsUser returns these operations as another user: "name", "uid", "name:group" or "uid:gid".
func (f *SandboxFSOps) AsUser(user string) *SandboxFSOps {
	return &SandboxFSOps{raw: f.raw, user: user}
}

// wrapFs converts an error of an operation on files.
func wrapFs(err error) error {
	var failed *ffi.FsError
	if !errors.As(err, &failed) {
		return wrap(err)
	}
	raw := failed.Call
	return &Error{Kind: kindOf(raw.Status), Message: raw.Message, Errno: syscall.Errno(raw.Errno),
		Path: failed.Path}
}

func (f *SandboxFSOps) start(ctx context.Context, r ffi.FsRequest) (*ffi.Fs, error) {
	if err := noNUL(r.Path, r.To, f.user); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.User = f.user
	raw, err := f.raw.StartFs(r)
	return raw, wrap(err)
}

func (f *SandboxFSOps) result(ctx context.Context, r ffi.FsRequest) (*ffi.FsResult, error) {
	raw, err := f.start(ctx, r)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	result, err := raw.Wait(ctx)
	return result, wrapFs(err)
}

func (f *SandboxFSOps) do(ctx context.Context, r ffi.FsRequest) error {
	_, err := f.result(ctx, r)
	return err
}

// Read returns the content of a file.
func (f *SandboxFSOps) Read(ctx context.Context, path string) ([]byte, error) {
	stream, err := f.ReadStream(ctx, path)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	content := make([]byte, 0, 4096)
	for {
		if len(content) == cap(content) {
			content = append(content, 0)[:len(content)]
		}
		n, err := stream.raw.Recv(ctx, content[len(content):cap(content)])
		if err != nil {
			return nil, wrapFs(err)
		}
		if n == 0 {
			return content, nil
		}
		content = content[:len(content)+n]
	}
}

// ReadString returns the content of a file as a string.
func (f *SandboxFSOps) ReadString(ctx context.Context, path string) (string, error) {
	content, err := f.Read(ctx, path)
	return string(content), err
}

// Write writes a file: the data becomes the whole content, at once.
func (f *SandboxFSOps) Write(ctx context.Context, path string, data []byte, opts ...FsWriteOption) error {
	stream, err := f.WriteStream(ctx, path, opts...)
	if err != nil {
		return err
	}
	defer stream.Abort()
	if _, err := stream.WriteCtx(ctx, data); err != nil {
		return err
	}
	return stream.Close(ctx)
}

// WriteString is Write for a string.
func (f *SandboxFSOps) WriteString(ctx context.Context, path, data string, opts ...FsWriteOption) error {
	return f.Write(ctx, path, []byte(data), opts...)
}

// List returns the entries of a directory, sorted by name.
func (f *SandboxFSOps) List(ctx context.Context, path string) ([]FsEntry, error) {
	result, err := f.result(ctx, ffi.FsRequest{Op: ffi.FsList, Path: path})
	if err != nil {
		return nil, err
	}
	if path[len(path)-1] != '/' {
		path += "/"
	}
	all := make([]FsEntry, 0, len(result.Entries))
	for _, entry := range result.Entries {
		all = append(all, FsEntry{Path: path + entry.Name, Name: entry.Name, FsStat: newFsStat(entry)})
	}
	return all, nil
}

// Stat returns the attributes of a file.
func (f *SandboxFSOps) Stat(ctx context.Context, path string) (*FsStat, error) {
	return f.stat(ctx, ffi.FsRequest{Op: ffi.FsStat, Path: path})
}

// Lstat returns the attributes of a file, or of a symbolic link itself.
func (f *SandboxFSOps) Lstat(ctx context.Context, path string) (*FsStat, error) {
	return f.stat(ctx, ffi.FsRequest{Op: ffi.FsStat, Path: path, Flags: ffi.FsNoFollow})
}

func (f *SandboxFSOps) stat(ctx context.Context, r ffi.FsRequest) (*FsStat, error) {
	result, err := f.result(ctx, r)
	if err != nil {
		return nil, err
	}
	stat := newFsStat(result.Entries[0])
	return &stat, nil
}

func newFsStat(raw ffi.FsEntry) FsStat {
	stat := FsStat{
		Kind: FsEntryOther, Size: int64(raw.Size), Mode: raw.Mode, UID: raw.UID, GID: raw.GID,
		Accessed: time.Unix(raw.AccessedS, int64(raw.AccessedN)),
		Modified: time.Unix(raw.ModifiedS, int64(raw.ModifiedN)),
		Changed:  time.Unix(raw.ChangedS, int64(raw.ChangedN)),
		Links:    raw.Links, Inode: raw.Inode, Device: raw.Device, Allocated: raw.Allocated,
	}
	switch raw.Kind {
	case ffi.FsKindFile:
		stat.Kind = FsEntryFile
	case ffi.FsKindDirectory:
		stat.Kind = FsEntryDirectory
	case ffi.FsKindSymlink:
		stat.Kind = FsEntrySymlink
	}
	if raw.CreatedS != 0 || raw.CreatedN != 0 {
		stat.Created = time.Unix(raw.CreatedS, int64(raw.CreatedN))
	}
	return stat
}

// SetStat changes attributes of a file.
func (f *SandboxFSOps) SetStat(ctx context.Context, path string, attrs FsSetAttrs) error {
	r := ffi.FsRequest{Op: ffi.FsSetStat, Path: path}
	if attrs.NoFollow {
		r.Flags = ffi.FsNoFollow
	}
	for _, one := range []struct {
		from *uint32
		to   *uint32
		bit  uint32
	}{{attrs.Mode, &r.Mode, ffi.FsSetMode}, {attrs.UID, &r.UID, ffi.FsSetUID}, {attrs.GID, &r.GID, ffi.FsSetGID}} {
		if one.from != nil {
			*one.to, r.Set = *one.from, r.Set|one.bit
		}
	}
	if attrs.Size != nil {
		if *attrs.Size < 0 {
			return invalid("the size is negative")
		}
		r.Size, r.Set = uint64(*attrs.Size), r.Set|ffi.FsSetSize
	}
	if t := attrs.Accessed; t != nil {
		r.AccessedS, r.AccessedN, r.Set = t.Unix(), uint32(t.Nanosecond()), r.Set|ffi.FsSetAccessed
	}
	if t := attrs.Modified; t != nil {
		r.ModifiedS, r.ModifiedN, r.Set = t.Unix(), uint32(t.Nanosecond()), r.Set|ffi.FsSetModified
	}
	return f.do(ctx, r)
}

// Mkdir makes a directory and its missing parents. An existing directory is no error.
func (f *SandboxFSOps) Mkdir(ctx context.Context, path string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsMkdir, Path: path, Flags: ffi.FsParents})
}

// Remove removes a file or link, which is not followed.
func (f *SandboxFSOps) Remove(ctx context.Context, path string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsRemove, Path: path})
}

// RemoveDir removes a directory and everything in it.
func (f *SandboxFSOps) RemoveDir(ctx context.Context, path string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsRemoveDir, Path: path, Flags: ffi.FsRecursive})
}

// RemoveEmptyDir removes an empty directory.
func (f *SandboxFSOps) RemoveEmptyDir(ctx context.Context, path string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsRemoveDir, Path: path})
}

// Copy copies a file or tree inside the sandbox; to is the copy itself.
func (f *SandboxFSOps) Copy(ctx context.Context, from, to string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsCopy, Path: from, To: to})
}

// CopyFromHost copies a file or tree of the host into the sandbox; guest is the copy itself, in an
// existing directory.
func (f *SandboxFSOps) CopyFromHost(ctx context.Context, host, guest string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsCopyFromHost, Path: host, To: guest})
}

// CopyToHost copies a file or tree of the sandbox to the host; host is the copy itself, in an
// existing directory. Nothing that the sandbox says makes it write elsewhere.
func (f *SandboxFSOps) CopyToHost(ctx context.Context, guest, host string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsCopyToHost, Path: guest, To: host})
}

// Rename renames a file or directory; an existing file at the new path is replaced.
func (f *SandboxFSOps) Rename(ctx context.Context, from, to string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsRename, Path: from, To: to})
}

// Symlink makes a symbolic link; target is any text.
func (f *SandboxFSOps) Symlink(ctx context.Context, target, path string) error {
	return f.do(ctx, ffi.FsRequest{Op: ffi.FsSymlink, Path: path, To: target})
}

// ReadLink returns the target of a symbolic link.
func (f *SandboxFSOps) ReadLink(ctx context.Context, path string) (string, error) {
	return f.path(ctx, ffi.FsReadLink, path)
}

// RealPath returns the absolute path without links, "." and "..".
func (f *SandboxFSOps) RealPath(ctx context.Context, path string) (string, error) {
	return f.path(ctx, ffi.FsRealPath, path)
}

func (f *SandboxFSOps) path(ctx context.Context, op uint32, path string) (string, error) {
	result, err := f.result(ctx, ffi.FsRequest{Op: op, Path: path})
	if err != nil {
		return "", err
	}
	return result.Path, nil
}

// Exists reports whether a path exists. A dangling link does not.
func (f *SandboxFSOps) Exists(ctx context.Context, path string) (bool, error) {
	result, err := f.result(ctx, ffi.FsRequest{Op: ffi.FsExists, Path: path})
	return err == nil && result.Exists, err
}

// fsPiece is the size of the pieces of FsReadStream.Recv.
const fsPiece = 128 << 10

// FsReadStream is the content of a file, piece by piece. The caller closes it. It has one reader at
// a time.
type FsReadStream struct {
	raw     *ffi.Fs
	reading sync.Mutex
}

var (
	_ io.ReadCloser = (*FsReadStream)(nil)
	_ io.WriterTo   = (*FsReadStream)(nil)
	_ io.Writer     = (*FsWriteStream)(nil)
)

// ReadStream opens a file to read it piece by piece.
func (f *SandboxFSOps) ReadStream(ctx context.Context, path string) (*FsReadStream, error) {
	raw, err := f.start(ctx, ffi.FsRequest{Op: ffi.FsRead, Path: path})
	if err != nil {
		return nil, err
	}
	if err := raw.Opened(ctx); err != nil {
		_ = raw.Close()
		return nil, wrapFs(err)
	}
	return &FsReadStream{raw: raw}, nil
}

func (s *FsReadStream) read(ctx context.Context, buffer []byte) (int, error) {
	if len(buffer) == 0 {
		return 0, nil
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	n, err := s.raw.Recv(ctx, buffer)
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, wrapFs(err)
}

// Recv waits for the next piece; at the end it returns io.EOF. Cancelling loses nothing.
func (s *FsReadStream) Recv(ctx context.Context) ([]byte, error) {
	buffer := make([]byte, fsPiece)
	n, err := s.read(ctx, buffer)
	if err != nil {
		return nil, err
	}
	return buffer[:n:n], nil
}

// Read reads as an io.Reader does.
func (s *FsReadStream) Read(buffer []byte) (int, error) {
	return s.read(context.Background(), buffer)
}

// WriteTo writes everything that was not read to w.
func (s *FsReadStream) WriteTo(w io.Writer) (int64, error) {
	return s.CopyTo(context.Background(), w)
}

// CopyTo is WriteTo with a context.
func (s *FsReadStream) CopyTo(ctx context.Context, w io.Writer) (written int64, _ error) {
	buffer := make([]byte, fsPiece)
	for {
		n, err := s.read(ctx, buffer)
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		m, err := w.Write(buffer[:n])
		written += int64(m)
		if err == nil && m < n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return written, err
		}
	}
}

// Close cancels the rest. Closing again is a no-op.
func (s *FsReadStream) Close() error { return wrap(s.raw.Close()) }

// FsWriteStream writes a file, piece by piece. The file has its new content once Close has
// succeeded. It has one writer at a time.
type FsWriteStream struct {
	raw     *ffi.Fs
	writing sync.Mutex
}

// WriteStream writes a file piece by piece. The caller calls Close, or Abort, which is a no-op after
// Close.
func (f *SandboxFSOps) WriteStream(ctx context.Context, path string, opts ...FsWriteOption) (*FsWriteStream, error) {
	r := ffi.FsRequest{Op: ffi.FsWrite, Path: path}
	for _, option := range opts {
		option(&r)
	}
	raw, err := f.start(ctx, r)
	if err != nil {
		return nil, err
	}
	return &FsWriteStream{raw: raw}, nil
}

// Write writes as an io.Writer does.
func (s *FsWriteStream) Write(data []byte) (int, error) {
	return s.WriteCtx(context.Background(), data)
}

// WriteCtx writes all of the data and waits while the sandbox is behind. On failure it returns how
// much was written.
func (s *FsWriteStream) WriteCtx(ctx context.Context, data []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	n, err := s.raw.Send(ctx, data)
	return n, wrapFs(err)
}

// Close completes the file: the sandbox has closed it without error. If it fails, the old content
// stays; if ctx is done while it waits, the file has the old or the new content.
func (s *FsWriteStream) Close(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	defer s.Abort()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.raw.Finish(); err != nil {
		return wrapFs(err)
	}
	_, err := s.raw.Wait(ctx)
	return wrapFs(err)
}

// Abort cancels the write: the old content stays, or no file. It is a no-op after Close.
func (s *FsWriteStream) Abort() { _ = s.raw.Close() }
