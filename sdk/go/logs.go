package microsandbox

import (
	"context"
	"io"
	"math"
	"sync"
	"time"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// LogKind says what a LogRecord tells.
type LogKind int

// The kinds of records.
const (
	// LogStdout: Data is what the session wrote to standard output, with a terminal to both.
	LogStdout LogKind = iota + 1
	// LogStderr: Data is what it wrote to standard error.
	LogStderr
	// LogStarted: the session began. PID, Argv and TTY are valid.
	LogStarted
	// LogExited: it ended. ExitCode and Exit are valid, but what it used is not kept.
	LogExited
	// LogFailed: it never ran. Failure and Argv are valid; the failure's path is not kept.
	LogFailed
	// LogLost: nothing more is known of the session.
	LogLost
	// LogIncomplete: not of a session; Data is one line that says what is missing. Comes last.
	LogIncomplete
)

var logNames = [...]string{
	"", "stdout", "stderr", "started", "exited", "failed", "lost", "incomplete",
}

// String gives the kind's name: "stdout".
func (k LogKind) String() string {
	if k <= 0 || int(k) >= len(logNames) {
		return "unknown"
	}
	return logNames[k]
}

// LogRecord is one record of the log of a sandbox. Kind says which fields are set.
type LogRecord struct {
	// Kind says what happened.
	Kind LogKind
	// Time is when it reached the log, by the clock of the host.
	Time time.Time
	// SessionID is the session's id, as ExecHandle.ID tells it; empty with LogIncomplete.
	SessionID string
	// Data is output, byte for byte. It is the caller's.
	Data []byte
	// PID is the process id in the sandbox, with LogStarted.
	PID uint32
	// Argv is the program and its arguments, with LogStarted and LogFailed. What is not UTF-8 in
	// them was replaced.
	Argv []string
	// TTY tells, with LogStarted, whether the session has a terminal.
	TTY bool
	// ExitCode is the exit code, with LogExited; -1 for a death by signal. Exit tells more.
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

// LogOption says which part of a log is wanted.
type LogOption func(*logConfig)

// WithLogFollow goes on with what is still to come, until the sandbox ends.
func WithLogFollow() LogOption { return func(c *logConfig) { c.follow = true } }

// WithLogSession wants only the records of one session, by its id.
func WithLogSession(id string) LogOption {
	return func(c *logConfig) {
		if c.session = id; id == "" {
			c.err = invalid("the session's id is empty")
		}
	}
}

// WithLogSince wants only records from a time on.
func WithLogSince(t time.Time) LogOption { return func(c *logConfig) { c.since = t } }

// LogReader reads a log. It has to be closed. One goroutine at a time reads it.
type LogReader struct {
	raw     *ffi.Logs
	reading sync.Mutex
}

// Logs reads the log of the sandbox: what its sessions have put out, and what became of them. There
// is one only if the sandbox was created WithLog; else that is an error of kind ErrInvalidConfig. It
// is kept until the sandbox is removed, and can be read when it has ended; the oldest part only as
// long as there is room.
func (s *Sandbox) Logs(ctx context.Context, opts ...LogOption) (*LogReader, error) {
	c := &logConfig{}
	for _, option := range opts {
		if option != nil {
			option(c)
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	if err := noNUL(c.session); err != nil {
		return nil, err
	}
	open := func() (*ffi.Logs, error) { return s.raw.Logs(c.follow, c.session, sinceNs(c.since)) }
	raw, err := onThread(ctx, open, func(late *ffi.Logs) { _ = late.Close() })
	if err != nil {
		return nil, err
	}
	return &LogReader{raw: raw}, nil
}

// sinceNs gives nanoseconds since 1970, as far as there are any.
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

// Next waits for the next record, in the order in which they reached the log. At the end it gives
// io.EOF, which with WithLogFollow is when the sandbox has ended. Giving up loses nothing.
func (l *LogReader) Next(ctx context.Context) (*LogRecord, error) {
	if !l.reading.TryLock() {
		if l.raw.Closed() {
			return nil, &Error{Kind: ErrClosed, Message: "the handle is closed"}
		}
		return nil, &Error{Kind: ErrBusy, Message: "another goroutine reads this log already"}
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
			continue // of a later version
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

// Close ends the reading and wakes who waits. Closing again does nothing.
func (l *LogReader) Close() error { return wrap(l.raw.Close()) }
