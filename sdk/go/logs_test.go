package microsandbox_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// allOf reads a log to its end.
func allOf(t *testing.T, sb *m.Sandbox, opts ...m.LogOption) (all []*m.LogRecord) {
	t.Helper()
	log, err := sb.Logs(soon(t), opts...)
	must(t, err)
	for {
		record, err := log.Next(soon(t))
		if err == io.EOF {
			_, err = log.Next(soon(t))
			same(t, "after the end", err, io.EOF)
			must(t, log.Close())
			return all
		}
		must(t, err)
		all = append(all, record)
	}
}

func TestD6LogRecordsSessions(t *testing.T) {
	sb := box(t, m.WithLogLimits(1<<20, 2))
	begun := time.Now()
	h := start(t, sb, "printf 'a\\000b\\377'; echo err >&2; exit 3")
	id, err := h.ID()
	must(t, err)
	_, err = h.Wait(soon(t))
	must(t, err)
	_, err = sb.Exec(soon(t), "none", []string{"of it"})
	kind(t, err, m.ErrExecFailed)
	// Recent output may not be in the log yet.
	log, err := sb.Logs(soon(t), m.WithLogFollow())
	must(t, err)
	defer log.Close()
	for reached := false; !reached; {
		record, err := log.Next(soon(t))
		must(t, err)
		reached = record.Kind == m.LogFailed
	}

	var stdout, stderr bytes.Buffer
	names := ""
	for _, record := range allOf(t, sb, m.WithLogSession(id), m.WithLogSince(begun.Add(-time.Minute))) {
		equal(t, "session", record.SessionID, id)
		if record.Time.Before(begun.Add(-time.Minute)) || record.Time.After(time.Now().Add(time.Minute)) {
			t.Error(record.Time)
		}
		switch record.Kind {
		case m.LogStdout:
			stdout.Write(record.Data)
			continue
		case m.LogStderr:
			stderr.Write(record.Data)
			continue
		case m.LogStarted:
			if record.PID == 0 || len(record.Argv) < 3 || record.TTY {
				t.Errorf("%+v", record)
			}
		case m.LogExited:
			equal(t, "code", record.ExitCode, 3)
			equal(t, "code", record.Exit.Code, 3)
		}
		names += record.Kind.String() + " "
	}
	equal(t, "records", names, "started exited ")
	equal(t, "stdout", stdout.String(), "a\x00b\xff")
	equal(t, "stderr", stderr.String(), "err\n")

	all := allOf(t, sb)
	last := all[len(all)-1]
	equal(t, "last record", last.Kind, m.LogFailed)
	equal(t, "why", last.Failure.Kind, "not_found")
	equal(t, "of what", last.Argv[1], "of it")
	equal(t, "records since tomorrow", len(allOf(t, sb, m.WithLogSince(begun.Add(24*time.Hour)))), 0)
	equal(t, "records since the zero time", len(allOf(t, sb, m.WithLogSince(time.Time{}))), len(all))
}

func TestD6LogFollowEndsWithSandbox(t *testing.T) {
	sb := box(t, m.WithLog())
	log, err := sb.Logs(soon(t), m.WithLogFollow())
	must(t, err)
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	_, err = log.Next(ctx)
	same(t, "nothing yet", err, context.DeadlineExceeded)
	_, err = sb.Exec(soon(t), "echo", []string{"hi"})
	must(t, err)
	var got []byte
	for !bytes.Equal(got, []byte("hi\n")) {
		record, err := log.Next(soon(t))
		must(t, err)
		if record.Kind == m.LogStdout {
			got = append(got, record.Data...)
		}
	}
	must(t, sb.Kill(soon(t)))
	for err == nil {
		_, err = log.Next(soon(t))
	}
	same(t, "end", err, io.EOF)
	must(t, log.Close())
	_, err = log.Next(soon(t))
	kind(t, err, m.ErrClosed)
	// The log outlives the sandbox.
	if len(allOf(t, sb)) < 3 {
		t.Error(allOf(t, sb))
	}
}

func TestLogReaderWakesAndRejects(t *testing.T) {
	sb := box(t, m.WithLog())
	log, err := sb.Logs(soon(t), m.WithLogFollow())
	must(t, err)
	woken := make(chan error)
	go func() {
		_, err := log.Next(soon(t))
		for m.IsKind(err, m.ErrBusy) {
			_, err = log.Next(soon(t))
		}
		woken <- err
	}()
	until(t, "the other goroutine reads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err := log.Next(ctx)
		return m.IsKind(err, m.ErrBusy)
	})
	must(t, log.Close())
	kind(t, <-woken, m.ErrClosed)
	_, err = sb.Logs(soon(t), m.WithLogSession(""))
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.Logs(soon(t), m.WithLogSession("\x00"))
	kind(t, err, m.ErrInvalidArgument)
	_, err = box(t).Logs(soon(t))
	kind(t, err, m.ErrInvalidConfig)
}
