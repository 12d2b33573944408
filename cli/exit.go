package cli

import (
	"errors"
	"fmt"

	"tandem/internal/daemon"
)

// The exit statuses of recctl; the first three are the daemons' too.
const (
	ExitDone      = daemon.ExitOK
	ExitFailed    = daemon.ExitFailed
	ExitUsage     = daemon.ExitUsage
	ExitUnreached = 3 // reached nothing
	ExitRefused   = 4 // a guard said no
	ExitFound     = 5 // a check found something
)

// exitError is an error that knows the exit status it ends recctl with. With
// a nil err all has been said already.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func exit(status int, format string, args ...any) error {
	return &exitError{status, fmt.Errorf(format, args...)}
}

// usage is the error of a command given wrongly.
func usage(format string, args ...any) error { return exit(ExitUsage, format, args...) }

// failed is the error of an operation that was tried.
func failed(format string, args ...any) error { return exit(ExitFailed, format, args...) }

// errFound ends a check that has already printed what it found.
var errFound = &exitError{status: ExitFound}

// statusOf is the exit status that err stands for.
func statusOf(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &e):
		return e.status
	}
	return ExitFailed
}
