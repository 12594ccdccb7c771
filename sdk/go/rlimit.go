package microsandbox

import "math"

// RlimitResource is a resource that setrlimit(2) limits.
type RlimitResource uint32

// The resources, with Linux's numbers.
const (
	RlimitCPU RlimitResource = iota
	RlimitFsize
	RlimitData
	RlimitStack
	RlimitCore
	RlimitRSS
	RlimitNproc
	RlimitNofile
	RlimitMemlock
	RlimitAS
	RlimitLocks
	RlimitSigpending
	RlimitMsgqueue
	RlimitNice
	RlimitRtprio
	RlimitRttime
)

// RlimitInfinity is no limit.
const RlimitInfinity uint64 = math.MaxUint64

// Rlimit is a limit on a resource of a command.
type Rlimit struct {
	// Resource is the limited resource.
	Resource RlimitResource
	// Soft is the limit in force, Hard the maximum to which the command may raise it.
	Soft, Hard uint64
}
