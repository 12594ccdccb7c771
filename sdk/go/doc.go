// Package microsandbox runs commands in isolated sandboxes.
//
// A sandbox is a virtual machine or, if requested by name, a container. [CreateSandbox] creates
// one, [GetSandbox] finds an existing one. [Sandbox.Exec] and [Sandbox.Shell] run a command and
// collect its output; [Sandbox.ExecStream] and [Sandbox.ShellStream] return a handle that streams
// its events:
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
// A command that ran and exited with a code other than 0 is a result, not an error. A failure is an
// [*Error] with an [ErrorKind], which [IsKind] tests: the command did not start ([ErrExecFailed];
// errors.As finds the [*ExecFailure]), it timed out ([ErrExecTimeout], with the output so far), or
// its sandbox was lost ([ErrStreamLost]). errors.Is finds the matching errors of the standard
// library: os.ErrProcessDone, os.ErrClosed, os.ErrNotExist, os.ErrExist, os.ErrPermission,
// exec.ErrNotFound, syscall.EPIPE.
//
// # Contexts
//
// A call whose context is done returns the context's error at once and loses no data: the next call
// receives what this one did not. Cancelling [Sandbox.Exec] or [Sandbox.Shell] kills the command,
// since no handle to it is left; cancelling a call on an [ExecHandle] does not affect the command.
//
// # Goroutines and threads
//
// Everything is safe for concurrent use. A handle has one reader at a time (Recv, Wait, Collect and
// its pipes); a second reader gets [ErrBusy]. Receiving, waiting, writing and creating hold no
// thread, however many goroutines do so. Close wakes blocked calls with [ErrClosed]. It never ends
// a command or a sandbox, and neither does the garbage collector, which closes handles that were
// not closed.
//
// # Flow control
//
// A command blocks when about a mebibyte of its output was not received. No output is dropped.
//
// # Requirements
//
// 64-bit Linux, cgo, and libmicrosandbox with its header and its programs msb-runner and msb-agent,
// found by pkg-config. [EnsureInstalled] reports what is missing at run time. The build tag
// msb_static links the library into the program.
package microsandbox
