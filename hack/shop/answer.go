package main

// The protocols that the services speak. A caller chooses with '?via=' by which of them the services ask each other;
// WebSocket is there for outside callers only.
const (
	protoHTTP1     = "http1"
	protoH2C       = "h2c"
	protoGRPC      = "grpc"
	protoWebSocket = "websocket"
)

// answer is what a service says: as JSON over HTTP, as a google.protobuf.Struct with the same fields over gRPC.
type answer struct {
	ServedBy []servant `json:"served_by"` // from the entry inwards
	Banner   string    `json:"banner,omitempty"`
	Products []product `json:"products,omitempty"`
	User     string    `json:"user,omitempty"`
	DB       string    `json:"db,omitempty"`     // "ok" or "unavailable"
	Visits   int64     `json:"visits,omitempty"` // counted in the database
	Error    string    `json:"error,omitempty"`  // why there is no answer
}

// servant is the copy of a service that had a part in an answer, and the protocol by which it was asked.
type servant struct {
	Service  string `json:"service"`
	Version  string `json:"version"`
	Pod      string `json:"pod"`
	Protocol string `json:"protocol"`
}

type product struct {
	Name  string `json:"name"`
	Price string `json:"price"`
}
