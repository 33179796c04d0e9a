package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// grpcClient keeps one connection, or one to each Pod that it knows.
type grpcClient struct {
	place
	key      string
	resolver *manual.Resolver
	conn     *grpc.ClientConn
	known    string // the addresses that the connection knows
}

// dial connects when first used, and follows the addresses of Pods.
func (c *grpcClient) dial() error {
	addresses, err := c.addresses()
	if err != nil {
		return err
	}
	state := resolver.State{}
	for _, a := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: a})
	}
	if c.conn == nil {
		c.resolver = manual.NewBuilderWithScheme("view")
		c.resolver.InitialState(state)
		c.conn, err = grpc.NewClient("view:///app", grpc.WithResolvers(c.resolver),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
		if err != nil {
			return err
		}
	} else if known := strings.Join(addresses, " "); known != c.known {
		c.resolver.UpdateState(state)
	}
	c.known = strings.Join(addresses, " ")
	return nil
}

func (c *grpcClient) addresses() ([]string, error) {
	if pods, ok := c.finder.(*byPod); ok {
		if all := pods.all(c.service, "grpc"); len(all) > 0 {
			return all, nil
		}
		return nil, errNowhere
	}
	address, err := c.address("grpc")
	return []string{address}, err
}

// withKey is the context of a call.
func (c *grpcClient) withKey(ctx context.Context) context.Context {
	if c.key == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "detour-key", c.key)
}

func (c *grpcClient) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// refused is the error of a call, or the documented 503 that it stands for.
func refused(err error, from ...metadata.MD) error {
	for _, md := range from {
		if why := md.Get("detour-error"); len(why) > 0 {
			return refusal(strings.Join(why, ","))
		}
	}
	return err
}

// unary makes one call a request.
type unary struct{ grpcClient }

func newUnary(p place, key string) client { return &unary{grpcClient{place: p, key: key}} }

func (c *unary) ask(ctx context.Context) (string, error) {
	if err := c.dial(); err != nil {
		return "", err
	}
	content := blob(newSeed())
	answer := new(wrapperspb.BytesValue)
	var header, trailer metadata.MD
	err := c.conn.Invoke(c.withKey(ctx), methodUnary, wrapperspb.Bytes(content), answer, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		return "", refused(err, header, trailer)
	}
	return split(answer.GetValue(), content)
}

// stream has one conversation after another.
type stream struct {
	grpcClient
	open   grpc.ClientStream
	cancel context.CancelFunc
	ends   time.Time
}

func newStream(p place, key string) client {
	return &stream{grpcClient: grpcClient{place: p, key: key}}
}

func (c *stream) ask(ctx context.Context) (version string, err error) {
	if time.Now().After(c.ends) {
		c.end()
	}
	if c.open == nil {
		if err := c.begin(ctx); err != nil {
			return "", err
		}
	}
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	// A stream outlives its requests, so the deadline of one is kept by giving up the stream.
	defer context.AfterFunc(ctx, c.cancel)()
	content := blob(newSeed())
	answer := new(wrapperspb.BytesValue)
	if err := c.open.SendMsg(wrapperspb.Bytes(content)); err != nil && !errors.Is(err, io.EOF) {
		return "", err // io.EOF: the answer tells why
	}
	switch err := c.open.RecvMsg(answer); {
	case errors.Is(err, io.EOF):
		return "", errGoodBye
	case err != nil:
		header, _ := c.open.Header()
		return "", refused(err, header, c.open.Trailer())
	}
	return split(answer.GetValue(), content)
}

func (c *stream) begin(ctx context.Context) error {
	if err := c.dial(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	description := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	open, err := c.conn.NewStream(c.withKey(ctx), description, methodStream)
	if err != nil {
		cancel()
		return err
	}
	c.open, c.cancel, c.ends = open, cancel, time.Now().Add(2*rand.N(streamLife))
	return nil
}

// end lets the app finish the stream, if it is still one.
func (c *stream) end() {
	if c.open == nil {
		return
	}
	defer c.cancel()
	if c.open.CloseSend() == nil && time.Now().After(c.ends) {
		defer time.AfterFunc(requestTimeout, c.cancel).Stop()
		c.open.RecvMsg(new(wrapperspb.BytesValue))
	}
	c.open = nil
}

func (c *stream) close() {
	c.end()
	c.grpcClient.close()
}
