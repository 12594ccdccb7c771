package microsandbox

// ExecOutput is the result of a command that ran to its end. An exit code other than 0 is no error.
type ExecOutput struct {
	exit                     *ExecExit // nil when it is not known
	stdout, stderr           []byte
	stdoutTotal, stderrTotal uint64
	writerLeft               bool
}

// Stdout gives standard output as a string, byte for byte; with a terminal, both outputs.
func (e *ExecOutput) Stdout() string { return string(e.stdout) }

// StdoutBytes gives standard output as it is. The slice is not copied.
func (e *ExecOutput) StdoutBytes() []byte { return e.stdout }

// Stderr gives standard error as a string, byte for byte.
func (e *ExecOutput) Stderr() string { return string(e.stderr) }

// StderrBytes gives standard error as it is. The slice is not copied.
func (e *ExecOutput) StderrBytes() []byte { return e.stderr }

// ExitCode gives the exit code, or -1 if there is none: a signal killed the command, or how it ended
// is not known.
func (e *ExecOutput) ExitCode() int {
	if e == nil || e.exit == nil {
		return -1
	}
	return e.exit.Code
}

// Success reports whether the command exited with code 0.
func (e *ExecOutput) Success() bool { return e.ExitCode() == 0 }

// Exit tells how the command ended and what it used. It is nil when that is not known: only in the
// Output of an Error.
func (e *ExecOutput) Exit() *ExecExit { return e.exit }

// Truncated reports whether WithExecMaxOutput cut something off.
func (e *ExecOutput) Truncated() bool {
	return e.stdoutTotal > uint64(len(e.stdout)) || e.stderrTotal > uint64(len(e.stderr))
}

// StdoutTotal is how many bytes came from standard output, cut off or not. What went to a writer or
// was received before does not count.
func (e *ExecOutput) StdoutTotal() uint64 { return e.stdoutTotal }

// StderrTotal is how many bytes came from standard error, cut off or not.
func (e *ExecOutput) StderrTotal() uint64 { return e.stderrTotal }

// WriterLeft reports whether some other process still had the output open when collecting ended.
func (e *ExecOutput) WriterLeft() bool { return e.writerLeft }
