package microsandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	m "github.com/superradcompany/microsandbox/sdk/go"
)

// terminal is a pseudo-terminal with a child process of this test program on the other side.
type terminal struct {
	t      *testing.T
	master *os.File
	child  *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
}

func ioctl(t *testing.T, fd uintptr, request uintptr, at unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(at)); errno != 0 {
		t.Fatal(errno)
	}
}

// onTerminal runs one of attachChildren on a new terminal, in the named sandbox.
func onTerminal(t *testing.T, what, sandbox string) *terminal {
	t.Helper()
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	must(t, err)
	var number, unlocked uint32
	ioctl(t, uintptr(fd), syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	ioctl(t, uintptr(fd), syscall.TIOCGPTN, unsafe.Pointer(&number))
	term := &terminal{t: t, master: os.NewFile(uintptr(fd), "ptmx")}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	term.child = exec.Command(os.Args[0], "-test.run=^TestAttachChild$")
	term.child.Env = append(os.Environ(), "MSB_TEST_ATTACH="+what, "MSB_TEST_SANDBOX="+sandbox)
	term.child.Stdin, term.child.Stdout, term.child.Stderr = slave, slave, slave
	term.child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, term.child.Start())
	must(t, slave.Close())
	go func() {
		part := make([]byte, 4096)
		for {
			n, err := term.master.Read(part)
			term.mu.Lock()
			term.seen.Write(part[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = term.master.Close() })
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.seen.String()
}

// shows waits until the terminal shows a text.
func (term *terminal) shows(text string) {
	term.t.Helper()
	for deadline := time.Now().Add(scaled(30 * time.Second)); !strings.Contains(term.text(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			_ = term.child.Process.Kill()
			term.t.Fatalf("%q is not in %q", text, term.text())
		}
	}
}

func (term *terminal) types(keys string) {
	term.t.Helper()
	_, err := term.master.Write([]byte(keys))
	must(term.t, err)
}

func (term *terminal) ends() {
	term.t.Helper()
	if err := term.child.Wait(); err != nil {
		term.t.Fatalf("%v: %q", err, term.text())
	}
}

var attachChildren = map[string]func(context.Context, *m.Sandbox) error{
	"guide": guideAttach,
	"options": func(ctx context.Context, sb *m.Sandbox) error {
		code, err := sb.AttachWith(ctx, "sh", m.WithAttachArgs("-c", `pwd; echo $A; ulimit -n; id -u; cat`),
			m.WithAttachEnv(map[string]string{"A": "given"}), m.WithAttachCwd("/etc"),
			m.WithAttachUser("1000"), m.WithAttachRlimit(m.RlimitNofile, 64),
			m.WithDetachKeys("ctrl-q"))
		fmt.Println("detached with", code)
		if err != nil {
			return err
		}
		sessions, err := sb.Sessions(ctx)
		if err != nil {
			return err
		}
		for _, session := range sessions {
			if session.Running() && session.TTY {
				code, err := sb.AttachSession(ctx, session.ID, m.WithDetachKeys("q"))
				fmt.Println("detached again with", code)
				return err
			}
		}
		return errors.New("the session is gone")
	},
	"cancel": func(ctx context.Context, sb *m.Sandbox) error {
		before := raw()
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			for raw() == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		code, err := sb.Attach(ctx, "sleep", "600")
		if code != -1 || err != context.Canceled || raw() != before {
			return fmt.Errorf("%d, %v, settings %x and %x", code, err, before, raw())
		}
		fmt.Println("cancelled")
		return nil
	},
	"background": func(_ context.Context, sb *m.Sandbox) error {
		code, err := sb.Attach(context.Background(), "sh", "-c", "exit 9")
		fmt.Println("exited with", code)
		return err
	},
}

// raw returns the terminal's local flags, which include raw mode.
func raw() uint32 {
	var settings syscall.Termios
	syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TCGETS, uintptr(unsafe.Pointer(&settings)))
	return settings.Lflag
}

// TestAttachChild is the child process of the other tests; on its own it does nothing.
func TestAttachChild(t *testing.T) {
	child := attachChildren[os.Getenv("MSB_TEST_ATTACH")]
	if child == nil {
		t.Skip("the other tests run this test on a terminal")
	}
	sb, err := m.GetSandbox(soon(t), os.Getenv("MSB_TEST_SANDBOX"))
	must(t, err)
	must(t, child(soon(t), sb))
	must(t, sb.Close())
}

func TestH1AttachRunsOnTheTerminal(t *testing.T) {
	sb := pagesBox(t)
	term := onTerminal(t, "guide", sb.Name())
	term.shows("/ # ")
	term.types("tty && echo in $((40 + 2)); exit 5\r")
	term.shows("in 42")
	term.shows("shell exited with 5")
	term.types("print('hello')\r")
	term.shows("\nhello")
	term.types("exit()\r")
	term.shows("python exited with 0")
	term.ends()
	term = onTerminal(t, "background", sb.Name())
	term.shows("exited with 9")
	term.ends()
}

func TestH2DetachAndReattach(t *testing.T) {
	sb := pagesBox(t)
	term := onTerminal(t, "options", sb.Name())
	term.shows("/etc\r\ngiven\r\n64\r\n1000\r\n")
	term.types("\x11") // ctrl-q
	term.shows("detached with -1")
	term.types("x\r")
	term.shows("x\r\nx\r\n")
	term.types("q")
	term.shows("detached again with -1")
	term.ends()
}

func TestAttachIsCancelledByContext(t *testing.T) {
	term := onTerminal(t, "cancel", box(t).Name())
	term.shows("cancelled")
	term.ends()
}

func TestAttachRejectsInvalidCalls(t *testing.T) {
	sb := box(t)
	_, err := sb.AttachShell(soon(t))
	kind(t, err, m.ErrNotATerminal)
	_, err = sb.Attach(context.Background(), "sh")
	kind(t, err, m.ErrNotATerminal)
	_, err = sb.Attach(soon(t), "sh\x00")
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.AttachWith(soon(t), "sh", m.WithDetachKeys(""))
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.AttachWith(soon(t), "sh", m.WithAttachTimeout(0))
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.AttachSession(soon(t), "")
	kind(t, err, m.ErrInvalidArgument)
	_, err = sb.AttachSession(soon(t), "\x00")
	kind(t, err, m.ErrInvalidArgument)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = sb.AttachShell(ctx)
	same(t, "done context", err, context.Canceled)
}
