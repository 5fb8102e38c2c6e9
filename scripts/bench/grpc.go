package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// grpcCommand is the argument that makes this program a gRPC server, at the
// address that follows. Its service is the one for health checks: a unary call
// that comes with the library.
const grpcCommand = "grpc"

func runGRPC(listen string) error {
	ln, err := net.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return s.Serve(ln)
}

// unary does one call with a real client: what h2load, which looks at no
// trailer, could not tell is whether the call succeeds.
func unary(address string) error {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil && resp.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		err = fmt.Errorf("status %s", resp.Status)
	}
	if err != nil {
		return fmt.Errorf("call by gRPC at %s: %w", address, err)
	}
	return nil
}
