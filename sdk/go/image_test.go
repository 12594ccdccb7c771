package microsandbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// archives returns a folder with rootfs.tar and made.tar, and empties the store afterwards.
func archives(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	maker := filepath.Join("..", "..", "conformance", "make-image")
	if text, err := exec.Command(maker, rootfs, folder).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", maker, err, text)
	}
	t.Cleanup(func() {
		_, err := m.PruneImages(context.Background(), m.WithNamed())
		must(t, err)
		all, err := m.ListImages(context.Background())
		must(t, err)
		equal(t, "images left", len(all), 0)
	})
	return folder
}

// silent returns a registry that accepts connections and never responds; asked counts them.
func silent(t *testing.T) (name string, asked *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	asked = &atomic.Int64{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // closed
			}
			defer connection.Close()
			asked.Add(1)
		}
	}()
	t.Cleanup(func() {
		must(t, listener.Close())
		<-done
	})
	return fmt.Sprintf("localhost:%d/nothing", listener.Addr().(*net.TCPAddr).Port), asked
}

func TestImageImportListRemove(t *testing.T) {
	ctx, archive := soon(t), filepath.Join(archives(t), "made.tar")
	var last m.Progress
	image, err := m.ImportImage(ctx, archive, m.WithImageProgress(func(p m.Progress) { last = p }))
	must(t, err)
	equal(t, "names", strings.Join(image.Names, " "), "made:1")
	equal(t, "id", len(image.ID), len("sha256:")+64)
	equal(t, "layers", image.Layers, 1)
	equal(t, "directory and user", image.Workdir+" "+image.User, "/work app")
	equal(t, "entrypoint", strings.Join(image.Entrypoint, " "), "echo entry")
	equal(t, "command", strings.Join(image.Cmd, " "), "point")
	equal(t, "variable", image.Env["COLOR"], "green")
	if _, err := os.Stat(filepath.Join(image.Rootfs, "bin/busybox")); err != nil || image.Size == 0 {
		t.Error(err, image.Size)
	}
	equal(t, "last phase", last.Phase, m.PhaseUnpacking)
	if last.Layers != 1 || last.LayersDone != 1 || last.Bytes == 0 || last.Bytes != last.BytesTotal {
		t.Error(last)
	}
	again, err := m.ImportImage(ctx, archive, m.WithImageName("other:2"))
	must(t, err)
	equal(t, "id", again.ID, image.ID)
	equal(t, "names", len(again.Names), 2)
	all, err := m.ListImages(ctx)
	must(t, err)
	equal(t, "images", len(all), 1)
	equal(t, "listed", all[0].ID, image.ID)
	must(t, m.RemoveImage(ctx, "other:2"))
	must(t, m.RemoveImage(ctx, image.ID))
	err = m.RemoveImage(ctx, "made:1")
	kind(t, err, m.ErrImageNotFound)
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestSandboxUsesImageDefaults(t *testing.T) {
	ctx, folder := soon(t), archives(t)
	image, err := m.ImportImage(ctx, filepath.Join(folder, "made.tar"))
	must(t, err)
	never := m.WithPullPolicy(m.PullNever)
	t.Run("while it is used", func(t *testing.T) {
		var last m.ImagePhase
		sb := box(t, m.WithImage("made:1"), never, m.WithEnv(map[string]string{"SHAPE": "flat"}),
			m.WithProgress(func(p m.Progress) { last = p.Phase }))
		equal(t, "last phase", last, m.PhaseStarting)
		out, err := sb.Shell(ctx, "echo $COLOR $SHAPE $PWD $(id -un)")
		must(t, err)
		equal(t, "output", out.Stdout(), "green flat /work app\n")
		info, err := sb.Info(ctx)
		must(t, err)
		equal(t, "image", info.Image, "made:1")
		equal(t, "command", strings.Join(info.Command, " "), "echo entry point")
		kind(t, m.RemoveImage(ctx, "made:1"), m.ErrImageInUse)
		_, err = m.PruneImages(ctx, m.WithNamed())
		must(t, err)
		all, err := m.ListImages(ctx)
		must(t, err)
		equal(t, "images", len(all), 1)
		equal(t, "used by", strings.Join(all[0].UsedBy, " "), sb.Name())
	})
	t.Run("with another entrypoint", func(t *testing.T) {
		for want, words := range map[string][]string{"cat -n": {"cat", "-n"}, "": {}} {
			info, err := box(t, m.WithImage("made:1"), never, m.WithEntrypoint(words...)).Info(ctx)
			must(t, err)
			equal(t, "command", strings.Join(info.Command, " "), want)
		}
	})
	t.Run("by its id", func(t *testing.T) {
		out, err := box(t, m.WithImage(image.ID[7:19]), never, m.WithUser("root")).Exec(ctx, "id", []string{"-un"})
		must(t, err)
		equal(t, "output", out.Stdout(), "root\n")
	})
	freed, err := m.PruneImages(ctx, m.WithNamed())
	must(t, err)
	if freed == 0 {
		t.Error("PruneImages freed nothing")
	}
}

func TestArchiveCreationReportsProgress(t *testing.T) {
	path := filepath.Join(archives(t), "rootfs.tar")
	t.Run("archive", func(t *testing.T) {
		var seen []m.ImagePhase
		sb := box(t, m.WithImage(path), m.WithProgress(func(p m.Progress) { seen = append(seen, p.Phase) }))
		if len(seen) == 0 || seen[len(seen)-1] != m.PhaseStarting {
			t.Error(seen)
		}
		out, err := sb.Exec(soon(t), "echo", []string{"here"})
		must(t, err)
		equal(t, "output", out.Stdout(), "here\n")
	})
	t.Run("directory", func(t *testing.T) {
		box(t, m.WithProgress(func(p m.Progress) { t.Error(p) }))
	})
}

func TestProgressPanicLeaksNoHandle(t *testing.T) {
	ctx, archive := soon(t), filepath.Join(archives(t), "made.tar")
	enough := func(m.Progress) { panic("enough") }
	panics := func(call func()) {
		t.Helper()
		defer func() {
			t.Helper()
			text, _ := recover().(string)
			equal(t, "panic value", text, "enough")
		}()
		call()
	}
	imported := func() {
		_, err := m.PruneImages(ctx, m.WithNamed()) // an image in the store has no progress
		must(t, err)
		panics(func() { _, _ = m.ImportImage(ctx, archive, m.WithImageProgress(enough)) })
	}
	imported()
	before := descriptors(t)
	imported()
	_, err := m.ImportImage(ctx, archive)
	must(t, err)
	name := fmt.Sprintf("go-panic-%d", os.Getpid())
	panics(func() { _, _ = m.CreateSandbox(ctx, name, m.WithImage("made:1"), m.WithProgress(enough)) })
	// Its image is in the store, so the sandbox boots; its name may not exist yet.
	until(t, "the sandbox is removed", func() bool { return m.RemoveSandbox(ctx, name, m.WithForce()) == nil })
	until(t, "all descriptors are closed", func() bool { return descriptors(t) <= before+2 })
}

func TestMissingAndInvalidImages(t *testing.T) {
	ctx, folder := soon(t), archives(t)
	_, err := m.CreateSandbox(ctx, "go-none", m.WithImage("no-such-image:9"), m.WithPullPolicy(m.PullNever))
	kind(t, err, m.ErrImageNotFound)
	_, err = m.CreateSandbox(ctx, "go-none", m.WithImage("x"), m.WithPullPolicy("sometimes"))
	kind(t, err, m.ErrInvalidConfig)
	_, err = m.PullImage(ctx, "UPPER case")
	kind(t, err, m.ErrInvalidConfig)
	_, err = m.PullImage(ctx, "x\x00y")
	kind(t, err, m.ErrInvalidConfig)
	_, err = m.PullImage(ctx, "x", m.WithImageName("y"))
	kind(t, err, m.ErrInvalidArgument)
	_, err = m.ImportImage(ctx, filepath.Join(folder, "nothing.tar"))
	kind(t, err, m.ErrInvalidConfig)
	broken := filepath.Join(folder, "broken.tar")
	must(t, os.WriteFile(broken, []byte(strings.Repeat("no archive ", 1000)), 0o600))
	_, err = m.ImportImage(ctx, broken, m.WithImageName("broken:1"))
	kind(t, err, m.ErrImageInvalid)
	_, err = m.PullImage(ctx, "x", m.WithImagePlatform("vax"))
	kind(t, err, m.ErrInvalidConfig)
	made, vax := filepath.Join(folder, "made.tar"), m.WithImagePlatform("linux/vax")
	_, err = m.ImportImage(ctx, made, vax, m.WithImageName("vax:1"))
	kind(t, err, m.ErrImageInvalid)
	_, err = m.CreateSandbox(ctx, "go-none", m.WithImage(made), m.WithPlatform("linux/vax"))
	kind(t, err, m.ErrImageInvalid)
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, unused.Close())
	_, err = m.PullImage(ctx, unused.Addr().String()+"/x")
	kind(t, err, m.ErrRegistryUnreachable)
	full := &m.Error{Kind: m.ErrNoSpace}
	if !errors.Is(full, syscall.ENOSPC) {
		t.Error(full)
	}
}

func TestCancelledPullLeaksNothing(t *testing.T) {
	name, asked := silent(t)
	var opts []m.ImageOption
	pulled := func() {
		t.Helper()
		ctx, cancel := context.WithCancel(soon(t))
		before, ended := asked.Load(), make(chan error)
		go func() {
			_, err := m.PullImage(ctx, name, opts...)
			ended <- err
		}()
		until(t, "the registry is asked", func() bool { return asked.Load() > before })
		cancel()
		same(t, "the end", <-ended, context.Canceled)
	}
	pulled() // opens what the library keeps open
	left := int64(descriptors(t)) - asked.Load()
	opts = append(opts, m.WithImageProgress(func(p m.Progress) {
		if p.Phase != m.PhaseResolving {
			t.Error(p)
		}
	}))
	for round := 0; round < 3; round++ {
		pulled()
	}
	until(t, "all descriptors are closed", func() bool {
		return int64(descriptors(t))-asked.Load() <= left
	})
}

func TestCancelledCreationCancelsPull(t *testing.T) {
	image, asked := silent(t)
	ctx, cancel := context.WithCancel(soon(t))
	name, ended := fmt.Sprintf("go-cancelled-%d", os.Getpid()), make(chan error)
	go func() {
		_, err := m.CreateSandbox(ctx, name, m.WithImage(image))
		ended <- err
	}()
	until(t, "the registry is asked", func() bool { return asked.Load() > 0 })
	cancel()
	same(t, "the end", <-ended, context.Canceled)
	// PruneImages waits for pulls in progress, so it would block if the pull were not cancelled.
	ctx, cancel = context.WithTimeout(soon(t), 15*time.Second)
	defer cancel()
	_, err := m.PruneImages(ctx)
	must(t, err)
	_, err = m.GetSandbox(soon(t), name)
	kind(t, err, m.ErrSandboxNotFound)
}
