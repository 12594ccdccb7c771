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
	// StatusStopped: it ended as it was told, or as its options said.
	StatusStopped SandboxStatus = "stopped"
	// StatusCrashed: it ended by itself.
	StatusCrashed SandboxStatus = "crashed"
)

// Isolation is what keeps a sandbox from its host.
type Isolation string

// The kinds of isolation.
const (
	// IsolationHardware: a virtual machine that the processor isolates.
	IsolationHardware Isolation = "hardware"
	// IsolationEmulated: a virtual machine in software.
	IsolationEmulated Isolation = "emulated"
	// IsolationContainer: a container. The kernel is shared.
	IsolationContainer Isolation = "container"
	// IsolationUnchecked: a virtual machine on a host that was told to skip the check for hardware
	// isolation.
	IsolationUnchecked Isolation = "unchecked"
)

// EndReason is why a sandbox ended.
type EndReason string

// The reasons for an end.
const (
	// ReasonStopped: it was asked to stop.
	ReasonStopped EndReason = "stopped"
	// ReasonKilled: it was killed on request.
	ReasonKilled EndReason = "killed"
	// ReasonCreatorGone: it was not detached, and the process that created it ended.
	ReasonCreatorGone EndReason = "creator_gone"
	// ReasonMaxDuration: its time was over.
	ReasonMaxDuration EndReason = "max_duration"
	// ReasonIdle: nothing ran in it for too long.
	ReasonIdle EndReason = "idle"
	// ReasonCrashed: it ended by itself.
	ReasonCrashed EndReason = "crashed"
	// ReasonBootFailed: it did not come up.
	ReasonBootFailed EndReason = "boot_failed"
)

var (
	statuses   = []SandboxStatus{"", StatusCreated, StatusRunning, StatusStopped, StatusCrashed}
	isolations = []Isolation{"", IsolationHardware, IsolationEmulated, IsolationContainer,
		IsolationUnchecked}
	reasons = []EndReason{"", ReasonStopped, ReasonKilled, ReasonCreatorGone, ReasonMaxDuration,
		ReasonIdle, ReasonCrashed, ReasonBootFailed}
)

// named gives the name of one of the header's numbers; none for one that this version does not know.
func named[T ~string](names []T, number uint32) T {
	if int(number) < len(names) {
		return names[number]
	}
	return ""
}

// Bounds are what a sandbox can take at most; 0 where nothing bounds it.
type Bounds struct {
	// PIDs are the processes and threads that it may have at once.
	PIDs uint64
	// MemoryBytes is its memory, DiskBytes the size of its upper layer.
	MemoryBytes, DiskBytes uint64
	// CPUs are the processors that it may use.
	CPUs float64
}

// SandboxInfo is what is known about a sandbox.
type SandboxInfo struct {
	// Name is its name.
	Name string
	// Status is its state.
	Status SandboxStatus
	// Image is what it was made from: the name of an image, or a path.
	Image string
	// Driver runs it, or ran it last; Isolation is what that gives. Empty when it was never started.
	Driver    string
	Isolation Isolation
	// Jailed tells whether every process of it on the host, but its supervisor, is in a jail with all
	// of its walls; nil when it never came up.
	Jailed *bool
	// MissingWalls are the walls of the jail that are missing, each with the reason.
	MissingWalls []string
	// Bounds are those in force; nil when it never came up.
	Bounds *Bounds
	// CPUs and MemoryMiB are what was asked for; 0: nothing was.
	CPUs      float64
	MemoryMiB int
	// Detached tells whether it outlives the process that created it.
	Detached bool
	// Labels are the caller's own notes.
	Labels map[string]string
	// CreatedAt is when it was created, StartedAt when it was last started; zero: never.
	CreatedAt, StartedAt time.Time
	// EndReason is why it ended; empty when it did not.
	EndReason EndReason
	// EndDetail is more about that, one line for people; it may be empty.
	EndDetail string
	// Command is what its image runs when nobody names a command; Exec and its like know nothing of it.
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

// ListSandboxes tells of all sandboxes, by name, running or not.
func ListSandboxes(ctx context.Context) ([]SandboxInfo, error) {
	raw, err := onThread(ctx, ffi.ListSandboxes, nil)
	all := make([]SandboxInfo, 0, len(raw))
	for _, entry := range raw {
		all = append(all, newInfo(entry))
	}
	return all, err
}

// Info tells what is known about the sandbox now.
func (s *Sandbox) Info(ctx context.Context) (*SandboxInfo, error) {
	raw, err := onThread(ctx, s.raw.Info, nil)
	if err != nil {
		return nil, err
	}
	info := newInfo(raw)
	return &info, nil
}

// SessionInfo is what is known about one run of a command.
type SessionInfo struct {
	// ID is the session's id, for Reattach and AttachSession.
	ID string
	// Argv is the program and its arguments, cut when they are very long.
	Argv []string
	// PID is its process id in the sandbox.
	PID uint32
	// TTY tells whether it has a terminal.
	TTY bool
	// Exit is how it ended; nil while it runs.
	Exit *ExecExit
	// Followers is how many handles read it.
	Followers int
	// Age is how long ago it started.
	Age time.Duration
	// OutputTotal is how many bytes it has put out.
	OutputTotal uint64
}

// Running reports whether it has not ended yet.
func (s *SessionInfo) Running() bool { return s.Exit == nil }

// Sessions tells of the commands that run in the sandbox, and of those that ended a short while ago.
func (s *Sandbox) Sessions(ctx context.Context) ([]SessionInfo, error) {
	raw, err := onThread(ctx, s.raw.Sessions, nil)
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

// DriverInfo is what is known about a driver on this host.
type DriverInfo struct {
	// Name is its name, for WithDriver.
	Name string
	// Isolation is what it gives.
	Isolation Isolation
	// Usable tells whether it can be used here.
	Usable bool
	// Why says on what it stands, or why it cannot be used; Hint what would change that.
	Why, Hint string
	// Unbounded are what it cannot bound, each with the reason.
	Unbounded []string
}

// WallInfo is what is known about a wall of the jail on this host.
type WallInfo struct {
	// Name is what it is called, such as "seccomp".
	Name string
	// Missing says why this host does not have it, and is empty when it does; Hint what would help.
	Missing, Hint string
}

// HostInfo is what a host offers.
type HostInfo struct {
	// Drivers are in the order in which they are chosen.
	Drivers []DriverInfo
	// Walls are those of the jail.
	Walls []WallInfo
}

// Doctor tells which drivers and which walls of the jail can be had on this host. It tries each.
func Doctor(ctx context.Context) (*HostInfo, error) {
	raw, err := onThread(ctx, ffi.Doctor, nil)
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
