package microsandbox_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

func TestGSandboxLifecycle(t *testing.T) {
	ctx := soon(t)
	name := "go-life-" + strings.ReplaceAll(time.Now().Format("150405.000000"), ".", "-")
	sb, err := m.CreateSandbox(ctx, name, m.WithImage(rootfs), m.WithDriver("container"),
		m.WithEnv(map[string]string{"A": "1"}), m.WithEnv(map[string]string{"B": "2"}),
		m.WithWorkdir("/etc"), m.WithShell("/bin/sh"), m.WithUser("1000"), m.WithHostname("host-of-it"),
		m.WithLabels(map[string]string{"team": "blue", "empty": ""}),
		m.WithMaxDuration(time.Hour), m.WithIdleTimeout(time.Hour), m.WithBootTimeout(time.Minute))
	must(t, err)
	t.Cleanup(func() { _ = m.RemoveSandbox(context.Background(), name, m.WithForce()) })
	equal(t, "name", sb.Name(), name)
	out, err := sb.Shell(ctx, "pwd; echo $A $B; id -u; hostname")
	must(t, err)
	equal(t, "output", out.Stdout(), "/etc\n1 2\n1000\nhost-of-it\n")

	info, err := sb.Info(ctx)
	must(t, err)
	equal(t, "status", info.Status, m.StatusRunning)
	equal(t, "isolation", info.Isolation, m.IsolationContainer)
	equal(t, "driver", info.Driver, "container")
	equal(t, "label", info.Labels["team"], "blue")
	equal(t, "labels", len(info.Labels), 2)
	equal(t, "detached", info.Detached, false)
	if age := time.Since(info.CreatedAt); age < 0 || age > time.Hour || info.StartedAt.IsZero() {
		t.Error(info.CreatedAt, info.StartedAt)
	}
	_, err = m.CreateSandbox(ctx, name, m.WithImage(rootfs))
	kind(t, err, m.ErrSandboxAlreadyExists)
	if !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	kind(t, m.RemoveSandbox(ctx, name), m.ErrSandboxRunning)
	kind(t, sb.Detach(ctx), m.ErrUnsupported)

	stopped := make(chan error)
	go func() { stopped <- sb.WaitUntilStopped(ctx) }()
	must(t, sb.StopWithTimeout(ctx, time.Second))
	must(t, <-stopped)
	kind(t, sb.Stop(ctx), m.ErrSandboxNotRunning)
	_, err = sb.Exec(ctx, "true", nil)
	if !m.IsKind(err, m.ErrSandboxNotRunning) && !m.IsKind(err, m.ErrStreamLost) {
		t.Error(err)
	}
	must(t, sb.Close())
	must(t, sb.Close())
	_, err = sb.Info(ctx)
	kind(t, err, m.ErrClosed)

	found, err := m.GetSandbox(ctx, name)
	must(t, err)
	info, err = found.Info(ctx)
	must(t, err)
	equal(t, "status", info.Status, m.StatusStopped)
	equal(t, "reason", info.EndReason, m.ReasonStopped)
	must(t, found.Close())
	again, err := m.StartSandbox(ctx, name)
	must(t, err)
	_, err = m.StartSandbox(ctx, name)
	kind(t, err, m.ErrSandboxRunning)
	must(t, again.Kill(ctx))
	must(t, again.WaitUntilStopped(ctx))
	must(t, again.Close())
	all, err := m.ListSandboxes(ctx)
	must(t, err)
	listed := false
	for _, one := range all {
		listed = listed || one.Name == name && one.EndReason == m.ReasonKilled
	}
	equal(t, "listed", listed, true)
	must(t, m.RemoveSandbox(ctx, name))
	_, err = m.GetSandbox(ctx, name)
	kind(t, err, m.ErrSandboxNotFound)
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	kind(t, m.RemoveSandbox(ctx, name), m.ErrSandboxNotFound)
}

func TestGDetachedAndReplaced(t *testing.T) {
	ctx := soon(t)
	sb := box(t, m.WithDetached())
	old, err := sb.ShellStream(ctx, "exec sleep 600")
	must(t, err)
	defer old.Close()
	other, err := m.CreateSandbox(ctx, sb.Name(), m.WithImage(rootfs), m.WithReplace(), m.WithDetached())
	must(t, err)
	_, err = old.Collect(ctx)
	kind(t, err, m.ErrStreamLost) // B7: no exit code is invented
	var failed *m.Error
	if !errors.As(err, &failed) || failed.Output.Exit() != nil || failed.Output.ExitCode() != -1 {
		t.Error(err)
	}
	must(t, other.Detach(ctx))
	_, err = other.Exec(ctx, "true", nil)
	kind(t, err, m.ErrClosed)
	again, err := m.GetSandbox(ctx, sb.Name())
	must(t, err)
	out, err := again.Exec(ctx, "true", nil)
	must(t, err)
	equal(t, "success", out.Success(), true)
	must(t, again.Close())
}

func TestGInvalidSandboxOptions(t *testing.T) {
	for what, opts := range map[string][]m.SandboxOption{
		"no image":            {},
		"empty image":         {m.WithImage("")},
		"NUL":                 {m.WithImage("/\x00")},
		"no such image":       {m.WithImage("/nonexistent")},
		"no processor":        {m.WithCPUs(0)},
		"too many processors": {m.WithCPUs(5000)},
		"less than no cpu":    {m.WithCPUs(-0.5)},
		"cpus not a number":   {m.WithCPUs(math.NaN())},
		"bytes of memory":     {m.WithMemory(104857600)},
		"few processes":       {m.WithPidsLimit(7)},
		"less than no pids":   {m.WithPidsLimit(-1)},
		"a small disk":        {m.WithDisk(15)},
		"no such security":    {m.WithSecurity("strict")},
		"no memory":           {m.WithMemory(0)},
		"little memory":       {m.WithMemory(15)},
		"no time":             {m.WithMaxDuration(0)},
		"no time to idle":     {m.WithIdleTimeout(-1)},
		"no time to boot":     {m.WithBootTimeout(0)},
		"an empty shell":      {m.WithShell("")},
		"an empty user":       {m.WithUser("")},
		"an empty directory":  {m.WithWorkdir("")},
		"an empty host":       {m.WithHostname("")},
		"an empty driver":     {m.WithDriver("")},
		"'=' in a variable":   {m.WithEnv(map[string]string{"A=": ""})},
		"NUL in a variable":   {m.WithEnv(map[string]string{"A": "\x00"})},
		"'=' in a label":      {m.WithLabels(map[string]string{"A=": ""})},
		"a small log":         {m.WithLogLimits(1, 2)},
		"a log of one file":   {m.WithLogLimits(1<<20, 1)},
	} {
		if _, set := opts, what != "no image"; set {
			opts = append([]m.SandboxOption{m.WithImage(rootfs)}, opts...)
		}
		_, err := m.CreateSandbox(soon(t), "go-never", opts...)
		if !m.IsKind(err, m.ErrInvalidConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"", "a b", "-a", "a\x00", strings.Repeat("a", 129)} {
		_, err := m.CreateSandbox(soon(t), name, m.WithImage(rootfs))
		kind(t, err, m.ErrInvalidConfig)
		_, err = m.GetSandbox(soon(t), name)
		kind(t, err, m.ErrInvalidConfig)
		kind(t, m.RemoveSandbox(soon(t), name), m.ErrInvalidConfig)
	}
	_, err := m.CreateSandbox(soon(t), "go-never", m.WithImage(rootfs), m.WithDriver("unheard-of"))
	if err == nil {
		t.Error("an unknown driver was accepted")
	}
	kind(t, box(t).StopWithTimeout(soon(t), -1), m.ErrInvalidArgument)
}

func TestCancelledCreationReturnsAtOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := m.CreateSandbox(ctx, "go-cancelled", m.WithImage(rootfs), m.WithReplace())
	same(t, "error", err, context.DeadlineExceeded)
	// Creation continues.
	until(t, "the sandbox runs", func() bool {
		sb, err := m.GetSandbox(soon(t), "go-cancelled")
		if err != nil {
			return false
		}
		defer sb.Close()
		info, err := sb.Info(soon(t))
		return err == nil && info.Driver != "" // booted
	})
	must(t, m.RemoveSandbox(soon(t), "go-cancelled", m.WithForce()))
}

func TestSandboxCloseWakesWaiter(t *testing.T) {
	sb := box(t)
	found, err := m.GetSandbox(soon(t), sb.Name())
	must(t, err)
	woken := make(chan error)
	go func() { woken <- found.WaitUntilStopped(soon(t)) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	same(t, "cancelled", found.WaitUntilStopped(ctx), context.DeadlineExceeded)
	must(t, found.Close())
	kind(t, <-woken, m.ErrClosed)
	// The sandbox keeps running.
	out, err := sb.Exec(soon(t), "true", nil)
	must(t, err)
	equal(t, "success", out.Success(), true)
}

func TestEnsureInstalledReportsMissingParts(t *testing.T) {
	must(t, m.EnsureInstalled(soon(t)))
	if m.Version() == "" {
		t.Error("no version")
	}
	for _, variable := range []string{"MSB_RUNNER", "MSB_AGENT"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, "/nowhere/at-all")
			err := m.EnsureInstalled(soon(t))
			kind(t, err, m.ErrNotInstalled)
			for _, wanted := range []string{variable, "/nowhere/at-all", "libmicrosandbox", m.Version()} {
				if !strings.Contains(err.Error(), wanted) {
					t.Errorf("%q is not in %q", wanted, err)
				}
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	same(t, "done context", m.EnsureInstalled(ctx), context.Canceled)
}

func TestG9InvalidBoundsAreNamed(t *testing.T) {
	for text, option := range map[string]m.SandboxOption{
		"cpus is -0.5;":            m.WithCPUs(-0.5),
		"cpus is NaN;":             m.WithCPUs(math.NaN()),
		"memory is 104857600 MiB;": m.WithMemory(104857600),
		"shm size is 64 bytes;":    m.WithShmSize(64),
		"pids limit is 7;":         m.WithPidsLimit(7),
		"disk is 15 MiB;":          m.WithDisk(15),
		`security is "strict";`:    m.WithSecurity("strict"),
		`"FOO" is no signal;`:      m.WithStopSignal("FOO"),
	} {
		_, err := m.CreateSandbox(soon(t), "go-never", m.WithImage(rootfs), option)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %v", text, err)
		}
	}
}

func TestJ4BoundsAreAppliedAndReported(t *testing.T) {
	ctx := soon(t)
	sandbox, err := m.CreateSandbox(ctx, "go-bounded", m.WithImage(rootfs), m.WithCPUs(0.5),
		m.WithMemory(256), m.WithPidsLimit(512), m.WithDisk(1024), m.WithSecurity(m.SecurityRestricted),
		m.WithStopSignal("INT"), m.WithInit(), m.WithShmSize(32<<20))
	must(t, err)
	defer sandbox.Close()
	info, err := sandbox.Info(ctx)
	must(t, err)
	equal(t, "cpus", info.CPUs, 0.5)
	equal(t, "memory", info.MemoryMiB, 256)
	if info.Jailed == nil || info.Bounds == nil {
		t.Fatalf("%+v", info)
	}
	out, err := sandbox.Shell(ctx, "df -k /dev/shm | tail -n 1 | awk '{ print $2 }'")
	must(t, err)
	equal(t, "size of /dev/shm", out.Stdout(), "32768\n")
	must(t, sandbox.Kill(ctx))
	// The runner's state file, with known values.
	path := filepath.Join(os.Getenv("MSB_HOME"), "sandboxes", "go-bounded", "started.json")
	for protection, want := range map[string]*m.Bounds{
		`null`: nil,
		`{"jailed": true, "missing": ["quota: x"], "bounds": {"pids": 512, "memory_bytes": 268435456,
			"disk_bytes": null, "cpu_millis": 500}}`: {PIDs: 512, MemoryBytes: 1 << 28, CPUs: 0.5},
	} {
		text := `{"at_ms": 1, "machine": ["container", "container"], "protection": ` + protection + `}`
		must(t, os.WriteFile(path, []byte(text), 0o600))
		info, err = sandbox.Info(ctx)
		must(t, err)
		if want == nil {
			if info.Jailed != nil || info.Bounds != nil || len(info.MissingWalls) != 0 {
				t.Errorf("%+v", info)
			}
			continue
		}
		equal(t, "jailed", *info.Jailed, true)
		equal(t, "missing walls", strings.Join(info.MissingWalls, ","), "quota: x")
		equal(t, "bounds", *info.Bounds, *want)
	}
	must(t, m.RemoveSandbox(ctx, "go-bounded"))
}

func TestDoctorReportsDrivers(t *testing.T) {
	host, err := m.Doctor(soon(t))
	must(t, err)
	for _, driver := range host.Drivers {
		if driver.Name == "container" {
			equal(t, "usable", driver.Usable, true)
			equal(t, "isolation", driver.Isolation, m.IsolationContainer)
			return
		}
	}
	t.Error(host.Drivers)
}

func TestErrorKindNamesMatchOtherLanguages(t *testing.T) {
	seen := map[string]bool{}
	for kind := m.ErrUnknown; kind <= m.ErrFilesystem; kind++ {
		name := kind.String()
		if name == "" || seen[name] {
			t.Errorf("%d is %q", int(kind), name)
		}
		seen[name] = true
	}
	equal(t, "beyond", m.ErrorKind(1000).String(), "unknown")
	equal(t, "below", m.ErrorKind(-1).String(), "unknown")
	for kind, name := range map[m.ErrorKind]string{
		m.ErrExecFailed: "exec_failed", m.ErrStreamLost: "stream_lost", m.ErrBusy: "busy",
		m.ErrInvalidConfig: "invalid_config", m.ErrNoDriver: "no_driver", m.ErrIO: "io",
	} {
		equal(t, "name", kind.String(), name)
	}
	equal(t, "of no error", m.IsKind(nil, m.ErrUnknown), false)
	equal(t, "of another error", m.IsKind(os.ErrClosed, m.ErrClosed), false)
}

// Without cgo the compiler's error names the reason.
func TestBuildWithoutCgoNamesTheReason(t *testing.T) {
	build := exec.Command(filepath.Join(goRoot(t), "bin", "go"), "build", "-o", os.DevNull, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := build.CombinedOutput()
	if err == nil || !strings.Contains(string(text), "the_microsandbox_SDK_needs_CGO_ENABLED_1_and_a_C_compiler") {
		t.Errorf("%v: %s", err, text)
	}
}

func goRoot(t *testing.T) string {
	t.Helper()
	text, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	return strings.TrimSpace(string(text))
}
