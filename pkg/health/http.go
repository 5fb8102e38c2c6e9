package health

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
)

// maxResponse is what is read of a response at most, in bytes. An answer with
// a longer head is malformed; with a longer body, its status alone counts.
const maxResponse = 64 << 10

const userAgent = "connectd/health"

// get asks for Path over conn, which is x.conn or TLS on it. A status of 200
// to 399 is well, redirects are not followed.
//
// The request is written by hand: http.Transport would cost two goroutines
// and hide which step took too long.
func (x *exchange) get(ctx context.Context, conn net.Conn) outcome {
	request := "GET " + x.Path + " HTTP/1.1\r\nHost: " + x.addr.String() +
		"\r\nUser-Agent: " + userAgent + "\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return x.failure(ctx, resultProtocol, "sending request", err)
	}
	limited := &io.LimitedReader{R: conn, N: maxResponse}
	response, err := readFinalResponse(bufio.NewReader(limited))
	if err != nil && limited.N <= 0 {
		return outcome{resultProtocol, "response head over 64 KiB"}
	}
	if err != nil {
		return x.failure(ctx, resultProtocol, "reading response", err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	said := "status " + strconv.Itoa(response.StatusCode)
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return outcome{resultStatus, said}
	}
	if err != nil && limited.N > 0 {
		return x.failure(ctx, resultProtocol, "reading response", err)
	}
	return outcome{resultSuccess, said}
}

// readFinalResponse skips interim responses such as 103.
func readFinalResponse(r *bufio.Reader) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(r, nil)
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
}
