package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// problem tells what is not as expected, or nothing.
func problem(c *testCase, o *outcome, own string) string {
	expect, problems := &c.Expect, []string{}
	wrong := func(format string, values ...any) {
		problems = append(problems, fmt.Sprintf(format, values...))
	}
	if !endsAs(expect, o, own) {
		wrong("expected %+v, got %v, %v, closed %v", *expect, o.err, o.ending, o.closed)
	}
	if o.output != nil && !expect.Closed {
		for i, said := range []any{expect.Stdout, expect.Stderr} {
			if problem := mismatch(said, o.output[i], own); problem != "" {
				wrong("%s: %s", []string{"stdout", "stderr"}[i], problem)
			}
		}
	}
	if o.totals != nil && o.exit != nil {
		for i, said := range []*uint64{expect.StdoutTotal, expect.StderrTotal} {
			if said != nil && *said != o.totals[i] {
				wrong("total: expected %d, got %d", *said, o.totals[i])
			}
		}
		if o.truncated != expect.Truncated {
			wrong("truncated: %v", o.truncated)
		}
	}
	if o.writerLeft != nil && o.exit != nil && *o.writerLeft != expect.WriterLeft {
		wrong("writer_left: %v", *o.writerLeft)
	}
	if o.events != nil {
		wanted, _ := integer(expect.StdinErrors)
		most := wanted
		if expect.StdinErrors == "at_most_one" {
			most = 1
		}
		if n := int64(o.stdinErrs); n < wanted || n > most {
			wrong("stdin_errors: expected %v, got %d", expect.StdinErrors, n)
		}
		if got := strings.Join(o.events, " "); expect.Events != nil &&
			strings.Join(expect.Events, " ") != got {
			wrong("events: expected %v, got %s", expect.Events, got)
		}
		if !wellFormed(o.events) {
			wrong("events are out of form: %v", o.events)
		}
	}
	if o.took < time.Duration(expect.AtLeastMs)*time.Millisecond {
		wrong("expected at least %d ms, took %v", expect.AtLeastMs, o.took)
	}
	if expect.WithinMs != nil && o.took.Seconds() > float64(*expect.WithinMs)/1000*scale {
		wrong("expected at most %d ms, took %v", *expect.WithinMs, o.took)
	}
	return strings.Join(problems, "; ")
}

func endsAs(expect *expectation, o *outcome, own string) bool {
	var failed *failure
	switch {
	case expect.Closed || o.closed:
		return expect.Closed && o.closed
	case expect.Error != nil || o.err != nil:
		return expect.Error != nil && errors.As(o.err, &failed) && failed.kind == *expect.Error
	case expect.Failure != nil || o.failure != nil:
		wanted, got := expect.Failure, o.failure
		return wanted != nil && got != nil &&
			got.kind == wanted.Kind && got.stage == wanted.Stage &&
			got.errnoName == wanted.ErrnoName && (got.errno == 0) == (wanted.ErrnoName == "") &&
			(wanted.Path == nil || got.path == string(value(wanted.Path, own))) &&
			got.message != "" && !strings.Contains(got.message, "\n")
	}
	return o.exit != nil && exitsAs(expect, o.exit)
}

func exitsAs(expect *expectation, got *exitStatus) bool {
	code, signal := 0, 0
	if expect.Signal != nil {
		signal = *expect.Signal
	} else if expect.TimedOut && expect.Code == nil {
		signal = 9
	}
	if signal != 0 {
		code = -1
	}
	if expect.Code != nil {
		code = *expect.Code
	}
	usage := expect.Usage
	return got.code == code && got.signal == signal && got.timedOut == expect.TimedOut &&
		(expect.Core == nil || *expect.Core == got.core) &&
		got.cpu.Milliseconds() >= usage.CPUMsMin && got.wall.Milliseconds() >= usage.WallMsMin &&
		got.maxRSS >= usage.RSSMin
}

// wellFormed is B1: started once and first, one ending, then the end and nothing more.
func wellFormed(events []string) bool {
	count, at := map[string]int{}, map[string]int{}
	for i, event := range events {
		count[event]++
		at[event] = i
	}
	last := len(events) - 1
	if count["exited"]+count["failed"]+count["lost"] != 1 || count["end"] != 1 || at["end"] != last {
		return false
	}
	if count["failed"] == 1 {
		return len(events) == 2
	}
	if count["lost"] == 1 {
		return at["lost"] == last-1
	}
	late := count["stdin_error"] > 0 && at["stdin_error"] > at["exited"]
	return events[0] == "started" && count["started"] == 1 && !late
}
