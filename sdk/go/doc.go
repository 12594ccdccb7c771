// Package microsandbox runs commands in isolated sandboxes.
//
// A sandbox is a virtual machine or, if asked for by name, a container. [CreateSandbox] makes one,
// [GetSandbox] finds one that is there. Commands run in it by [Sandbox.Exec] and [Sandbox.Shell],
// which collect the output, or by [Sandbox.ExecStream] and [Sandbox.ShellStream], which give a handle
// to follow the command with:
//
//	sb, err := m.CreateSandbox(ctx, "worker", m.WithImage("./rootfs"))
//	if err != nil {
//		return err
//	}
//	defer sb.Close()
//	out, err := sb.Exec(ctx, "python3", []string{"-c", "print(1 + 1)"})
//	if err != nil {
//		return err // transport / timeout / spawn failure
//	}
//	fmt.Print(out.Stdout(), out.ExitCode())
//
// # Results and errors
//
// As in os/exec's conventions, a command that ran and exited with something other than 0 is a
// result, not an error. What is an error is an [*Error] with an [ErrorKind], which [IsKind] asks for:
// the command never started ([ErrExecFailed], and errors.As finds the [*ExecFailure]), its time ran
// out ([ErrExecTimeout], with the output so far), or its sandbox went away ([ErrStreamLost]). The
// errors of the standard library that fit are found by errors.Is: os.ErrProcessDone, os.ErrClosed,
// os.ErrNotExist, os.ErrExist, os.ErrPermission, exec.ErrNotFound, syscall.EPIPE.
//
// # Contexts
//
// A call whose context is over returns its error at once and loses nothing: what was not received
// is there for the next call. Giving up [Sandbox.Exec] or [Sandbox.Shell] kills the command, since
// nobody could reach it any more; giving up a call on an [ExecHandle] leaves the command alone.
//
// # Goroutines and threads
//
// Everything may be used by several goroutines at once. One at a time reads a handle (Recv, Wait,
// Collect and the readers of its pipes); a second one is told [ErrBusy]. Receiving, waiting, writing
// and creating hold no thread, however many goroutines do so. Close wakes who waits, with
// [ErrClosed]. It never ends a command or a sandbox, and neither does the garbage collector, which
// closes what was forgotten.
//
// # Flow
//
// Output waits for whoever reads it: a command stands still when about a mebibyte was not received.
// Nothing is dropped.
//
// # What it needs
//
// 64-bit Linux, cgo, the library libmicrosandbox with its header and its programs msb-runner and
// msb-agent, found by pkg-config. [EnsureInstalled] says what is missing at run time. With the build
// tag msb_static the library becomes part of the program.
package microsandbox
