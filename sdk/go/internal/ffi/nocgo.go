//go:build !cgo

package ffi

// The compiler shows this name where cgo is off.
var _ = the_microsandbox_SDK_needs_CGO_ENABLED_1_and_a_C_compiler
