package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// newAPI sells things: it knows the products, asks identity for the user and counts visits in the database. Without
// identity there is no answer, without the database there is one that says so.
func newAPI(cfg config) (http.Handler, error) {
	identity, err := newClient("identity", cfg.Identity)
	if err != nil {
		return nil, err
	}
	db := newDB(cfg.DB)
	s := &service{cfg: cfg, answer: func(ctx context.Context, via string) (answer, error) {
		a, err := identity.get(ctx, via)
		if err != nil {
			return answer{}, err
		}
		a.Banner = cfg.Banner
		a.Products = []product{{"Boots", "€ 140"}, {"Tent", "€ 210"}, {"Map", "€ 12"}}
		a.DB, a.Visits = visit(ctx, db)
		return a, nil
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serveJSON)
	mux.HandleFunc("GET /ws", s.serveEcho)
	return s.handler(mux), nil
}

// newDB connects when first used, and gives up early so that the shop stays open without its database.
func newDB(addr string) *redis.Client {
	logging.Disable() // what it would log comes back as an error as well
	return redis.NewClient(&redis.Options{
		Addr:                  addr,
		DialTimeout:           500 * time.Millisecond,
		DialerRetries:         1,
		ReadTimeout:           500 * time.Millisecond,
		MaxRetries:            1,
		ContextTimeoutEnabled: true,
	})
}

// visit counts a visit and returns how the database is and the visits so far.
func visit(ctx context.Context, db *redis.Client) (string, int64) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	visits, err := db.Incr(ctx, "visits").Result()
	if err != nil {
		slog.Warn("visit not counted", "error", err.Error())
		return "unavailable", 0
	}
	return "ok", visits
}

// serveEcho is a WebSocket that first says which copy answers, then sends back every message it gets.
func (s *service) serveEcho(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		slog.Debug("no WebSocket", "error", err.Error()) // Accept has told the caller
		return
	}
	defer conn.CloseNow()
	if err := echo(r.Context(), conn, s.self(protoWebSocket)); websocket.CloseStatus(err) == -1 {
		slog.Debug("WebSocket broke", "error", err.Error())
	}
}

// echo returns when the connection ends.
func echo(ctx context.Context, conn *websocket.Conn, first servant) error {
	if err := wsjson.Write(ctx, conn, first); err != nil {
		return err
	}
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return err
		}
	}
}
