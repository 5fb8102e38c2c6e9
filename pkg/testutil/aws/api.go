package aws

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/aws/smithy-go"
)

// maxBody bounds a request: CloudWatch takes 1 MB.
const maxBody = 1 << 20

// serveAPI answers a call of one of AWS's services.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	p, tree, err := parse(r, body)
	if err != nil {
		p.refuse(w, &smithy.GenericAPIError{Code: "SerializationException", Message: err.Error()})
		return
	}
	who, err := signer(r)
	if err != nil {
		p.refuse(w, err)
		return
	}
	out, err := s.cloud.As(who).call(r, p, tree)
	if err != nil {
		if !spoil(w, r, err) {
			p.refuse(w, err)
		}
		return
	}
	p.answer(w, http.StatusOK, unfill(reflect.ValueOf(out), p.small))
}

// readBody reads a body, unpacked.
func readBody(r *http.Request) ([]byte, error) {
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack body: %w", err)
		}
		in = z
	}
	body, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if len(body) > maxBody {
		return nil, errors.New("body exceeds 1 MB")
	}
	return body, nil
}

// signer reads who has signed a request; the signature is not checked.
func signer(r *http.Request) (Caller, error) {
	_, after, ok := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(after, "/")
	if !ok || key == "" {
		return Caller{}, &smithy.GenericAPIError{Code: "MissingAuthenticationTokenException", Message: "Missing Authentication Token"}
	}
	return callerOf(key), nil
}

// call makes the call that the method of the action's name stands for.
func (c *Client) call(r *http.Request, p protocol, tree any) (any, error) {
	services := map[string]any{ServiceCloudMap: c.CloudMap, ServiceECS: c.ECS, ServiceCloudWatch: c.CloudWatch}
	var method reflect.Value
	if service := services[p.service]; service != nil {
		method = reflect.ValueOf(service).MethodByName(p.action)
	}
	if !method.IsValid() {
		return nil, &smithy.GenericAPIError{Code: "UnknownOperationException", Message: "unknown operation " + p.action}
	}
	in := reflect.New(method.Type().In(1).Elem())
	if err := fill(in.Elem(), tree); err != nil {
		return nil, &smithy.GenericAPIError{Code: "SerializationException", Message: err.Error()}
	}
	result := method.Call([]reflect.Value{reflect.ValueOf(r.Context()), in})
	if err, _ := result[1].Interface().(error); err != nil {
		return nil, err
	}
	return result[0].Interface(), nil
}

// refuse answers with an error, as its protocol writes it.
func (p protocol) refuse(w http.ResponseWriter, err error) {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		api = &smithy.GenericAPIError{Code: "InternalFailure", Message: err.Error(), Fault: smithy.FaultServer}
	}
	code := api.ErrorCode()
	status := http.StatusBadRequest
	if strings.HasPrefix(code, "Internal") || api.ErrorFault() == smithy.FaultServer {
		status = http.StatusInternalServerError
	}
	fields := map[string]any{}
	if _, generic := api.(*smithy.GenericAPIError); !generic {
		// Errors of the services have fields of their own.
		fields = unfillStruct(reflect.ValueOf(api).Elem(), p.small)
		for _, name := range []string{"Message", "message", "ErrorCodeOverride", "errorCodeOverride"} {
			delete(fields, name)
		}
		if p.service == ServiceCloudWatch && !p.query {
			// The model's name goes into the body, the query protocol's
			// code into a header.
			w.Header().Set("X-Amzn-Query-Error", code+";Sender")
			code = reflect.TypeOf(api).Elem().Name()
		}
	}
	if p.query {
		code = queryCode(code)
	}
	fields["__type"], fields["message"] = code, api.ErrorMessage()
	p.answer(w, status, fields)
}

// queryCode is the query protocol's word for a code.
func queryCode(code string) string {
	switch code {
	case CodeExpired:
		return "ExpiredToken"
	case CodeUnrecognized:
		return "InvalidClientTokenId"
	case CodeAccessDenied:
		return "AccessDenied"
	}
	return code
}
