//go:build cgo && msb_static

package ffi

// No pkg-config, because it would also name the shared library. CGO_CFLAGS and CGO_LDFLAGS add
// directories to those that the compiler searches.

/*
#cgo LDFLAGS: -l:libmicrosandbox.a -lutil -lrt -lpthread -lm -ldl
*/
import "C"
