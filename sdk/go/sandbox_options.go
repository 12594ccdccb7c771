package microsandbox

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// sandboxConfig collects SandboxOptions.
type sandboxConfig struct {
	options     ffi.SandboxOptions
	env, labels map[string]string
	progress    func(ffi.Progress)
	err         error
}

// SandboxOption configures CreateSandbox. Later options win.
type SandboxOption func(*sandboxConfig)

func (c *sandboxConfig) refuse(message string) {
	if c.err == nil {
		c.err = badConfig(message)
	}
}

func badConfig(message string) *Error { return &Error{Kind: ErrInvalidConfig, Message: message} }

// text returns an option that sets a string, which must not be empty.
func text(what, value string, field func(*ffi.SandboxOptions) *string) SandboxOption {
	return func(c *sandboxConfig) {
		*field(&c.options) = value
		if value == "" || strings.IndexByte(value, 0) >= 0 {
			c.refuse("the " + what + " is empty or contains NUL")
		}
	}
}

// span returns an option that sets a duration, which must be more than 0.
func span(what string, d time.Duration, field func(*ffi.SandboxOptions) *uint64) SandboxOption {
	return func(c *sandboxConfig) {
		*field(&c.options) = wholeMillis(d)
		if d <= 0 {
			c.refuse("the " + what + " must be more than 0")
		}
	}
}

func flag(bit uint32) SandboxOption {
	return func(c *sandboxConfig) { c.options.Flags |= bit }
}

// WithImage sets the image by its name, as in docker: "python:3.12". A value that begins with /, ./
// or ../ is the path of a directory, which is the root filesystem and is never modified, or of an
// archive.
func WithImage(image string) SandboxOption {
	return text("image", image, func(o *ffi.SandboxOptions) *string { return &o.Image })
}

// WithDriver sets the driver, such as "container". The default is MSB_DRIVER, or else the first
// usable driver with strong isolation; see Doctor.
func WithDriver(driver string) SandboxOption {
	return text("driver", driver, func(o *ffi.SandboxOptions) *string { return &o.Driver })
}

// WithPlatform sets the platform of the image, such as "linux/arm64" or "linux/arm/v7", instead of
// this host's. An image whose programs this host cannot run is refused.
func WithPlatform(platform string) SandboxOption {
	return text("platform", platform, func(o *ffi.SandboxOptions) *string { return &o.Platform })
}

// WithWorkdir sets the default working directory of commands, instead of the image's or /.
func WithWorkdir(path string) SandboxOption {
	return text("working directory", path, func(o *ffi.SandboxOptions) *string { return &o.Workdir })
}

// WithShell sets the shell for scripts, instead of the image's or /bin/sh.
func WithShell(path string) SandboxOption {
	return text("shell", path, func(o *ffi.SandboxOptions) *string { return &o.Shell })
}

// WithUser sets the default user of commands, instead of the image's or root: a name, uid,
// name:group or uid:gid of the image.
func WithUser(user string) SandboxOption {
	return text("user", user, func(o *ffi.SandboxOptions) *string { return &o.User })
}

// WithHostname sets the host name, instead of the sandbox's name.
func WithHostname(name string) SandboxOption {
	return text("host name", name, func(o *ffi.SandboxOptions) *string { return &o.Hostname })
}

// WithEntrypoint sets the entrypoint, a program and its arguments, instead of the image's, and drops
// the image's default command; no words for none. SandboxInfo.Command begins with it; Exec and its
// like ignore it.
func WithEntrypoint(words ...string) SandboxOption {
	return func(c *sandboxConfig) {
		if c.options.Entrypoint = words; len(words) == 0 {
			c.options.Entrypoint = []string{""}
		}
		if strings.IndexByte(strings.Join(words, ""), 0) >= 0 {
			c.refuse("the entrypoint contains NUL")
		}
	}
}

// WithStopSignal sets the signal that asks the process of each session to end when the sandbox is
// stopped, such as "SIGINT", "INT", "2" or "RTMIN+3", instead of the image's. With SIGTERM, the
// default, every process gets it.
func WithStopSignal(signal string) SandboxOption {
	return text("stop signal", signal, func(o *ffi.SandboxOptions) *string { return &o.StopSignal })
}

// WithInit asks for an init that reaps orphans and forwards signals, as docker's --init does. Every
// sandbox has one, so it changes nothing.
func WithInit() SandboxOption { return flag(ffi.Init) }

// maxMiB is the largest valid size, 16 TiB.
const maxMiB = 16 << 20

// WithCPUs sets the number of processors: a whole number, or a fraction such as 0.5; more than 0
// and at most 4096.
func WithCPUs(cpus float64) SandboxOption {
	return func(c *sandboxConfig) {
		// NaN fulfils no comparison.
		if c.options.Cpus = cpus; !(cpus > 0 && cpus <= 4096) {
			c.refuse(fmt.Sprintf("cpus is %v; it must be more than 0 and at most 4096", cpus))
		}
	}
}

// WithMemory sets the memory limit in MiB, 16 to 16,777,216. The default is 2 GiB or half of the
// host's memory, whichever is less.
func WithMemory(mib int) SandboxOption {
	return func(c *sandboxConfig) {
		if c.options.MemoryMib = uint32(mib); mib < 16 || mib > maxMiB {
			c.refuse(fmt.Sprintf("memory is %d MiB; it must be 16 to %d MiB", mib, maxMiB))
		}
	}
}

// WithShmSize sets the size of /dev/shm in bytes, at least 65,536 and at most the memory, of which it
// is a part, instead of 64 MiB.
func WithShmSize(bytes uint64) SandboxOption {
	return func(c *sandboxConfig) {
		if c.options.ShmSize = bytes; bytes < 64<<10 || bytes > maxMiB<<20 {
			c.refuse(fmt.Sprintf("shm size is %d bytes; it must be 65536 to %d bytes", bytes, uint64(maxMiB)<<20))
		}
	}
}

// WithPidsLimit sets how many processes and threads the sandbox may have at once, at least 8, instead
// of 4096.
func WithPidsLimit(count int) SandboxOption {
	return func(c *sandboxConfig) {
		if c.options.PidsLimit = uint32(count); count < 8 || int64(count) > math.MaxUint32 {
			c.refuse(fmt.Sprintf("pids limit is %d; it must be at least 8", count))
		}
	}
}

// WithDisk sets the maximum size of the sandbox's upper layer in MiB, 16 to 16,777,216, instead of
// 32 GiB.
func WithDisk(mib int) SandboxOption {
	return func(c *sandboxConfig) {
		if c.options.DiskMib = uint64(mib); mib < 16 || mib > maxMiB {
			c.refuse(fmt.Sprintf("disk is %d MiB; it must be 16 to %d MiB", mib, maxMiB))
		}
	}
}

// WithRequireJail makes the start fail if a wall of the jail is missing. MSB_REQUIRE_JAIL=1 in the
// environment does so for every sandbox. Doctor lists the walls.
func WithRequireJail() SandboxOption { return flag(ffi.RequireJail) }

// Security is a set of privileges of commands in a virtual machine.
type Security string

// Privileges of commands in a virtual machine.
const (
	// SecurityDefault: all privileges of root, in a kernel of its own.
	SecurityDefault Security = "default"
	// SecurityRestricted: the privileges of commands in a container.
	SecurityRestricted Security = "restricted"
)

// WithSecurity sets the privileges of commands in a virtual machine, instead of SecurityDefault.
func WithSecurity(security Security) SandboxOption {
	return func(c *sandboxConfig) {
		switch security {
		case SecurityDefault:
			c.options.Security = ffi.SecurityDefault
		case SecurityRestricted:
			c.options.Security = ffi.SecurityRestricted
		default:
			c.refuse(fmt.Sprintf("security is %q; it must be %q or %q", security, SecurityDefault,
				SecurityRestricted))
		}
	}
}

// WithEnv sets environment variables of every command, which override the image's. Used again, the
// maps are merged.
func WithEnv(env map[string]string) SandboxOption {
	return func(c *sandboxConfig) { merge(&c.env, env) }
}

// WithLabels sets labels, which SandboxInfo returns. Used again, the maps are merged.
func WithLabels(labels map[string]string) SandboxOption {
	return func(c *sandboxConfig) { merge(&c.labels, labels) }
}

func merge(into *map[string]string, more map[string]string) {
	if *into == nil {
		*into = make(map[string]string, len(more))
	}
	for name, value := range more {
		(*into)[name] = value
	}
}

// WithReplace kills and removes an existing sandbox with the same name.
func WithReplace() SandboxOption { return flag(ffi.Replace) }

// WithDetached lets the sandbox outlive the process that creates it. Without it the sandbox ends
// within two seconds of the end of this process.
func WithDetached() SandboxOption { return flag(ffi.Detached) }

// WithNetwork gives the sandbox access to the network. Creation fails if the driver cannot provide
// it.
func WithNetwork() SandboxOption { return flag(ffi.Network) }

// WithLog records the output of the sandbox's commands in a log; see Sandbox.Logs.
func WithLog() SandboxOption { return flag(ffi.Log) }

// WithLogLimits is WithLog with limits: at most files (2 to 10,000) of at most maxBytes each (at
// least 524,288); a new file replaces the oldest. The default is 4 files of 16 MiB.
func WithLogLimits(maxBytes uint64, files int) SandboxOption {
	return func(c *sandboxConfig) {
		c.options.Flags |= ffi.Log
		c.options.LogMaxBytes, c.options.LogFiles = maxBytes, uint32(files)
		if maxBytes < 512<<10 || files < 2 || files > 10_000 {
			c.refuse("a log needs 2 to 10,000 files of at least 524,288 bytes")
		}
	}
}

// WithMaxDuration kills the sandbox after this time.
func WithMaxDuration(d time.Duration) SandboxOption {
	return span("maximum duration", d, func(o *ffi.SandboxOptions) *uint64 { return &o.MaxDurationMs })
}

// WithIdleTimeout stops the sandbox when no command has run in it for this time.
func WithIdleTimeout(d time.Duration) SandboxOption {
	return span("idle time", d, func(o *ffi.SandboxOptions) *uint64 { return &o.IdleTimeoutMs })
}

// WithBootTimeout sets the time limit of the start, instead of 30 seconds.
func WithBootTimeout(d time.Duration) SandboxOption {
	return span("boot timeout", d, func(o *ffi.SandboxOptions) *uint64 { return &o.BootTimeoutMs })
}

func newSandboxConfig(opts []SandboxOption) *sandboxConfig {
	return applied(&sandboxConfig{}, opts)
}

// raw validates what C cannot express and returns the options for C.
func (c *sandboxConfig) raw(name string) (*ffi.SandboxOptions, error) {
	if c.err != nil {
		return nil, c.err
	}
	if err := validName(name); err != nil {
		return nil, err
	}
	var err error
	c.options.Name = name
	if c.options.Image == "" {
		return nil, badConfig("the sandbox has no image; give a name or a path")
	}
	if c.options.Env, err = pairs(c.env, "variable"); err != nil {
		return nil, badConfig(err.(*Error).Message)
	}
	if c.options.Labels, err = pairs(c.labels, "label"); err != nil {
		return nil, badConfig(err.(*Error).Message)
	}
	return &c.options, nil
}

// validName rejects what a C string cannot hold; the library validates the rest.
func validName(name string) error {
	if strings.IndexByte(name, 0) >= 0 {
		return badConfig("the name of a sandbox contains NUL")
	}
	return nil
}
