package microsandbox

// ExecOutput is the result of a command that ran to completion. An exit code other than 0 is not an
// error.
type ExecOutput struct {
	exit                     *ExecExit // nil if unknown
	stdout, stderr           []byte
	stdoutTotal, stderrTotal uint64
	writerLeft               bool
}

// Stdout returns standard output as a string, byte for byte; on a terminal, both outputs.
func (e *ExecOutput) Stdout() string { return string(e.stdout) }

// StdoutBytes returns standard output without copying it.
func (e *ExecOutput) StdoutBytes() []byte { return e.stdout }

// Stderr returns standard error as a string, byte for byte.
func (e *ExecOutput) Stderr() string { return string(e.stderr) }

// StderrBytes returns standard error without copying it.
func (e *ExecOutput) StderrBytes() []byte { return e.stderr }

// ExitCode returns the exit code, or -1 if there is none: a signal killed the command, or its exit
// is unknown.
func (e *ExecOutput) ExitCode() int {
	if e == nil || e.exit == nil {
		return -1
	}
	return e.exit.Code
}

// Success reports whether the command exited with code 0.
func (e *ExecOutput) Success() bool { return e.ExitCode() == 0 }

// Exit returns the exit status and resource usage. It is nil if unknown, which happens only in the
// Output of an Error.
func (e *ExecOutput) Exit() *ExecExit { return e.exit }

// Truncated reports whether WithExecMaxOutput truncated an output.
func (e *ExecOutput) Truncated() bool {
	return e.stdoutTotal > uint64(len(e.stdout)) || e.stderrTotal > uint64(len(e.stderr))
}

// StdoutTotal returns the number of bytes of standard output, truncated or not. It excludes what
// went to a writer or was received before.
func (e *ExecOutput) StdoutTotal() uint64 { return e.stdoutTotal }

// StderrTotal returns the number of bytes of standard error, truncated or not.
func (e *ExecOutput) StderrTotal() uint64 { return e.stderrTotal }

// WriterLeft reports whether a background process still had the output open when collecting ended.
func (e *ExecOutput) WriterLeft() bool { return e.writerLeft }
