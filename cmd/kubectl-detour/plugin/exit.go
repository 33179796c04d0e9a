package plugin

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Exit codes, as the help has them.
const (
	exitDone       = 0
	exitError      = 1
	exitUsage      = 2
	exitNotFound   = 3
	exitTimeout    = 4
	exitUnroutable = 5
	exitFindings   = 6
)

// failure is an error with an exit code of its own.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

func usageError(format string, args ...any) error { return fail(exitUsage, format, args...) }
func notFound(format string, args ...any) error   { return fail(exitNotFound, format, args...) }

func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &f):
		return f.code
	case apierrors.IsNotFound(err):
		return exitNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitError
}
