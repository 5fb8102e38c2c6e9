package h2

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// service is a gRPC server of the interop tests' service.
type service struct {
	testgrpc.UnimplementedTestServiceServer
	calls    atomic.Int32
	failures atomic.Int32  // how many calls are answered UNAVAILABLE first
	canceled chan struct{} // gets one for every call that waited and was canceled
}

func (s *service) UnaryCall(ctx context.Context, r *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	s.calls.Add(1)
	if s.failures.Add(-1) >= 0 {
		return nil, status.Error(codes.Unavailable, "try somewhere else")
	}
	if e := r.GetResponseStatus(); e != nil {
		return nil, status.Error(codes.Code(e.Code), e.Message)
	}
	grpc.SetTrailer(ctx, metadata.Pairs("x-sum", "42"))
	return &testgrpc.SimpleResponse{Payload: r.Payload}, nil
}

func (s *service) EmptyCall(ctx context.Context, _ *testgrpc.Empty) (*testgrpc.Empty, error) {
	<-ctx.Done()
	s.canceled <- struct{}{}
	return nil, ctx.Err()
}

func (s *service) StreamingOutputCall(r *testgrpc.StreamingOutputCallRequest, out testgrpc.TestService_StreamingOutputCallServer) error {
	for _, p := range r.ResponseParameters {
		if err := out.Send(&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) StreamingInputCall(in testgrpc.TestService_StreamingInputCallServer) error {
	sum := 0
	for {
		r, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
	}
}

func (s *service) FullDuplexCall(d testgrpc.TestService_FullDuplexCallServer) error {
	for {
		r, err := d.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := d.Send(&testgrpc.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

func grpcEndpoint(t testing.TB) (*service, *grpc.Server, string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{canceled: make(chan struct{}, 10)}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	testgrpc.RegisterTestServiceServer(g, s)
	go g.Serve(ln)
	t.Cleanup(g.Stop)
	return s, g, ln.Addr().String()
}

func grpcClient(t testing.TB, addr string) testgrpc.TestServiceClient {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return testgrpc.NewTestServiceClient(cc)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func payload(n int) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, n)} }

// TestGRPCUnary: calls with trailers, results and sizes.
func TestGRPCUnary(t *testing.T) {
	_, _, to := grpcEndpoint(t)
	c, addr := newCarrier(t, 1, to)
	client, ctx := grpcClient(t, addr), testContext(t)
	for _, size := range []int{0, 100, 70_000, 3 << 20} {
		var trailer metadata.MD
		r, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: payload(size)}, grpc.Trailer(&trailer))
		if err != nil || len(r.Payload.Body) != size || len(trailer["x-sum"]) != 1 {
			t.Errorf("%d bytes: %v, trailers %v", size, err, trailer)
		}
		if got := <-c.done; got.GRPCStatus != 0 || !got.HasDeadline || got.Status != 200 {
			t.Errorf("the exchange ended as %+v", got)
		}
	}
	_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 5, Message: "none"}})
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if got := <-c.done; got.GRPCStatus != 5 {
		t.Errorf("the exchange ended as %+v", got)
	}
}

// TestGRPCUnavailable: in trailers alone it leads to another try, and after
// the last it is what the client sees.
func TestGRPCUnavailable(t *testing.T) {
	s, _, to := grpcEndpoint(t)
	c, addr := newCarrier(t, 3, to)
	client, ctx := grpcClient(t, addr), testContext(t)
	s.failures.Store(2)
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: payload(10)}); err != nil {
		t.Error(err)
	}
	if got := <-c.done; got.Tries != 3 || got.GRPCStatus != 0 {
		t.Errorf("the exchange ended as %+v", got)
	}
	s.failures.Store(3)
	_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{})
	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "try somewhere else" {
		t.Error(err)
	}
	if got := <-c.done; got.Tries != 3 || got.GRPCStatus != 14 {
		t.Errorf("the exchange ended as %+v", got)
	}
	if n := s.calls.Load(); n != 6 {
		t.Errorf("%d calls came", n)
	}
}

// TestGRPCStreams: all three kinds, with more than windows hold.
func TestGRPCStreams(t *testing.T) {
	_, _, to := grpcEndpoint(t)
	_, addr := newCarrier(t, 1, to)
	client, ctx := grpcClient(t, addr), testContext(t)
	const n, size = 100, 20_000

	in, err := client.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := in.Send(&testgrpc.StreamingInputCallRequest{Payload: payload(size)}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := in.CloseAndRecv(); err != nil || r.AggregatedPayloadSize != n*size {
		t.Errorf("client's stream: %v %v", r, err)
	}

	params := make([]*testgrpc.ResponseParameters, n)
	for i := range params {
		params[i] = &testgrpc.ResponseParameters{Size: size}
	}
	out, err := client.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{ResponseParameters: params})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for {
		if _, err := out.Recv(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got++
	}
	if got != n {
		t.Errorf("server's stream: %d messages", got)
	}

	duplex, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := duplex.Send(&testgrpc.StreamingOutputCallRequest{Payload: payload(i)}); err != nil {
			t.Fatal(err)
		}
		if r, err := duplex.Recv(); err != nil || len(r.Payload.Body) != i {
			t.Fatal(err)
		}
	}
	duplex.CloseSend()
	if _, err := duplex.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// TestGRPCFull: both directions full at once, then read: no window is lost.
func TestGRPCFull(t *testing.T) {
	_, _, to := grpcEndpoint(t)
	_, addr := newCarrier(t, 1, to)
	client, ctx := grpcClient(t, addr), testContext(t)
	const streams, n, size = 4, 60, 50_000
	var wait sync.WaitGroup
	for range streams {
		duplex, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for range n {
				if err := duplex.Send(&testgrpc.StreamingOutputCallRequest{Payload: payload(size)}); err != nil {
					t.Error(err)
					return
				}
			}
			duplex.CloseSend()
		})
		wait.Go(func() {
			for range n {
				if r, err := duplex.Recv(); err != nil || len(r.Payload.Body) != size {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// TestGRPCEnds: deadlines and cancellation reach the server, a server that
// goes away is UNAVAILABLE.
func TestGRPCEnds(t *testing.T) {
	s, g, to := grpcEndpoint(t)
	c, addr := newCarrier(t, 1, to)
	client := grpcClient(t, addr)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.EmptyCall(ctx, &testgrpc.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	<-s.canceled
	<-c.done

	// The endpoint's clock is the faster one: no failure, and no other try.
	c.loop.do(func() {
		if len(c.failures) != 0 {
			t.Errorf("failures %v", c.failures)
		}
	})

	duplex, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := duplex.Send(&testgrpc.StreamingOutputCallRequest{Payload: payload(10)}); err != nil {
		t.Fatal(err)
	}
	if _, err := duplex.Recv(); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	if _, err := duplex.Recv(); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if r := <-c.done; !r.Aborted || r.GRPCStatus != 14 {
		t.Errorf("the exchange ended as %+v", r)
	}
	if _, err := client.UnaryCall(testContext(t), &testgrpc.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

// TestGRPCMany: more calls at once than one connection takes streams.
func TestGRPCMany(t *testing.T) {
	_, _, to := grpcEndpoint(t)
	c, addr := newCarrier(t, 1, to)
	c.cfg.MaxStreams = 10
	client, ctx := grpcClient(t, addr), testContext(t)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			for range 40 {
				if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: payload(100)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	c.loop.do(func() {
		for _, s := range c.sessions {
			if n := s.sess.Streams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
		}
	})
}
