package ecsapi

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/aws/smithy-go"
)

// The reasons of an Error.
const (
	ReasonDenied      = "access_denied" // the role lacks the action
	ReasonExpired     = "expired_credentials"
	ReasonCredentials = "no_credentials"
	ReasonThrottled   = "throttled" // by the quota that the whole account shares
	ReasonMissing     = "not_found" // AWS knows nothing of what was asked for
	ReasonUnreachable = "unreachable"
	ReasonOther       = "other"
)

// Error is a call to AWS that failed.
type Error struct {
	Action string // as IAM names it: ecs:DescribeTasks
	Reason string // one of the constants
	err    error
}

func (e *Error) Error() string {
	switch e.Reason {
	case ReasonDenied:
		return fmt.Sprintf("call %s: access denied: the role in use must allow %[1]s: %v", e.Action, e.err)
	case ReasonExpired:
		return fmt.Sprintf("call %s: credentials have expired and were not renewed: %v", e.Action, e.err)
	case ReasonCredentials:
		return fmt.Sprintf("call %s: find credentials: %v", e.Action, e.err)
	}
	return fmt.Sprintf("call %s: %v", e.Action, e.err)
}

func (e *Error) Unwrap() error { return e.err }

// explain finds out why a call failed.
func explain(action string, err error) *Error {
	reason := ReasonOther
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	api, isAPI := errors.AsType[smithy.APIError](err)
	_, isNet := errors.AsType[net.Error](err)
	switch {
	case isAPI:
		reason = reasonOf(api.ErrorCode())
		err = errors.New(api.ErrorCode() + ": " + api.ErrorMessage())
	case isNet, errors.Is(err, context.DeadlineExceeded):
		reason = ReasonUnreachable
	}
	return &Error{Action: action, Reason: reason, err: err}
}

func reasonOf(code string) string {
	switch code {
	case "AccessDeniedException", "AccessDenied", "UnauthorizedOperation":
		return ReasonDenied
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired":
		return ReasonExpired
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationTokenException":
		return ReasonCredentials
	case "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException":
		return ReasonThrottled
	case "ClusterNotFoundException", "NamespaceNotFound", "TargetNotFoundException", "ClientException":
		// DescribeTaskDefinition has ClientException for an unknown one.
		return ReasonMissing
	}
	return ReasonOther
}

// missing is the answer that what was asked for does not exist.
func missing(action, what string) *Error {
	return &Error{Action: action, Reason: ReasonMissing, err: fmt.Errorf("%s is not found", what)}
}
