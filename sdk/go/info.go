package microsandbox

import (
	"context"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// SandboxStatus is the state of a sandbox.
type SandboxStatus string

// The states of a sandbox.
const (
	// StatusCreated: never started.
	StatusCreated SandboxStatus = "created"
	// StatusRunning: running.
	StatusRunning SandboxStatus = "running"
	// StatusStopped: it ended on request or by its options.
	StatusStopped SandboxStatus = "stopped"
	// StatusCrashed: it ended unexpectedly.
	StatusCrashed SandboxStatus = "crashed"
)

// Isolation is what isolates a sandbox from its host.
type Isolation string

// The kinds of isolation.
const (
	// IsolationHardware: a virtual machine isolated by the processor.
	IsolationHardware Isolation = "hardware"
	// IsolationEmulated: a virtual machine in software.
	IsolationEmulated Isolation = "emulated"
	// IsolationContainer: a container. The kernel is shared.
	IsolationContainer Isolation = "container"
	// IsolationUnchecked: a virtual machine on a host configured to skip the check for hardware
	// isolation.
	IsolationUnchecked Isolation = "unchecked"
	// IsolationGvisor: gVisor, a kernel in user space.
	IsolationGvisor Isolation = "gvisor"
)

// EndReason is the reason why a sandbox ended.
type EndReason string

// The end reasons.
const (
	// ReasonStopped: it was stopped on request.
	ReasonStopped EndReason = "stopped"
	// ReasonKilled: it was killed on request.
	ReasonKilled EndReason = "killed"
	// ReasonCreatorGone: it was not detached, and the process that created it ended.
	ReasonCreatorGone EndReason = "creator_gone"
	// ReasonMaxDuration: it reached its maximum duration.
	ReasonMaxDuration EndReason = "max_duration"
	// ReasonIdle: it reached its idle timeout.
	ReasonIdle EndReason = "idle"
	// ReasonCrashed: it ended unexpectedly.
	ReasonCrashed EndReason = "crashed"
	// ReasonBootFailed: it failed to boot.
	ReasonBootFailed EndReason = "boot_failed"
)

var (
	statuses   = []SandboxStatus{"", StatusCreated, StatusRunning, StatusStopped, StatusCrashed}
	isolations = []Isolation{"", IsolationHardware, IsolationEmulated, IsolationContainer,
		IsolationUnchecked, IsolationGvisor}
	reasons = []EndReason{"", ReasonStopped, ReasonKilled, ReasonCreatorGone, ReasonMaxDuration,
		ReasonIdle, ReasonCrashed, ReasonBootFailed}
)

// named returns the name of one of the header's numbers; "" for an unknown one.
func named[T ~string](names []T, number uint32) T {
	if int(number) < len(names) {
		return names[number]
	}
	return ""
}

// Bounds are the resource limits of a sandbox; 0 means unlimited.
type Bounds struct {
	// PIDs is the limit on processes and threads.
	PIDs uint64
	// MemoryBytes limits its memory, DiskBytes its upper layer.
	MemoryBytes, DiskBytes uint64
	// CPUs is the limit on processors.
	CPUs float64
}

// SandboxInfo describes a sandbox.
type SandboxInfo struct {
	// Name is its name.
	Name string
	// Status is its state.
	Status SandboxStatus
	// Image is the name or path of its image.
	Image string
	// Driver runs it or ran it last; Isolation is what the driver provides. Empty if never started.
	Driver    string
	Isolation Isolation
	// Jailed reports whether all its host processes except the supervisor are in a jail with every
	// wall; nil if it never booted.
	Jailed *bool
	// MissingWalls are the missing walls of the jail, each with the reason.
	MissingWalls []string
	// Bounds are the limits in force; nil if it never booted.
	Bounds *Bounds
	// CPUs and MemoryMiB are the requested limits; 0 if not requested.
	CPUs      float64
	MemoryMiB int
	// Detached reports whether it can outlive the process that created it.
	Detached bool
	// Labels are set by the caller.
	Labels map[string]string
	// CreatedAt is when it was created, StartedAt when it was last started; zero: never.
	CreatedAt, StartedAt time.Time
	// EndReason is why it ended; empty if it did not end.
	EndReason EndReason
	// EndDetail is one line of detail; it may be empty.
	EndDetail string
	// Command is the default command of its image, which Exec and similar calls do not use.
	Command []string
}

func newInfo(raw ffi.SandboxEntry) SandboxInfo {
	info := SandboxInfo{
		Name: raw.Name, Status: named(statuses, raw.State), Image: raw.Image, Driver: raw.Driver,
		Isolation: named(isolations, raw.Isolation), CPUs: raw.CPUs,
		MemoryMiB: int(raw.MemoryMiB), Detached: raw.Flags&ffi.Detached != 0,
		Labels: map[string]string{}, CreatedAt: time.UnixMilli(raw.CreatedMs),
		EndReason: named(reasons, raw.Reason), EndDetail: raw.Detail,
		Command: raw.Command, MissingWalls: raw.MissingWalls, Bounds: (*Bounds)(raw.Bounds),
	}
	if raw.Jailed != 0 {
		jailed := raw.Jailed == ffi.JailedYes
		info.Jailed = &jailed
	}
	if raw.StartedMs != 0 {
		info.StartedAt = time.UnixMilli(raw.StartedMs)
	}
	for _, label := range raw.Labels {
		name, value, _ := strings.Cut(label, "=")
		info.Labels[name] = value
	}
	return info
}

// ListSandboxes returns all sandboxes, sorted by name, running or not.
func ListSandboxes(ctx context.Context) ([]SandboxInfo, error) {
	raw, err := runBlocking(ctx, ffi.ListSandboxes, nil)
	all := make([]SandboxInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, newInfo(entry))
	}
	return all, err
}

// Info returns the current description of the sandbox.
func (s *Sandbox) Info(ctx context.Context) (*SandboxInfo, error) {
	raw, err := runBlocking(ctx, s.raw.Info, nil)
	if err != nil {
		return nil, err
	}
	info := newInfo(raw)
	return &info, nil
}

// SessionInfo describes a session, which is one run of a command.
type SessionInfo struct {
	// ID is the session id, for Reattach and AttachSession.
	ID string
	// Argv is the program and its arguments, truncated if very long.
	Argv []string
	// PID is its process id in the sandbox.
	PID uint32
	// TTY reports whether it has a terminal.
	TTY bool
	// Exit is the exit status; nil while it runs.
	Exit *ExecExit
	// Followers is how many handles read it.
	Followers int
	// Age is how long ago it started.
	Age time.Duration
	// OutputTotal is how many bytes of output it has written.
	OutputTotal uint64
}

// Running reports whether it has not ended yet.
func (s *SessionInfo) Running() bool { return s.Exit == nil }

// Sessions returns the sessions that are running in the sandbox or ended recently.
func (s *Sandbox) Sessions(ctx context.Context) ([]SessionInfo, error) {
	raw, err := runBlocking(ctx, s.raw.Sessions, nil)
	all := make([]SessionInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, SessionInfo{
			ID: entry.ID, Argv: entry.Argv, PID: entry.PID, TTY: entry.Flags&ffi.SessionTTY != 0,
			Exit: newExit(entry.Exit), Followers: int(entry.Followers),
			Age: time.Duration(entry.AgeNs), OutputTotal: entry.OutputTotal,
		})
	}
	return all, err
}

// DriverInfo describes a driver on this host.
type DriverInfo struct {
	// Name is its name, for WithDriver.
	Name string
	// Isolation is what it provides.
	Isolation Isolation
	// Usable reports whether it can be used here.
	Usable bool
	// Why has backend details if usable, else the reason; Hint is the remedy.
	Why, Hint string
	// Unbounded are the limits that it cannot enforce, each with the reason.
	Unbounded []string
}

// WallInfo describes a wall of the jail on this host.
type WallInfo struct {
	// Name is its name, such as "seccomp".
	Name string
	// Missing is why this host lacks it, empty if the host has it; Hint is the remedy.
	Missing, Hint string
}

// HostInfo describes the capabilities of a host.
type HostInfo struct {
	// Drivers are in order of preference.
	Drivers []DriverInfo
	// Walls are the walls of the jail.
	Walls []WallInfo
}

// Doctor probes which drivers and which walls of the jail this host supports.
func Doctor(ctx context.Context) (*HostInfo, error) {
	raw, err := runBlocking(ctx, ffi.Doctor, nil)
	if err != nil {
		return nil, err
	}
	host := &HostInfo{}
	for _, entry := range raw.Drivers {
		host.Drivers = append(host.Drivers, DriverInfo{
			Name: entry.Name, Isolation: named(isolations, entry.Isolation),
			Usable: entry.Usable, Why: entry.Why, Hint: entry.Hint, Unbounded: entry.Unbounded,
		})
	}
	for _, entry := range raw.Walls {
		host.Walls = append(host.Walls, WallInfo(entry))
	}
	return host, nil
}
