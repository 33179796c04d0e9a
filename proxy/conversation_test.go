package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A conversation is all that is said on one client connection: what the client sends, and what is answered by whom it
// reaches. It is made from a seed (generate_test.go), knows nothing of sockets, and is judged by a pure function
// (oracle_test.go), so the same ones can be played over sockets and through the state machine in memory:
//
//	c := newConversation(seed)
//	for _, w := range c.writes { ... }     // say w.bytes once w.after bytes have come back
//	app := newBackend(c)                   // likewise the preview
//	out, then := app.take(bytes)           // what it answers when it gets bytes, and how it goes on
//	err := c.judge(observed{...})
type conversation struct {
	seed     uint64
	kind     kind
	turns    []turn
	greeting []byte // of the app, before anyone has spoken
	writes   []write
	leave    leave
	after    int // bytes that the client waits for before it leaves
}

// kind says by which rule a conversation is judged.
type kind int

const (
	plain   kind = iota // nobody carries a key in any reading: no difference to a direct connection
	mixed               // everything was made to be clear or doubtful: the turns say what becomes of each
	hostile             // a request with a key was damaged at random: nothing doubtful may reach a preview
)

func (k kind) String() string { return [...]string{"plain", "mixed", "hostile"}[k] }

// turn is one request, or something in the place of one.
type turn struct {
	name   string // what is special about it, for people
	bytes  []byte
	head   int    // length of the head, behind which nothing is ever changed
	mark   string // somewhere in bytes; whoever receives it gives the answer
	fate   fate
	status int    // of the refusal
	member string // the baggage member that is added to the head
	h2c    bool   // the offer of HTTP/2 is taken out of the head
	isHEAD bool
	waits  bool // a client may wait for its answer
	answer answer
}

// fate is what becomes of a turn on a connection that is routed.
type fate int

const (
	forwarded  fate = iota // to the app
	previewed              // to the preview
	refused                // answered by us; nobody gets any of it
	brokenOff              // to the preview, but never to its end; answered 400
	passed                 // to the app, with everything that follows
	tunnelled              // to the app; what follows goes to whom it switched
	tunnelledP             // likewise the preview
)

func (f fate) String() string {
	return [...]string{"forwarded", "previewed", "refused", "broken off", "passed", "tunnelled", "tunnelled to the preview"}[f]
}

type answer struct {
	bytes    []byte
	final    int  // where the final head begins, after those of 1xx
	doubtful bool // Detour-Served-By may be missing
	then     then
}

// then is what a backend does after an answer.
type then int

const (
	goesOn then = iota
	halfCloses
	closes
	resets
)

// write is said in one go, once so many bytes have come back.
type write struct {
	bytes []byte
	after int
}

// leave is how the client ends the connection once it has said everything.
type leave int

const (
	byHalfClose leave = iota
	byClose
	byReset
	byWaiting // for the other side to end it
)

func (l leave) String() string {
	return [...]string{"half-closes", "closes", "resets", "waits for the end"}[l]
}

// sent is what the client says.
func (c *conversation) sent() []byte {
	var b []byte
	for _, t := range c.turns {
		b = append(b, t.bytes...)
	}
	return b
}

// whole makes the writes again, one a turn, without waiting for anything that is not needed.
func (c *conversation) whole() {
	c.writes = nil
	for i, t := range c.turns {
		w := write{bytes: t.bytes}
		if t.answer.then == resets {
			w.after = c.answered(i)
		}
		c.writes = append(c.writes, w)
	}
	c.after = 0
	if c.leave == byClose || c.leave == byReset {
		c.after = c.answered(len(c.turns))
	}
}

// answered is how many bytes come back directly for the first n turns.
func (c *conversation) answered(n int) int {
	b := newBackend(c)
	count := len(c.greeting)
	for _, t := range c.turns[:n] {
		out, _ := b.take(t.bytes)
		count += len(out)
	}
	return count
}

// without is the conversation with a turn less, to find out whether it matters.
func (c *conversation) without(turn int) *conversation {
	less := *c
	less.turns = slices.Delete(slices.Clone(c.turns), turn, turn+1)
	less.whole()
	return &less
}

func (c *conversation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s conversation, the client %s in the end", c.kind, c.leave)
	if c.greeting != nil {
		fmt.Fprintf(&b, "\n  greeting %s", excerpt(c.greeting))
	}
	for _, t := range c.turns {
		fmt.Fprintf(&b, "\n  %s (%s)\n    %s\n    answer %s", t.name, t.fate, excerpt(t.bytes), excerpt(t.answer.bytes))
		if t.answer.then != goesOn {
			fmt.Fprintf(&b, ", then the backend %s", [...]string{"", "half-closes", "closes", "resets"}[t.answer.then])
		}
	}
	return b.String()
}

// excerpt quotes b, leaving out the middle of what is long.
func excerpt(b []byte) string {
	const most = 1000
	if len(b) <= most {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q … %d bytes … %q", b[:most/2], len(b)-most, b[len(b)-most/2:])
}

// backend is the app or the preview of a conversation. It logs what it gets, parses nothing, and answers when a mark has
// come in, so that what it says depends on the bytes and not on how they are cut. It closes at the client's end at the
// latest.
type backend struct {
	log     []byte
	waiting []turn // not yet answered
	seen    int    // bytes in which no mark is left
	then    then
}

func newBackend(c *conversation) *backend {
	waiting := slices.DeleteFunc(slices.Clone(c.turns), func(t turn) bool { return t.mark == "" })
	return &backend{waiting: waiting}
}

// take logs p, and returns what is answered to it and what comes after that.
func (b *backend) take(p []byte) (out []byte, next then) {
	b.log = append(b.log, p...)
	for b.then == goesOn {
		i := b.next()
		if i < 0 {
			break
		}
		a := b.waiting[i].answer
		out, b.then = append(out, a.bytes...), a.then
		b.waiting = slices.Delete(b.waiting, i, i+1)
	}
	return out, b.then
}

// next is the turn whose mark comes first in what was not yet looked at, or -1.
func (b *backend) next() int {
	first, at := -1, len(b.log)
	for i, t := range b.waiting {
		if k := bytes.Index(b.log[b.seen:], []byte(t.mark)); k >= 0 && b.seen+k < at {
			first, at = i, b.seen+k
		}
	}
	if first >= 0 {
		b.seen = at + len(b.waiting[first].mark)
	} else {
		b.seen = max(b.seen, len(b.log)-markLength+1)
	}
	return first
}

// end is how a connection ended, as seen from one side.
type end string

const (
	none    end = ""         // there was none
	atEOF   end = "EOF"      //
	byRST   end = "reset"    //
	itself  end = "itself"   // this side ended it
	tooLate end = "too late" // nothing more came, and no end
)

// heard is what one side received.
type heard struct {
	bytes []byte
	end   end
}

// observed is what a conversation came to.
type observed struct{ app, preview, client heard }

// direct is what a conversation comes to without a proxy.
func (c *conversation) direct() observed {
	b := newBackend(c)
	out, next := b.take(c.sent())
	o := observed{app: heard{b.log, atEOF}, client: heard{append(slices.Clone(c.greeting), out...), atEOF}}
	switch next {
	case closes:
		o.app.end = itself
	case resets:
		o.app.end, o.client.end = itself, byRST
	}
	switch c.leave {
	case byClose:
		o.client.end = itself
	case byReset:
		o.app.end, o.client.end = byRST, itself
	}
	return o
}
