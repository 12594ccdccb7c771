//go:build !cgo

package ffi

// The compiler's error shows this name if cgo is disabled.
var _ = the_microsandbox_SDK_needs_CGO_ENABLED_1_and_a_C_compiler
