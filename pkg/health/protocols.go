package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"connectd/pkg/lb"
)

// protocols speaks every lb.CheckProtocol, one connection per probe.
type protocols struct {
	cas  caCache
	http *http.Transport // for grpc: HTTP/2 without TLS over connections made here
}

func newProtocols() *protocols { return &protocols{http: newH2Transport()} }

// exchange is one probe's connection.
type exchange struct {
	attempt
	conn net.Conn
}

// probe makes one connection from a's namespace and ends before ctx does, or
// right after.
//
// The connection is closed plainly. That leaves a TIME_WAIT behind where we
// close first, one local port towards that endpoint alone, for 60 s. A reset
// (SO_LINGER 0) would spare it, but servers log and count resets as errors.
func (p *protocols) probe(ctx context.Context, a attempt) outcome {
	conn, err := a.from.DialMarked(ctx, "tcp", a.addr.String())
	if err != nil {
		return dialFailure(ctx, a, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	x := &exchange{attempt: a, conn: conn}
	switch a.Protocol {
	case lb.CheckTCP:
		return outcome{resultSuccess, "connected"}
	case lb.CheckHTTP:
		return x.get(ctx, conn)
	case lb.CheckHTTPS:
		return x.getTLS(ctx, &p.cas)
	case lb.CheckGRPC:
		return x.grpc(ctx, p.http)
	}
	return outcome{resultLocal, fmt.Sprintf("unknown probe protocol %q", a.Protocol)}
}

// failure is the outcome of an error that was met while doing something
// ("reading response"), a timeout if it was one.
func (a *attempt) failure(ctx context.Context, r result, doing string, err error) outcome {
	if isTimeout(ctx, err) {
		return outcome{resultTimeout, fmt.Sprintf("timeout after %s %s", a.Timeout, doing)}
	}
	return outcome{r, short(doing + ": " + cause(err))}
}

func isTimeout(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// dialFailure tells an endpoint that cannot be connected to from a node that
// cannot make sockets.
func dialFailure(ctx context.Context, a attempt, err error) outcome {
	if isTimeout(ctx, err) {
		return a.failure(ctx, resultTimeout, "connecting", err)
	}
	var sys *os.SyscallError
	if !errors.As(err, &sys) || sys.Syscall != "connect" {
		return outcome{resultLocal, short(localReason(err))}
	}
	switch sys.Err {
	case syscall.EADDRNOTAVAIL, // no local port or address left
		syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EPERM, syscall.EACCES: // this node's firewall, routes or security module
		return outcome{resultLocal, short(sys.Error())}
	}
	return outcome{resultConnect, short(sys.Error())}
}

// localReason strips the address from a dial error: it is named beside it.
func localReason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return "make socket: " + op.Err.Error()
	}
	return err.Error()
}
