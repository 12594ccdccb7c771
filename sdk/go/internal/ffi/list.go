package ffi

// #include "abi.h"
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// SandboxEntry describes a sandbox. Numbers are the header's.
type SandboxEntry struct {
	State, Isolation, Reason, Flags, Jailed, MemoryMiB uint32
	CPUs                                               float64
	CreatedMs, StartedMs                               int64
	Name, Image, Driver, Detail                        string
	Labels, Command, MissingWalls                      []string
	Bounds                                             *Bounds
}

// The values of Jailed; 0 is unknown.
const (
	JailedYes = C.MSB_JAILED_YES
	JailedNo  = C.MSB_JAILED_NO
)

// Bounds are the resource limits of a sandbox; 0 means unlimited.
type Bounds struct {
	PIDs, MemoryBytes, DiskBytes uint64
	CPUs                         float64
}

// ExecEntry describes a session.
type ExecEntry struct {
	Flags, PID, Followers uint32
	AgeNs, OutputTotal    uint64
	ID                    string
	Argv                  []string
	Exit                  *Exit
}

// DriverEntry describes a driver.
type DriverEntry struct {
	Isolation       uint32
	Usable          bool
	Name, Why, Hint string
	Unbounded       []string
}

// WallEntry describes a wall of the jail.
type WallEntry struct {
	Name, Missing, Hint string
}

// HostEntries describe the capabilities of a host.
type HostEntries struct {
	Drivers []DriverEntry
	Walls   []WallEntry
}

// goText copies a C string; NULL is "".
func goText(text *C.char) string {
	if text == nil {
		return ""
	}
	return C.GoString(text)
}

func goTexts(texts **C.char, length C.size_t) (all []string) {
	for _, text := range unsafe.Slice(texts, int(length)) {
		all = append(all, C.GoString(text))
	}
	return all
}

// single returns the only entry of a list.
func single[T any](all []T) (T, error) {
	if len(all) != 1 {
		var none T
		return none, &Error{Status: Internal, Message: fmt.Sprintf("expected one entry, got %d", len(all))}
	}
	return all[0], nil
}

func sandboxEntries(list *C.msb_sandbox_entries) (all []SandboxEntry) {
	for _, entry := range unsafe.Slice(list.entries, int(list.len)) {
		all = append(all, SandboxEntry{
			State: uint32(entry.state), Isolation: uint32(entry.isolation),
			Reason: uint32(entry.reason), Flags: uint32(entry.flags),
			CPUs: float64(entry.cpus), MemoryMiB: uint32(entry.memory_mib),
			Jailed: uint32(entry.jailed), Bounds: bounds(entry.bounds),
			MissingWalls: goTexts(entry.missing_walls, entry.missing_walls_len),
			CreatedMs:    int64(entry.created_ms), StartedMs: int64(entry.started_ms),
			Name: goText(entry.name), Image: goText(entry.image),
			Driver: goText(entry.driver), Detail: goText(entry.detail),
			Labels:  goTexts(entry.labels, entry.labels_len),
			Command: goTexts(entry.command, entry.command_len),
		})
	}
	return all
}

func bounds(from *C.msb_bounds) *Bounds {
	if from == nil {
		return nil
	}
	return &Bounds{
		PIDs: uint64(from.pids), MemoryBytes: uint64(from.memory_bytes),
		DiskBytes: uint64(from.disk_bytes), CPUs: float64(from.cpus),
	}
}

// ListSandboxes returns all sandboxes.
func ListSandboxes() ([]SandboxEntry, error) {
	list, err := C.go_sandbox_entries(), C.go_error()
	if status := C.msb_sandbox_list(&list, &err); status < 0 {
		return nil, newError(&err)
	}
	defer C.msb_sandbox_entries_release(&list)
	return sandboxEntries(&list), nil
}

// Info returns the description of the sandbox.
func (s *Sandbox) Info() (SandboxEntry, error) {
	list, err := C.go_sandbox_entries(), C.go_error()
	status := C.msb_sandbox_info(s.raw, &list, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return SandboxEntry{}, newError(&err)
	}
	defer C.msb_sandbox_entries_release(&list)
	return single(sandboxEntries(&list))
}

// Sessions returns the sessions of the sandbox.
func (s *Sandbox) Sessions() ([]ExecEntry, error) {
	list, err := C.go_exec_entries(), C.go_error()
	status := C.msb_exec_list(s.raw, &list, &err)
	runtime.KeepAlive(s)
	if status < 0 {
		return nil, newError(&err)
	}
	defer C.msb_exec_entries_release(&list)
	all := []ExecEntry{}
	for _, entry := range unsafe.Slice(list.entries, int(list.len)) {
		all = append(all, ExecEntry{
			Flags: uint32(entry.flags), PID: uint32(entry.pid), Followers: uint32(entry.followers),
			AgeNs: uint64(entry.age_ns), OutputTotal: uint64(entry.output_total),
			ID: goText(entry.id), Argv: goTexts(entry.argv, entry.argv_len), Exit: exit(entry.exit),
		})
	}
	return all, nil
}

// Doctor probes each driver and each wall of the jail on this host.
func Doctor() (HostEntries, error) {
	drivers, walls, err := C.go_driver_entries(), C.go_wall_entries(), C.go_error()
	if status := C.msb_doctor(&drivers, &walls, &err); status < 0 {
		return HostEntries{}, newError(&err)
	}
	defer C.msb_driver_entries_release(&drivers)
	defer C.msb_wall_entries_release(&walls)
	all := HostEntries{}
	for _, entry := range unsafe.Slice(drivers.entries, int(drivers.len)) {
		all.Drivers = append(all.Drivers, DriverEntry{
			Isolation: uint32(entry.isolation), Usable: entry.usable != 0,
			Name: goText(entry.name), Why: goText(entry.why), Hint: goText(entry.hint),
			Unbounded: goTexts(entry.unbounded, entry.unbounded_len),
		})
	}
	for _, entry := range unsafe.Slice(walls.entries, int(walls.len)) {
		all.Walls = append(all.Walls, WallEntry{
			Name: goText(entry.name), Missing: goText(entry.missing), Hint: goText(entry.hint),
		})
	}
	return all, nil
}
