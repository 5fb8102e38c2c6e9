package cloudmap

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/smithy-go"
)

// fault is what an error of AWS means for what is done next.
type fault uint8

const (
	faultNone        fault = iota
	faultGone              // the namespace, service, instance or cluster that was named is not there
	faultTaken             // what is to be created is there already
	faultBusy              // another operation on the instance goes on
	faultFull              // a quota on resources is used up
	faultInvalid           // the request itself is wrong: the same again fails again
	faultThrottled         // too many calls
	faultDenied            // IAM does not allow it
	faultCredentials       // no credentials, or they have expired
	faultAway              // anything else: AWS, or the way to it, is broken
)

var faults = [...]string{"ok", "not_found", "exists", "busy", "full", "invalid", "throttled", "denied", "credentials", "error"}

// String is the outcome of a call in metrics.
func (f fault) String() string { return faults[f] }

// spreads says that the next call of the same API would most likely fail, too,
// whatever it is about.
func (f fault) spreads() bool { return f >= faultThrottled }

// codes are the error codes that Cloud Map, ECS and the front of both answer.
var codes = map[string]fault{
	"NamespaceNotFound": faultGone, "ServiceNotFound": faultGone, "InstanceNotFound": faultGone,
	"ResourceNotFoundException": faultGone, "ClusterNotFoundException": faultGone, "NamespaceNotFoundException": faultGone,
	"ServiceAlreadyExists": faultTaken, "NamespaceAlreadyExists": faultTaken,
	"DuplicateRequest": faultBusy, "ResourceInUse": faultBusy,
	"ResourceLimitExceeded": faultFull,
	"InvalidInput":          faultInvalid, "ValidationException": faultInvalid, "InvalidParameterException": faultInvalid, "ClientException": faultInvalid,
	"RequestLimitExceeded": faultThrottled, "ThrottlingException": faultThrottled, "Throttling": faultThrottled, "TooManyRequestsException": faultThrottled,
	"AccessDenied": faultDenied, "AccessDeniedException": faultDenied, "UnauthorizedOperation": faultDenied, "OptInRequired": faultDenied,
	"ExpiredToken": faultCredentials, "ExpiredTokenException": faultCredentials, "UnrecognizedClientException": faultCredentials,
	"InvalidClientTokenId": faultCredentials, "InvalidSignatureException": faultCredentials, "MissingAuthenticationTokenException": faultCredentials,
	"MissingAuthenticationToken": faultCredentials, "SignatureDoesNotMatch": faultCredentials, "IncompleteSignature": faultCredentials,
}

func faultOf(err error) fault {
	if err == nil {
		return faultNone
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if f, ok := codes[api.ErrorCode()]; ok {
			return f
		}
		if api.ErrorFault() == smithy.FaultClient {
			return faultInvalid
		}
		return faultAway
	}
	var signing *v4.SigningError
	if errors.As(err, &signing) {
		return faultCredentials
	}
	return faultAway
}

// describe says what an error of a call means to whoever has to mend it.
func describe(c call, f fault, err error) error {
	switch f {
	case faultNone:
		return nil
	case faultCredentials:
		return fmt.Errorf("call %s: the AWS credentials are missing, expired or not valid: %w", c, err)
	case faultDenied:
		return fmt.Errorf("call %s: the role may not, its policy must allow %s: %w", c, c, err)
	case faultThrottled:
		return fmt.Errorf("call %s: AWS throttles: %w", c, err)
	}
	return fmt.Errorf("call %s: %w", c, err)
}

// takenService returns id and ARN of the service whose name a CreateService
// found taken.
func takenService(err error) (id, arn string, ok bool) {
	var taken *sdtypes.ServiceAlreadyExists
	if !errors.As(err, &taken) || taken.ServiceId == nil {
		return "", "", false
	}
	return *taken.ServiceId, deref(taken.ServiceArn), true
}

func isNamespaceGone(err error) bool {
	var gone *sdtypes.NamespaceNotFound
	return errors.As(err, &gone)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
