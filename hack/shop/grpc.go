package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The gRPC service of all three, written by hand because its messages are well-known ones and need no generated code.
// The request holds the protocol by which services ask each other, or nothing:
//
//	package shop.v1;
//	service Shop { rpc Get(google.protobuf.StringValue) returns (google.protobuf.Struct); }
const (
	grpcService = "shop.v1.Shop"
	grpcGet     = "/" + grpcService + "/Get"
)

// newGRPCServer offers the service and the standard health check.
func newGRPCServer(s *service) *grpc.Server {
	server := grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler()))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: serveGet}},
	}, s)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server
}

// serveGet has the signature that grpc.MethodDesc asks for; srv is the *service.
func serveGet(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	via := new(wrapperspb.StringValue)
	if err := decode(via); err != nil {
		return nil, err
	}
	a, err := srv.(*service).ask(ctx, protoGRPC, via.GetValue())
	switch {
	case errors.Is(err, errVia):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return message(a)
}

// message is the answer as it goes over gRPC.
func message(a answer) (*structpb.Struct, error) {
	content, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	m := new(structpb.Struct)
	return m, protojson.Unmarshal(content, m)
}

// answerIn reads the answer that came over gRPC.
func answerIn(m *structpb.Struct) (answer, error) {
	content, err := protojson.Marshal(m)
	if err != nil {
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	var a answer
	return a, json.Unmarshal(content, &a)
}
