// Package ffi wraps the calls of microsandbox.h as Go functions. It is the only package that uses
// C.
//
// It copies lent and borrowed data, so that no C memory leaves it except the bytes of the event
// that [Exec.Next] returns. Goroutines wait in Go's poller on the descriptors of the handles; see
// [Ready].
package ffi
