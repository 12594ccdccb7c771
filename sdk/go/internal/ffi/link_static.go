//go:build cgo && msb_static

package ffi

// pkg-config would name the shared library too. The compiler looks in its own directories; others
// come by CGO_CFLAGS and CGO_LDFLAGS.

/*
#cgo LDFLAGS: -l:libmicrosandbox.a -lutil -lrt -lpthread -lm -ldl
*/
import "C"
