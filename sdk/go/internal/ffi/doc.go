// Package ffi is all of the SDK that knows C: the calls of microsandbox.h as functions of Go.
//
// It copies what is lent and borrowed, so that nothing of C's memory leaves it but the bytes of the
// event that [Exec.Next] shows. Waiting is done by goroutines in Go's poller, on the descriptors of
// the handles; see [Ready].
package ffi
