package microsandbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestL1MountsOfTheHost(t *testing.T) {
	ctx := soon(t)
	host := t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "f"), []byte("host\n"), 0o644))
	sb, err := m.CreateSandbox(ctx, "go-mounts", m.WithImage(rootfs), m.WithDriver("container"),
		m.WithMounts(map[string]m.MountConfig{
			"/data": m.Mount.Bind(host, m.MountOptions{}),
			"/ro":   m.Mount.Bind(host, m.MountOptions{Readonly: true}),
			"/t":    m.Mount.Tmpfs(m.TmpfsOptions{SizeMiB: 8}),
		}))
	must(t, err)
	t.Cleanup(func() { _ = m.RemoveSandbox(context.Background(), "go-mounts", m.WithForce()) })
	out, err := sb.Shell(ctx, "cat /data/f; echo guest > /data/g; touch /t/f; touch /ro/h || echo refused")
	must(t, err)
	equal(t, "output", out.Stdout(), "host\nrefused\n")
	written, err := os.ReadFile(filepath.Join(host, "g"))
	must(t, err)
	equal(t, "written", string(written), "guest\n")
}

func TestL2VolumesAreKeptWhileInUse(t *testing.T) {
	ctx := soon(t)
	made, err := m.CreateVolume(ctx, "go-volume", m.WithVolumeQuota(64),
		m.WithVolumeLabels(map[string]string{"team": "a"}))
	must(t, err)
	equal(t, "label", made.Labels["team"], "a")
	sb, err := m.CreateSandbox(ctx, "go-volume-box", m.WithImage(rootfs), m.WithDriver("container"),
		m.WithMounts(map[string]m.MountConfig{"/v": m.Mount.Named("go-volume", m.MountOptions{})}))
	must(t, err)
	_, err = sb.Shell(ctx, "echo kept > /v/f")
	must(t, err)
	var failed *m.Error
	if err := m.RemoveVolume(ctx, "go-volume"); !errors.As(err, &failed) || failed.Kind != m.ErrVolumeInUse {
		t.Error(err)
	}
	must(t, m.RemoveSandbox(ctx, "go-volume-box", m.WithForce()))
	kept, err := os.ReadFile(filepath.Join(made.Path, "f"))
	must(t, err)
	equal(t, "kept", string(kept), "kept\n")
	all, err := m.ListVolumes(ctx)
	must(t, err)
	equal(t, "volumes", len(all), 1)
	must(t, m.RemoveVolume(ctx, "go-volume"))
	if _, err := m.GetVolume(ctx, "go-volume"); !errors.As(err, &failed) || failed.Kind != m.ErrVolumeNotFound {
		t.Error(err)
	}
}
