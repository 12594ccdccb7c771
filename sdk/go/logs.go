package microsandbox

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// LogKind is the kind of a LogRecord.
type LogKind int

// The kinds of records.
const (
	// LogStdout: Data is from the session's standard output; on a terminal, from both outputs.
	LogStdout LogKind = iota + 1
	// LogStderr: Data is from its standard error.
	LogStderr
	// LogStarted: the session started. PID, Argv and TTY are valid.
	LogStarted
	// LogExited: it exited. ExitCode and Exit are valid; resource usage is not recorded.
	LogExited
	// LogFailed: it failed to start. Failure and Argv are valid; the failure's path is not recorded.
	LogFailed
	// LogLost: the session was lost; its exit is unknown.
	LogLost
	// LogIncomplete: belongs to no session; Data is one line naming what is missing. Always last.
	LogIncomplete
)

var logNames = [...]string{
	"", "stdout", "stderr", "started", "exited", "failed", "lost", "incomplete",
}

// String returns the kind's name: "stdout".
func (k LogKind) String() string {
	if k <= 0 || int(k) >= len(logNames) {
		return "unknown"
	}
	return logNames[k]
}

// LogRecord is one record of a sandbox's log. Kind determines which fields are set.
type LogRecord struct {
	// Kind is the kind of the record.
	Kind LogKind
	// Time is when it was logged, by the host's clock.
	Time time.Time
	// SessionID is the session id, as from ExecHandle.ID; empty with LogIncomplete.
	SessionID string
	// Data is output, byte for byte. The caller owns it.
	Data []byte
	// PID is the process id in the sandbox, with LogStarted.
	PID uint32
	// Argv is the program and its arguments, with LogStarted and LogFailed. Invalid UTF-8 in them
	// is replaced.
	Argv []string
	// TTY reports, with LogStarted, whether the session has a terminal.
	TTY bool
	// ExitCode is the exit code, with LogExited; -1 if a signal killed it. Exit has more.
	ExitCode int
	Exit     *ExecExit
	// Failure is set with LogFailed; else it is nil.
	Failure *ExecFailure
}

type logConfig struct {
	follow  bool
	session string
	since   time.Time
	err     error
}

// LogOption selects the part of a log to read.
type LogOption func(*logConfig)

// WithLogFollow keeps reading new records until the sandbox ends.
func WithLogFollow() LogOption { return func(c *logConfig) { c.follow = true } }

// WithLogSession selects the records of one session, by its id.
func WithLogSession(id string) LogOption {
	return func(c *logConfig) {
		if c.session = id; id == "" {
			c.err = invalid("the session id is empty")
		}
	}
}

// WithLogSince selects records from a time on.
func WithLogSince(t time.Time) LogOption { return func(c *logConfig) { c.since = t } }

// LogReader reads a log. The caller closes it. It has one reader at a time.
type LogReader struct {
	raw     *ffi.Logs
	reading sync.Mutex
}

// Logs opens the log of the sandbox: the output and the exits of its sessions. It exists only if
// the sandbox was created WithLog; otherwise the error is of kind ErrInvalidConfig. It is kept
// until the sandbox is removed, also after the sandbox has ended; its oldest part is removed when
// its size limit is reached.
func (s *Sandbox) Logs(ctx context.Context, opts ...LogOption) (*LogReader, error) {
	c := applied(&logConfig{}, opts)
	if c.err != nil {
		return nil, c.err
	}
	if err := noNUL(c.session); err != nil {
		return nil, err
	}
	open := func() (*ffi.Logs, error) { return s.raw.Logs(c.follow, c.session, sinceNs(c.since)) }
	raw, err := runBlocking(ctx, open, func(late *ffi.Logs) { _ = late.Close() })
	if err != nil {
		return nil, err
	}
	return &LogReader{raw: raw}, nil
}

// sinceNs returns nanoseconds since 1970, clamped to the range of int64.
func sinceNs(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

var logKinds = [...]LogKind{
	ffi.LogsStdout:     LogStdout,
	ffi.LogsStderr:     LogStderr,
	ffi.LogsStarted:    LogStarted,
	ffi.LogsExited:     LogExited,
	ffi.LogsFailed:     LogFailed,
	ffi.LogsLost:       LogLost,
	ffi.LogsIncomplete: LogIncomplete,
}

// Next waits for the next record, in log order. At the end it returns io.EOF; with WithLogFollow,
// when the sandbox has ended. Cancelling loses no record.
func (l *LogReader) Next(ctx context.Context) (*LogRecord, error) {
	if !l.reading.TryLock() {
		if l.raw.Closed() {
			return nil, &Error{Kind: ErrClosed, Message: "the handle is closed"}
		}
		return nil, &Error{Kind: ErrBusy, Message: "another goroutine reads this log"}
	}
	defer l.reading.Unlock()
	for {
		raw, err := l.raw.Next(ctx)
		if err != nil {
			return nil, wrap(err)
		}
		if raw.Kind == ffi.LogsEnd {
			return nil, io.EOF
		}
		if int(raw.Kind) >= len(logKinds) || logKinds[raw.Kind] == 0 {
			continue // unknown to this version
		}
		record := &LogRecord{
			Kind: logKinds[raw.Kind], Time: time.Unix(0, raw.TimeNs), SessionID: raw.Session,
			Data: raw.Data, Argv: raw.Argv, TTY: raw.Flags&ffi.SessionTTY != 0,
			Exit: newExit(raw.Exit), Failure: newFailure(raw.Failure),
		}
		switch record.Kind {
		case LogStarted:
			record.PID = uint32(raw.Value)
		case LogExited:
			record.ExitCode = int(raw.Value)
		}
		return record, nil
	}
}

// Close closes the reader and wakes a blocked Next. Closing again is a no-op.
func (l *LogReader) Close() error { return wrap(l.raw.Close()) }
