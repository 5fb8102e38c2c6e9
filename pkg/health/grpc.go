package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// grpcPath is the one method of the gRPC health checking protocol used here.
const grpcPath = "/grpc.health.v1.Health/Check"

// maxGRPCResponse bounds a response in bytes; a regular one has 7.
const maxGRPCResponse = 4 << 10

// connKey is the context key of the connection newH2Transport is to use.
type connKey struct{}

// newH2Transport returns a Transport for NewClientConn: HTTP/2 without TLS
// over the connection that the context carries.
func newH2Transport() *http.Transport {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols:              &h2c,
		MaxResponseHeaderBytes: maxResponse,
		DisableCompression:     true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(connKey{}).(net.Conn), nil
		},
	}
}

// grpc asks grpc.health.v1.Health/Check for GRPCService. SERVING is well.
func (x *exchange) grpc(ctx context.Context, transport *http.Transport) outcome {
	client, err := transport.NewClientConn(context.WithValue(ctx, connKey{}, x.conn), "http", x.addr.String())
	if err != nil {
		return x.failure(ctx, resultProtocol, "starting HTTP/2", err)
	}
	defer client.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+x.addr.String()+grpcPath,
		bytes.NewReader(checkRequest(x.GRPCService)))
	if err != nil {
		return outcome{resultLocal, short(err.Error())}
	}
	request.Header = http.Header{
		"Content-Type": {"application/grpc"},
		"Te":           {"trailers"},
		"User-Agent":   {userAgent},
	}
	response, err := client.RoundTrip(request)
	if err != nil {
		return x.failure(ctx, resultProtocol, "reading response", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return outcome{resultStatus, "status " + strconv.Itoa(response.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxGRPCResponse))
	if err != nil {
		return x.failure(ctx, resultProtocol, "reading response", err)
	}
	return grpcOutcome(response, body)
}

// grpcOutcome judges a complete response. Without a message the status is in
// the head ("trailers-only"), else in the trailers.
func grpcOutcome(response *http.Response, body []byte) outcome {
	code := response.Trailer.Get("Grpc-Status")
	if code == "" {
		code = response.Header.Get("Grpc-Status")
	}
	if code == "" {
		return outcome{resultProtocol, "response without a grpc-status"}
	}
	if code != "0" {
		return outcome{resultStatus, short("grpc " + codeName(code))}
	}
	status, err := servingStatus(body)
	if err != nil {
		return outcome{resultProtocol, "grpc: " + err.Error()}
	}
	if status != servingStatusServing {
		return outcome{resultStatus, "grpc " + servingStatusName(status)}
	}
	return outcome{resultSuccess, "grpc SERVING"}
}

// checkRequest is a HealthCheckRequest{service = 1} behind the five bytes of
// a gRPC message: not compressed, length.
func checkRequest(service string) []byte {
	message := make([]byte, 5, 5+2*binary.MaxVarintLen32+len(service))
	if service != "" {
		message = protowire.AppendTag(message, 1, protowire.BytesType)
		message = protowire.AppendString(message, service)
	}
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-5))
	return message
}

// servingStatus decodes HealthCheckResponse{ServingStatus status = 1}.
func servingStatus(body []byte) (uint64, error) {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return 0, errors.New("malformed message")
	}
	var status uint64
	for b := body[5:]; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, errors.New("malformed message")
		}
		b = b[n:]
		if field == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(b)
		} else {
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return 0, errors.New("malformed message")
		}
		b = b[n:]
	}
	return status, nil
}

// servingStatusServing is HealthCheckResponse.SERVING.
const servingStatusServing = 1

func servingStatusName(status uint64) string {
	switch status {
	case 0:
		return "UNKNOWN"
	case servingStatusServing:
		return "SERVING"
	case 2:
		return "NOT_SERVING"
	case 3:
		return "SERVICE_UNKNOWN"
	}
	return fmt.Sprintf("status %d", status)
}

// grpcCodes are the names of google.rpc.Code by number.
var grpcCodes = strings.Fields(`OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND
	ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE
	UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED`)

func codeName(code string) string {
	if n, err := strconv.Atoi(code); err == nil && n >= 0 && n < len(grpcCodes) {
		return grpcCodes[n]
	}
	return "code " + code
}
