package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestMain is the program itself when the test starts it again.
func TestMain(m *testing.M) {
	if os.Getenv("GO_SMOKE_ROOTFS") == "" {
		os.Exit(m.Run())
	}
	os.Args = []string{"gosmoke", os.Getenv("GO_SMOKE_ROOTFS")}
	main()
}

func TestOneCommandIsFollowedToItsExit(t *testing.T) {
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), "GO_SMOKE_ROOTFS="+os.Getenv("MSB_TEST_ROOTFS"))
	program.Stderr = os.Stderr
	output, err := program.Output()
	if err != nil || string(output) != "1\n2\n3\nexited 7\n" {
		t.Fatalf("%q, %v", output, err)
	}
}
