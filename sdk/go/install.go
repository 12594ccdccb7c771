package microsandbox

import (
	"context"
	"fmt"

	"github.com/superradcompany/microsandbox/sdk/go/internal/ffi"
)

// EnsureInstalled checks that the loaded library matches this SDK and finds its programs:
// msb-runner (or MSB_RUNNER) and msb-agent (or MSB_AGENT). A missing part is an error of kind
// ErrNotInstalled that names what was searched for and where. Doctor reports drivers. It downloads
// and changes nothing.
func EnsureInstalled(ctx context.Context) error {
	header, library, version, path := ffi.Versions()
	if header != library {
		return &Error{Kind: ErrNotInstalled, Message: fmt.Sprintf(
			"the library %s (%s) has ABI version %d, and this SDK was built for %d",
			path, version, library, header)}
	}
	// The library looks for its programs before it looks for a sandbox.
	sb, err := GetSandbox(ctx, "ensure-installed")
	if err == nil {
		return sb.Close()
	}
	if IsKind(err, ErrSandboxNotFound) || ctx.Err() != nil {
		return ctx.Err()
	}
	message := err.Error()
	if e, is := err.(*Error); is {
		message = e.Message
	}
	return &Error{Kind: ErrNotInstalled,
		Message: fmt.Sprintf("the library %s (%s): %s", path, version, message)}
}

// Version returns the version of the loaded library: "0.1.0".
func Version() string {
	_, _, version, _ := ffi.Versions()
	return version
}
