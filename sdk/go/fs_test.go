package microsandbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestK1FilesAreWrittenReadListedAndRemoved(t *testing.T) {
	ctx, fs := soon(t), box(t).FS()
	names := []string{"a", "line\nbreak", "ü", "\xff\xfe"}
	must(t, fs.Mkdir(ctx, "/tmp/k1/deep"))
	must(t, fs.Mkdir(ctx, "/tmp/k1/deep"))
	for _, name := range names {
		must(t, fs.WriteString(ctx, "/tmp/k1/deep/"+name, name))
	}
	entries, err := fs.List(ctx, "/tmp/k1/deep")
	must(t, err)
	equal(t, "entries", len(entries), len(names))
	for i, entry := range entries {
		equal(t, "name", entry.Name, names[i])
		equal(t, "kind", entry.Kind, m.FsEntryFile)
		content, err := fs.ReadString(ctx, entry.Path)
		must(t, err)
		equal(t, "content", content, names[i])
	}
	err = fs.RemoveEmptyDir(ctx, "/tmp/k1")
	kind(t, err, m.ErrFilesystem)
	equal(t, "errno", errors.Is(err, syscall.ENOTEMPTY), true)
	must(t, fs.RemoveDir(ctx, "/tmp/k1"))
	exists, err := fs.Exists(ctx, "/tmp/k1")
	must(t, err)
	equal(t, "exists", exists, false)
}

func TestK1AttributesLinksCopiesAndRenames(t *testing.T) {
	ctx, fs := soon(t), box(t).FS()
	must(t, fs.Write(ctx, "/tmp/a", []byte("text"), m.WithFsMode(0o640)))
	uid, size, then := uint32(5), int64(2), time.Unix(-2, 5)
	must(t, fs.SetStat(ctx, "/tmp/a", m.FsSetAttrs{UID: &uid, Size: &size, Modified: &then}))
	must(t, fs.Symlink(ctx, "a", "/tmp/link"))
	stat, err := fs.Stat(ctx, "/tmp/link")
	must(t, err)
	equal(t, "mode", stat.Mode, 0o640)
	equal(t, "uid", stat.UID, 5)
	equal(t, "size", stat.Size, 2)
	equal(t, "time", stat.Modified.Equal(then), true)
	stat, err = fs.Lstat(ctx, "/tmp/link")
	must(t, err)
	equal(t, "kind", stat.Kind, m.FsEntrySymlink)
	target, err := fs.ReadLink(ctx, "/tmp/link")
	must(t, err)
	equal(t, "target", target, "a")
	path, err := fs.RealPath(ctx, "/tmp/./link")
	must(t, err)
	equal(t, "path", path, "/tmp/a")
	must(t, fs.Copy(ctx, "/tmp/a", "/tmp/b"))
	must(t, fs.Rename(ctx, "/tmp/b", "/tmp/c"))
	must(t, fs.WriteString(ctx, "/tmp/c", "!", m.WithFsAppend()))
	content, err := fs.ReadString(ctx, "/tmp/c")
	must(t, err)
	equal(t, "content", content, "te!")
	kind(t, fs.WriteString(ctx, "/tmp/c", "new", m.WithFsCreateNew()), m.ErrFilesystem)
	must(t, fs.Remove(ctx, "/tmp/c"))
}

func TestK1ErrorsAreThoseOfPackageOs(t *testing.T) {
	ctx, fs := soon(t), box(t).FS()
	_, err := fs.Read(ctx, "/tmp/none")
	kind(t, err, m.ErrPathNotFound)
	var failed *m.Error
	equal(t, "type", errors.As(err, &failed), true)
	equal(t, "path", failed.Path, "/tmp/none")
	equal(t, "errno", failed.Errno, syscall.ENOENT)
	equal(t, "os.ErrNotExist", errors.Is(err, os.ErrNotExist), true)
	must(t, fs.WriteString(ctx, "/tmp/secret/file", "", m.WithFsParents()))
	mode := uint32(0o700)
	must(t, fs.SetStat(ctx, "/tmp/secret", m.FsSetAttrs{Mode: &mode}))
	_, err = fs.AsUser("1000").Read(ctx, "/tmp/secret/file")
	kind(t, err, m.ErrPermissionDenied)
	equal(t, "os.ErrPermission", errors.Is(err, os.ErrPermission), true)
	for _, path := range []string{"", "relative", "/a\x00b"} {
		_, err = fs.Read(ctx, path)
		kind(t, err, m.ErrInvalidArgument)
		_, err = fs.List(ctx, path)
		kind(t, err, m.ErrInvalidArgument)
	}
}

func TestK3StreamsCarryLargeFiles(t *testing.T) {
	ctx, fs := soon(t), box(t).FS()
	content := []byte(strings.Repeat("0123456789abcdef\n", 200_000))
	sink, err := fs.WriteStream(ctx, "/tmp/large")
	must(t, err)
	_, err = io.Copy(sink, bytes.NewReader(content))
	must(t, err)
	must(t, sink.Close(ctx))
	kind(t, sink.Close(ctx), m.ErrClosed)
	source, err := fs.ReadStream(ctx, "/tmp/large")
	must(t, err)
	first, err := source.Recv(ctx)
	must(t, err)
	rest, err := io.ReadAll(source)
	must(t, err)
	equal(t, "content", bytes.Equal(append(first, rest...), content), true)
	_, err = source.Recv(ctx)
	same(t, "end", err, io.EOF)
	must(t, source.Close())
	source, err = fs.ReadStream(ctx, "/tmp/large")
	must(t, err)
	var all bytes.Buffer
	n, err := source.WriteTo(&all)
	must(t, err)
	equal(t, "length", n, int64(len(content)))
	equal(t, "content", bytes.Equal(all.Bytes(), content), true)
	must(t, source.Close())
}

func TestK2CancelledWriteLeavesTheOldContent(t *testing.T) {
	ctx, fs := soon(t), box(t).FS()
	must(t, fs.WriteString(ctx, "/tmp/file", "old"))
	sink, err := fs.WriteStream(ctx, "/tmp/file")
	must(t, err)
	_, err = sink.Write([]byte("new"))
	must(t, err)
	sink.Abort()
	_, err = sink.Write([]byte("more"))
	kind(t, err, m.ErrClosed)
	sink, err = fs.WriteStream(ctx, "/tmp/file")
	must(t, err)
	_, err = sink.Write([]byte("new"))
	must(t, err)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	same(t, "close", sink.Close(cancelled), context.Canceled)
	_, err = fs.Read(cancelled, "/tmp/file")
	same(t, "read", err, context.Canceled)
	content, err := fs.ReadString(ctx, "/tmp/file")
	must(t, err)
	equal(t, "content", content, "old")
}

func TestK4FilesAreCopiedBetweenHostAndSandbox(t *testing.T) {
	ctx, fs, folder := soon(t), box(t).FS(), t.TempDir()
	must(t, os.WriteFile(folder+"/from", []byte("text"), 0o600))
	must(t, fs.CopyFromHost(ctx, folder+"/from", "/tmp/copied"))
	must(t, fs.CopyToHost(ctx, "/tmp/copied", folder+"/to"))
	content, err := os.ReadFile(folder + "/to")
	must(t, err)
	equal(t, "content", string(content), "text")
	kind(t, fs.CopyFromHost(ctx, folder+"/none", "/tmp/none"), m.ErrPathNotFound)
}
