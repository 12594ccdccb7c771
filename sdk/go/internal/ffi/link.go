//go:build cgo && !msb_static

package ffi

/*
#cgo pkg-config: microsandbox
#cgo LDFLAGS: -ldl
*/
import "C"
