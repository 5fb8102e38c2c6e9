package control

import (
	"errors"
	"fmt"
	"net/http"
)

// Errors returned by Listen and Client.
var (
	ErrInUse      = errors.New("another connectd answers on it")
	ErrNotRunning = errors.New("the daemon is not running")
)

// Code says in one word what is wrong with a request.
type Code string

const (
	CodeInvalid   Code = "invalid"   // the request makes no sense
	CodeNotFound  Code = "notFound"  // no such service, endpoint or task
	CodeAmbiguous Code = "ambiguous" // a bare name that several namespaces have
	CodeFailed    Code = "failed"    // it was tried and failed
)

var codeStatus = map[Code]int{
	CodeInvalid:   http.StatusBadRequest,
	CodeNotFound:  http.StatusNotFound,
	CodeAmbiguous: http.StatusConflict,
	CodeFailed:    http.StatusInternalServerError,
}

// Error is a request that the daemon refused or that failed there. A Backend
// function may return one to choose the code; any other error is CodeFailed.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// asError makes any error one for the wire.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{e.Code, err.Error()}
	}
	return &Error{CodeFailed, err.Error()}
}
