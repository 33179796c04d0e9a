package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The keys of generated requests.
const (
	routedKey   = "mine"
	goneKey     = "gone" // its preview has no endpoint
	unroutedKey = "other"
)

const (
	markLength = 15
	longHead   = 70 << 10 // beyond the cap
)

// generator makes conversations.
type generator struct {
	*rand.Rand
	marks int
	bait  bool // what looks like a key but is none may be said
	early bool // marks are in heads, even of what has a body
}

// newConversation makes the conversation of a seed.
func newConversation(seed uint64) *conversation {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 3))}
	var c *conversation
	switch n := g.IntN(100); {
	case n < 50:
		c = g.plain()
	case n < 85:
		c = g.mixed()
	default:
		c = g.hostile()
	}
	c.seed = seed
	return c
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

// mark is markLength bytes that occur nowhere else.
func (g *generator) mark() string {
	g.marks++
	return fmt.Sprintf("~m%d-%08x..~", g.marks%10, g.Uint32())
}

// junk is n arbitrary bytes.
func (g *generator) junk(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// Plain conversations.

func (g *generator) plain() *conversation {
	c := &conversation{kind: plain}
	tunnel := g.chance(10) // what follows an upgrade waits for its answer, so all answers must be clear
	if tunnel {
		c.turns = g.tunnel()
	} else {
		for range g.IntN(6) {
			c.turns = append(c.turns, g.plainTurn())
		}
	}
	if !tunnel && g.chance(4) {
		c.greeting = pick(g, []byte("220 ready\r\n"), []byte("\x00"), []byte("HTTP/1.1 408 Request Timeout\r\n\r\n"))
	}
	g.ends(c)
	g.cut(c)
	return c
}

func (g *generator) plainTurn() turn {
	switch n := g.IntN(100); {
	case n < 35:
		return g.plainAnswer(g.request().turn("request", forwarded))
	case n < 45:
		return g.plainAnswer(g.doubtfulTurn(passed))
	case n < 52:
		return g.plainAnswer(g.doubtfulBody(passed))
	case n < 56:
		return g.plainAnswer(g.request().turnOf(g, pick(g, oddities...), forwarded))
	case n < 60:
		return g.plainAnswer(g.connect().turn("CONNECT", passed))
	case n < 95:
		return g.plainAnswer(g.mutatedTurn())
	}
	return g.junkTurn()
}

// junkTurn is no HTTP at all.
func (g *generator) junkTurn() turn {
	t := turn{name: "junk", mark: g.mark(), fate: passed}
	b := g.junk(1 + g.IntN(200))
	b[0] = pick(g, b[0], '\x00', '\x16', '*', '\n')
	t.bytes = append(b, t.mark...)
	t.head, t.answer = len(t.bytes), answer{bytes: g.junk(g.IntN(200))}
	return t
}

// tunnel is what may lead to an upgrade, the upgrade, and what is said in the tunnel.
func (g *generator) tunnel() []turn {
	var turns []turn
	for range g.IntN(3) {
		turns = append(turns, g.clearTurn())
	}
	turns = append(turns, g.upgrade().switched(g, tunnelled))
	for range g.IntN(3) {
		turns = append(turns, g.junkTurn())
	}
	return turns
}

// ends chooses how the conversation ends. Without a half-close everyone has to have got everything first.
func (g *generator) ends(c *conversation) {
	unanswered := slices.ContainsFunc(c.turns, func(t turn) bool { return !t.waits || t.answer.then != goesOn })
	if unanswered || g.chance(50) {
		return
	}
	c.leave = pick(g, byClose, byReset, byWaiting)
	last := g.answered(g.goodBye())
	switch {
	case c.leave == byWaiting && g.chance(50):
		last.answer = answer{then: resets}
	case c.leave == byWaiting:
		last.answer.then = closes
	}
	c.turns = append(c.turns, last)
}

// goodBye ends with its mark, so that whoever answers it has got everything.
func (g *generator) goodBye() turn {
	m := &message{line: "POST /last HTTP/1.1", eol: "\r\n", mark: g.mark(), fields: []string{"Host: x"}}
	m.measured([]byte("good bye "))
	return m.turn("good bye", forwarded)
}

// cut divides what is said into writes, anywhere, and lets the client wait for answers now and then.
func (g *generator) cut(c *conversation) {
	c.whole()
	waits := !slices.ContainsFunc(c.turns, func(t turn) bool { return !t.waits || t.answer.then == halfCloses }) && g.chance(40)
	var writes []write
	for i, w := range c.writes {
		if waits && g.chance(60) {
			w.after = c.answered(i)
		}
		if !waits && w.after == 0 && len(writes) > 0 && g.chance(60) { // pipelined, and not cut here
			last := &writes[len(writes)-1]
			last.bytes = slices.Concat(last.bytes, w.bytes)
			continue
		}
		writes = append(writes, w)
	}
	c.writes = nil
	for _, w := range writes {
		c.writes = append(c.writes, g.fragments(w)...)
	}
}

func (g *generator) fragments(w write) []write {
	if len(w.bytes) < 2 {
		return []write{w}
	}
	cuts := []int{0, len(w.bytes)}
	switch {
	case g.chance(3) && len(w.bytes) < 300: // byte by byte
		for i := range w.bytes {
			cuts = append(cuts, i)
		}
	case g.chance(60):
		for range 1 + g.IntN(5) {
			cuts = append(cuts, 1+g.IntN(len(w.bytes)-1))
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var writes []write
	for i := range len(cuts) - 1 {
		writes = append(writes, write{w.bytes[cuts[i]:cuts[i+1]], w.after})
	}
	return writes
}

// Mixed conversations.

func (g *generator) mixed() *conversation {
	c := &conversation{kind: mixed}
	g.bait = true
	for range 1 + g.IntN(5) {
		c.turns = append(c.turns, g.mixedTurn())
	}
	if g.chance(40) {
		c.turns = append(c.turns, g.lastTurn())
	}
	g.cutMixed(c)
	return c
}

// cutMixed lets the client wait only where answers come whole, one for each turn.
func (g *generator) cutMixed(c *conversation) {
	i := slices.IndexFunc(c.turns, func(t turn) bool { return t.fate != forwarded && t.fate != previewed })
	if i < 0 {
		g.cut(c)
		return
	}
	first, rest := *c, *c
	first.turns, rest.turns = c.turns[:i], c.turns[i:]
	g.cut(&first)
	rest.whole()
	c.writes = first.writes
	for _, w := range rest.writes {
		c.writes = append(c.writes, g.fragments(write{bytes: w.bytes})...)
	}
}

func (g *generator) mixedTurn() turn {
	switch n := g.IntN(100); {
	case n < 28:
		return g.clearTurn()
	case n < 58:
		return g.keyedTurn()
	case n < 64:
		return g.answered(g.request(pick(g, "Detour-Key: other", "detour-key:other")).turn("unrouted key", forwarded).carries("other"))
	case n < 68:
		return g.answered(g.request("Baggage: a=b,detour-key=other;p").turn("unrouted key in baggage", forwarded))
	case n < 72:
		return g.offersHTTP2()
	case n < 77:
		return g.answered(g.doubtfulTurn(passed))
	case n < 84:
		return g.doubtfulTurn(refused, keyLine(g))
	case n < 86:
		return g.answered(g.doubtfulBody(passed))
	case n < 90:
		return g.doubtfulBody(brokenOff, keyLine(g))
	}
	return g.specialTurn()
}

func (g *generator) specialTurn() turn {
	switch g.IntN(8) {
	case 0:
		return g.answered(g.request().turnOf(g, pick(g, oddities...), forwarded))
	case 1:
		return g.request(keyLine(g)).turnOf(g, pick(g, oddities...), refused)
	case 2:
		t := g.request("Detour-Key: "+goneKey).turn("preview that is gone", refused)
		t.status = 503
		return t
	case 3:
		return g.answered(g.connect().turn("CONNECT", passed))
	case 4:
		t := g.connect(keyLine(g)).turn("CONNECT with key", refused)
		t.status = 405
		return t
	case 5:
		return g.upgrade().switched(g, tunnelled)
	case 6:
		return g.upgrade("Detour-Key: mine").switched(g, tunnelledP).carries("mine")
	}
	return g.hiddenKey()
}

// clearTurn carries no key and has one reading.
func (g *generator) clearTurn() turn { return g.answered(g.request().turn("request", forwarded)) }

// keyedTurn is one for the preview.
func (g *generator) keyedTurn() turn {
	k := pick(g, routedKeys...)
	t := g.answered(g.request(k.lines...).turn("request with key", previewed))
	if mine := bytes.Index(t.bytes, []byte("\r\nDetour-Key: ,mine")); mine >= 0 && mine < bytes.Index(t.bytes, []byte("\r\nDetour-Key: other")) {
		return t.carries("mine%2Cother")
	}
	return t.carries(k.added)
}

// routedKeys are ways to carry the key of the preview, and the keys that are added to baggage.
var routedKeys = []struct {
	lines []string
	added string
}{
	{[]string{"Detour-Key: mine"}, "mine"},
	{[]string{"detour-key:mine"}, "mine"},
	{[]string{"DETOUR-KEY: \t mine \t"}, "mine"},
	{[]string{"Detour-Key: other, mine"}, "other%2Cmine"},
	{[]string{"Detour-Key: other", "X-Between: y", "Detour-Key: ,mine"}, "other%2Cmine"},
	{[]string{"Detour-Key: mine", "Baggage: user=1"}, "mine"},
	{[]string{"Detour-Key: mine", "baggage: detour-key=mine"}, ""},
	{[]string{"Detour-Key: mine", "Baggage: a=b", "baggage: detour-key=other"}, ""},
	{[]string{"Baggage: detour-key=mine"}, ""},
	{[]string{"BAGGAGE: user=1 , detour-key = %6dine;p=1,z=2"}, ""},
}

// keyLine carries the key of the preview in one line.
func keyLine(g *generator) string {
	return pick(g, "Detour-Key: mine", "detour-key:mine", "Detour-Key: other,mine", "Baggage: a=b,detour-key=mine")
}

// carries notes the keys that are added to baggage.
func (t turn) carries(keys string) turn {
	if keys != "" {
		t.member = "detour-key=" + keys
	}
	return t
}

func (g *generator) offersHTTP2() turn {
	connection := pick(g, "Connection: Upgrade, HTTP2-Settings", "connection: upgrade,http2-settings", "Connection: keep-alive, Upgrade, HTTP2-Settings")
	t := g.request(connection, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA").turn("Upgrade: h2c", forwarded)
	t.h2c = true
	return g.answered(t)
}

// lastTurn is one after which nobody expects another.
func (g *generator) lastTurn() turn {
	m, fate, keys := g.request(), forwarded, ""
	if g.chance(50) {
		m, fate, keys = g.request("Detour-Key: mine"), previewed, "mine"
	}
	if g.chance(40) && !bytes.Contains(m.bytes(), []byte("chunked")) {
		m.line = strings.Replace(m.line, "HTTP/1.1", "HTTP/1.0", 1)
	} else if g.chance(40) {
		m.fields = append(m.fields, "Connection: close")
	}
	t := m.turn("last request", fate).carries(keys)
	if g.chance(30) && !t.isHEAD {
		t.answer = answer{bytes: g.oddAnswer(lastAnswers), doubtful: true, then: halfCloses}
		return t
	}
	t.answer = g.answer(t, true)
	t.answer.then = halfCloses
	return t
}

// Hostile conversations.

func (g *generator) hostile() *conversation {
	c := &conversation{kind: hostile}
	for range g.IntN(3) {
		c.turns = append(c.turns, g.clearTurn())
	}
	g.early = true
	m := g.request("Detour-Key: mine")
	m.line = strings.Replace(m.line, "HEAD ", "GET ", 1) // damage must not give its answer a body
	t := g.answered(m.turn("damaged request with key", previewed))
	clear := t.bytes
	for t.bytes = nil; !answerable(t); {
		t.bytes = g.mutated(clear, 1+g.IntN(3))
	}
	c.turns = append(c.turns, t)
	g.cut(c)
	return c
}

// answerable reports whether the mark is in the first head, so that whoever gets that answers.
func answerable(t turn) bool {
	head, _, _ := bytes.Cut(t.bytes, []byte("\r\n\r\n"))
	return bytes.Contains(head, []byte(t.mark))
}

// Requests.

// message is a request while it is being made.
type message struct {
	line   string
	fields []string
	eol    string
	body   []byte
	mark   string
}

// bytes puts the mark at the end of what has no body.
func (m *message) bytes() []byte { return slices.Concat(m.head(), m.body) }

func (m *message) head() []byte {
	var b bytes.Buffer
	b.WriteString(m.line + m.eol)
	for _, f := range m.fields {
		b.WriteString(f + m.eol)
	}
	if !bytes.Contains(m.body, []byte(m.mark)) {
		b.WriteString("X-Mark: " + m.mark + m.eol)
	}
	b.WriteString(m.eol)
	return b.Bytes()
}

func (m *message) turn(name string, fate fate) turn {
	return turn{
		name: name, bytes: m.bytes(), head: len(m.head()), mark: m.mark, fate: fate, status: 400,
		isHEAD: strings.HasPrefix(m.line, "HEAD "), waits: true,
	}
}

// turnOf is the turn of the message with something odd about it.
func (m *message) turnOf(g *generator, odd oddity, fate fate) turn {
	odd.change(g, m)
	return m.turn(odd.name, fate)
}

// switched is the turn of an upgrade that is granted.
func (m *message) switched(g *generator, fate fate) turn {
	t := m.turn("upgrade", fate)
	t.answer.bytes = []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
	if g.chance(50) {
		t.answer.bytes = append(t.answer.bytes, g.junk(g.IntN(50))...)
	}
	return t
}

// request has one reading, whatever is odd about it.
func (g *generator) request(extra ...string) *message {
	method := pick(g, "GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "TRACE", "M-SEARCH", "get", "X!#$%&'*+-.^_`|~")
	m := &message{line: method + " " + pick(g, targets...) + " HTTP/1.1", eol: "\r\n", mark: g.mark()}
	m.fields = append(g.fields(), pick(g, "Host: x", "host: frontend.shop:80", "HOST:[::1]", "Host: \t x "))
	m.fields = append(m.fields, extra...)
	g.frame(m)
	g.Shuffle(len(m.fields), func(i, j int) { m.fields[i], m.fields[j] = m.fields[j], m.fields[i] })
	return m
}

var targets = []string{
	"/", "/a/b?c=d", "//double//slash", "/%2f%2F", "/;a;b?c;d", "/%zz?%", "/?", "/a?b?c", "*", "http://other/path",
	"HTTP://Other", "/\"<>\\^`{|}", "/caf\xc3\xa9", "/\xff", "/..//./", "/" + strings.Repeat("long/", 400),
}

// fields are some odd ones.
func (g *generator) fields() []string {
	var fields []string
	for range g.IntN(8) {
		fields = append(fields, pick(g, oddFields...))
	}
	if g.bait && g.chance(30) {
		fields = append(fields, pick(g, baits...))
	}
	if g.chance(2) {
		fields = append(fields, "X-Long: "+strings.Repeat("x", 1000*(1+g.IntN(50))))
	}
	return fields
}

var oddFields = []string{
	"Accept: */*", "accept-encoding: br;q=0", "ACCEPT-LANGUAGE: de", "X-Empty:", "x-empty: ", "X-Padded:  \t padded \t ",
	"X-Tight:v", "X-Latin: caf\xe9", `X-Quoted: "a\"b,c"`, "Cookie: a=b", "cookie: c=d; e", "Cookie:", "X-A: 1", "X-A: 2",
	"X-Forwarded-For: 1.2.3.4", "Forwarded: for=_x", "Via: 1.1 me", "TE: trailers", "Keep-Alive: timeout=5", "User-Agent: (",
	"x!#$%&'*+-.^_`|~9: token", "X_Under: 1", "Content-Type: x/y; z", "Range: bytes=0-1", `If-None-Match: "x"`, "Max-Forwards: 0",
	"Proxy-Connection: close", "Connection: keep-alive", "Authorization: Basic x", "Accept-Encoding: gzip", "X-Colon: a:b: c",
	"Trailer: X-Sum", "Date: today", "Upgrade-Insecure-Requests: 1", "Content-Encoding: gzip", "Referer: http://x/#y",
}

// baits resemble carriers but carry no key.
var baits = []string{
	"Detour-Key:", "Detour-Key: -", "Detour-Key: a b", "Detour-Keys: mine", "X-Detour-Key: mine", "Detour-Key-X: mine",
	"Detour_Key: mine", "Baggage: user=1", "baggage: a=1;detour-key=mine,b=2", "Baggage: Detour-Key=mine", "X-Note: Detour-Key: mine",
	"Detour-Served-By: nobody", "Detour-Error: none",
}

// frame gives the request a body, or none.
func (g *generator) frame(m *message) {
	switch {
	case g.chance(50):
		return
	case g.early:
		m.fields = append(m.fields, "Transfer-Encoding: chunked")
		m.body = g.chunks(g.payload(), nil, "")
	case g.chance(50):
		m.measured(g.payload())
	default:
		g.chunked(m)
	}
	if g.chance(15) {
		m.fields = append(m.fields, "Expect: 100-continue")
	}
}

// measured gives the message a body with Content-Length, which ends with the mark.
func (m *message) measured(body []byte) {
	m.body = append(body, m.mark...)
	m.fields = append(m.fields, fmt.Sprintf("Content-Length: %d", len(m.body)))
}

func (g *generator) chunked(m *message) {
	m.fields = append(m.fields, pick(g, "Transfer-Encoding: chunked", "transfer-encoding:chunked"))
	if g.chance(50) {
		m.body = g.chunks(g.payload(), nil, "X-Mark: "+m.mark+"\r\n")
		return
	}
	m.body = g.chunks(g.payload(), []byte(m.mark), pick(g, "", "X-Sum: 1\r\n", "x-sum:\r\nX-Other: caf\xe9\r\n"))
}

// chunks is a chunked body: data in several, and the last in one.
func (g *generator) chunks(data, last []byte, trailers string) []byte {
	var b bytes.Buffer
	extension := func() string { return pick(g, "", "", "", ";x", ";x=1", `;x="y;z"`) }
	chunk := func(data []byte) {
		fmt.Fprintf(&b, pick(g, "%x", "%X", "0%x")+"%s\r\n%s\r\n", len(data), extension(), data)
	}
	for len(data) > 0 {
		n := 1 + g.IntN(len(data))
		chunk(data[:n])
		data = data[n:]
	}
	if last != nil {
		chunk(last)
	}
	fmt.Fprintf(&b, "%s%s\r\n%s\r\n", pick(g, "0", "000"), extension(), trailers)
	return b.Bytes()
}

// payload is what a body may hold.
func (g *generator) payload() []byte {
	if g.bait && g.chance(20) {
		return []byte("GET / HTTP/1.1\r\nHost: x\r\nDetour-Key: mine\r\n\r\n")
	}
	switch g.IntN(4) {
	case 0:
		return g.junk(g.IntN(300))
	case 1:
		return []byte("0\r\n\r\nGET /inner HTTP/1.1\r\nHost: x\r\n\r\n")
	case 2:
		return bytes.Repeat([]byte("abcdefghijklmnop"), g.IntN(300))
	}
	return []byte("a=b")
}

func (g *generator) upgrade(extra ...string) *message {
	m := &message{line: "GET /chat HTTP/1.1", eol: "\r\n", mark: g.mark()}
	m.fields = append([]string{"Host: x", "Connection: Upgrade", pick(g, "Upgrade: websocket", "upgrade: WebSocket")}, extra...)
	return m
}

func (g *generator) connect(extra ...string) *message {
	m := &message{line: "CONNECT x:443 HTTP/1.1", eol: "\r\n", mark: g.mark()}
	m.fields = append([]string{"Host: x:443"}, extra...)
	return m
}

// oddity is one thing that is odd about a request.
type oddity struct {
	name   string
	change func(g *generator, m *message)
}

// oddities have one reading, but no preview gets such a request.
var oddities = []oddity{
	{"no Host", func(_ *generator, m *message) { m.fields = slices.DeleteFunc(m.fields, isHost) }},
	{"two Hosts", func(_ *generator, m *message) { m.fields = append(m.fields, "Host: y") }},
	{"fragment in the target", func(_ *generator, m *message) { m.line = "GET /a#b HTTP/1.1" }},
	{"Connection names Detour-Key", adds("Connection: Detour-Key")},
	{"Connection names baggage", adds("connection: keep-alive, baggage")},
}

func isHost(field string) bool { return len(field) > 5 && strings.EqualFold(field[:5], "host:") }

// adds appends lines to the head.
func adds(lines ...string) func(*generator, *message) {
	return func(_ *generator, m *message) { m.fields = append(m.fields, lines...) }
}

// frames says something doubtful about the body, which is five bytes long in one reading.
func frames(lines ...string) oddity {
	return oddity{strings.Join(lines, ", "), func(_ *generator, m *message) {
		m.fields, m.body = append(m.fields, lines...), []byte("0\r\n\r\n")
	}}
}

func versioned(version string) oddity {
	return oddity{fmt.Sprintf("version %q", version), func(_ *generator, m *message) { m.line = "POST /" + version }}
}

// doubts are heads that can be framed in two ways. All of them end with an empty line.
var doubts = []oddity{
	frames("Content-Length: 5", "Transfer-Encoding: chunked"),
	frames("Transfer-Encoding: chunked", "content-length: 0"),
	frames("Transfer-Encoding: xchunked"),
	frames("Transfer-Encoding: chunked, chunked"),
	frames("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
	frames("Transfer-Encoding: \x0bchunked"),
	frames("Transfer-Encoding: chunked\x0c"),
	frames("Transfer-Encoding: identity"),
	frames("Transfer-Encoding: gzip, chunked"),
	frames("Transfer-Encoding: chunked, gzip"),
	frames("Transfer-Encoding: chunked;q=1"),
	frames(`Transfer-Encoding: "chunked"`),
	frames("Transfer-Encoding:"),
	frames("Transfer-Encoding: chun ked"),
	frames("Transfer-Encoding : chunked"),
	frames("Content-Length: 5, 5"),
	frames("Content-Length: 5", "Content-Length: 5"),
	frames("Content-Length: 5", "Content-Length: 0"),
	frames("Content-Length: +5"),
	frames("Content-Length: -5"),
	frames("Content-Length: 0x5"),
	frames("Content-Length: 5_0"),
	frames("Content-Length: 5 5"),
	frames("Content-Length: 5;"),
	frames("Content-Length:"),
	frames("Content-Length: five"),
	frames("Content-Length: 99999999999999999999"),
	frames("Content-Length: 18446744073709551621"),
	frames("Content-Length : 5"),
	{"line that ends with LF", adds("X-A: 1\nX-B: 2")},
	{"bare CR", adds("X-A: 1\rX-B: 2")},
	{"two CRs", adds("X-A: 1\r")},
	{"NUL", adds("X-A: \x00")},
	{"space before the colon", adds("X-A : 1")},
	{"tab before the colon", adds("X-A\t: 1")},
	{"fold", adds("X-A: 1\r\n 2")},
	{"fold with a tab", adds("X-A:\r\n\t2")},
	{"long head", func(_ *generator, m *message) {
		m.fields = append(m.fields, "X-Long: "+strings.Repeat("x", longHead))
	}},
	{"chunked HTTP/1.0", func(_ *generator, m *message) {
		m.line = "POST / HTTP/1.0"
		m.fields, m.body = append(m.fields, "Transfer-Encoding: chunked"), []byte("0\r\n\r\n")
	}},
	versioned(" HTTP/1.2"), versioned(" HTTP/2.0"), versioned(" HTTP/3"), versioned(" HTTP/1.1x"), versioned(" http/1.1"),
	versioned(" HTTP/1.1 HTTP/1.1"), versioned(" HTTP/11"), versioned("\tHTTP/1.1"), versioned(" HTTP/1.1 "),
}

// doubtfulTurn is a request whose head is in doubt, with a key or without.
func (g *generator) doubtfulTurn(fate fate, key ...string) turn {
	m := &message{line: pick(g, "GET / HTTP/1.1", "POST /%2f HTTP/1.1"), eol: "\r\n", mark: g.mark()}
	m.fields = append(slices.Concat([]string{"Host: x"}, key), g.fields()...)
	if g.chance(8) && (fate == refused || !g.bait) { // a key that follows could be in the same head
		m.eol = pick(g, "\n", "\r", "\r\r\n", "\n\r")
		t := m.turn(fmt.Sprintf("lines end with %q", m.eol), fate)
		t.waits = false // nobody knows where it ends
		return t
	}
	return m.turnOf(g, pick(g, doubts...), fate)
}

// hiddenKey is a request whose key is seen in some readings only.
func (g *generator) hiddenKey() turn {
	return g.request().turnOf(g, pick(g,
		oddity{"key behind an LF", adds("X-A: 1\nDetour-Key: mine")},
		oddity{"key behind a CR", adds("X-A: 1\rDetour-Key: mine")},
		oddity{"key in a fold", adds("Detour-Key:\r\n mine")},
		oddity{"key in a folded list", adds("Detour-Key: -,\r\n\tmine")},
		oddity{"baggage in a fold", adds("Baggage: a=b,\r\n detour-key=mine")},
		oddity{"key with a space before the colon", adds("Detour-Key : mine")},
	), refused)
}

// doubtfulChunks show their doubt behind a clear head.
var doubtfulChunks = []string{
	"zz\r\nhello\r\n0\r\n\r\n",
	"0x5\r\nhello\r\n0\r\n\r\n",
	"-5\r\nhello\r\n0\r\n\r\n",
	"+5\r\nhello\r\n0\r\n\r\n",
	"\r\nhello\r\n0\r\n\r\n",
	"5\nhello\r\n0\r\n\r\n",
	"5\rhello\r\n0\r\n\r\n",
	"5\r\nhello\n0\r\n\r\n",
	"5\r\nhelloX\r\n0\r\n\r\n",
	"5\r\nhello\r\n0\n\r\n",
	"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
	"10000000000000005\r\nhello\r\n0\r\n\r\n",
	"5;a\x00b\r\nhello\r\n0\r\n\r\n",
	"5;a\rb\r\nhello\r\n0\r\n\r\n",
}

// doubtfulTrailers are for nobody who was asked for by a key.
var doubtfulTrailers = []string{
	"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
	"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"5\r\nhello\r\n0\r\nhost: y\r\n\r\n",
	"5\r\nhello\r\n0\r\nDetour-Key: other\r\n\r\n",
	"5\r\nhello\r\n0\r\nBaggage: detour-key=other\r\n\r\n",
	"5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n",
	"5\r\nhello\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n",
	"5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n",
}

// doubtfulBody is a request with one of them. Its mark follows it, so that no answer begins before the doubt shows.
func (g *generator) doubtfulBody(fate fate, key ...string) turn {
	m := &message{line: "POST / HTTP/1.1", eol: "\r\n", mark: g.mark()}
	m.fields = slices.Concat([]string{"Host: x", "Transfer-Encoding: chunked"}, key, g.fields())
	body := pick(g, doubtfulChunks...)
	if fate == brokenOff && g.chance(40) {
		body = pick(g, doubtfulTrailers...)
	}
	m.body = []byte(body + m.mark)
	t := m.turn(fmt.Sprintf("body %.30q", body), fate)
	t.waits = false
	return t
}

// Damage.

func (g *generator) mutatedTurn() turn {
	t := g.request().turn("damaged request", passed)
	t.bytes = g.mutated(t.bytes, 1+g.IntN(3))
	if g.chance(10) { // two heads in one another
		other := g.request().bytes()
		i, j := g.IntN(len(t.bytes)+1), g.IntN(len(other))
		t.bytes = slices.Concat(t.bytes[:i], other[j:])
	}
	t.waits = false
	return t
}

// mutated is b with some damage, of which most is to what lines are made of.
func (g *generator) mutated(b []byte, times int) []byte {
	b = slices.Clone(b)
	for range times {
		if len(b) == 0 {
			return b
		}
		i := g.IntN(min(len(b), 600))
		j := i + g.IntN(min(len(b)-i, 20))
		switch g.IntN(8) {
		case 0:
			b[i] ^= 1 << g.IntN(8)
		case 1:
			b[i] = g.tricky()
		case 2, 3:
			b = slices.Insert(b, i, g.tricky())
		case 4:
			b = slices.Delete(b, i, j)
		case 5:
			b = slices.Insert(b, i, bytes.Clone(b[i:j])...)
		case 6:
			b = replaced(g, b, "\r\n", pick(g, "\n", "\r", "\r\n ", "\r\n\r\n", "\r\r\n", ""))
		case 7:
			b = replaced(g, b, pick(g, ": ", "HTTP/1.1", " ", "Content-Length", "chunked", "Transfer"), pick(g, " : ", ":", "", "HTTP/1.0", "Content-Length", "\x0b", "chunked, "))
		}
	}
	if g.chance(5) {
		b = b[:g.IntN(len(b)+1)]
	}
	return b
}

func (g *generator) tricky() byte {
	return pick(g, []byte("\x00\r\n \t:,;#\x0b\x0c\x7f\x80\xff0x+-\"_")...)
}

// replaced is b with one of the places where old is put as new.
func replaced(g *generator, b []byte, old, new string) []byte {
	n := bytes.Count(b, []byte(old))
	if n == 0 {
		return b
	}
	at := 0
	for range g.IntN(n) {
		at += bytes.Index(b[at:], []byte(old)) + len(old)
	}
	at += bytes.Index(b[at:], []byte(old))
	return slices.Concat(b[:at], []byte(new), b[at+len(old):])
}

// Answers.

// answered gives the turn a clear answer.
func (g *generator) answered(t turn) turn {
	t.answer = g.answer(t, false)
	return t
}

// plainAnswer gives the turn any answer, now and then one after which the app closes its half.
func (g *generator) plainAnswer(t turn) turn {
	switch n := g.IntN(100); {
	case n < 60:
		t.answer = g.answer(t, false)
	case n < 70:
		t.answer = g.answer(t, true)
	default:
		t.answer = answer{bytes: g.oddAnswer(slices.Concat(lastAnswers, oddAnswers))}
	}
	if g.chance(6) {
		t.answer.then = halfCloses
	}
	return t
}

// answer has one reading. The last one may be delimited by the end of the connection.
func (g *generator) answer(t turn, last bool) answer {
	var b bytes.Buffer
	for g.chance(15) {
		b.WriteString(pick(g, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n",
			"HTTP/1.1 102 \r\n\r\n", "HTTP/1.1 199 What\xe9ver\r\nX: y\r\n\r\n"))
	}
	final := b.Len()
	status := pick(g, "200 OK", "200 Fine, thanks", "201 ", "299 caf\xe9", "404 nope", "500 Internal Server Error", "999 \t")
	framing, body := g.answerBody(t.isHEAD, last)
	switch {
	case g.chance(10):
		status, body = "304 Not Modified", nil
	case framing == "" && !last:
		status, body = pick(g, "204 No Content", "304 Not Modified"), nil
	}
	fmt.Fprintf(&b, "HTTP/1.1 %s\r\n", status)
	fields := []string{framing}
	for range g.IntN(5) {
		fields = append(fields, pick(g, answerFields...))
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	b.WriteString(strings.Join(fields, "") + "\r\n")
	b.Write(body)
	return answer{bytes: b.Bytes(), final: final}
}

var answerFields = []string{
	"server: x\r\n", "DATE: today\r\n", "Set-Cookie: a=b\r\n", "set-cookie: c=d\r\n", "X-Empty:\r\n", "X-Latin: \xe9\r\n",
	"Content-Type: x/y\r\n", "Content-Encoding: gzip\r\n", "Keep-Alive: timeout=5\r\n", "Connection: keep-alive\r\n", "X-Tight:v \t\r\n",
	"Trailer: X-Sum\r\n", "Via: 1.1 you\r\n",
}

// answerBody is a line that frames a body, and the body.
func (g *generator) answerBody(isHEAD, last bool) (line string, body []byte) {
	data := g.payload()
	n := g.IntN(5)
	switch {
	case last && g.chance(50):
		line, body = "", data
	case n == 0:
		return "", nil
	case n == 1:
		line, body = pick(g, "Transfer-Encoding: chunked\r\n", "transfer-encoding:Chunked\r\n"), g.chunks(data, nil, pick(g, "", "X-Sum: 7\r\n"))
	default:
		line, body = fmt.Sprintf(pick(g, "Content-Length: %d\r\n", "content-length:%d\r\n"), len(data)), data
	}
	if isHEAD {
		body = nil
	}
	return line, body
}

func (g *generator) oddAnswer(of []string) []byte {
	if g.chance(2) {
		return []byte("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", longHead) + "\r\nContent-Length: 2\r\n\r\nhi")
	}
	return []byte(pick(g, of...))
}

// lastAnswers cannot be framed for certain, but nothing is missing from them.
var lastAnswers = []string{
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nhi",
	"hello\r\n",
	"\x00\x01\x02",
}

// oddAnswers are clear but wrong, or incomplete.
var oddAnswers = []string{
	"",
	"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.0 200 OK\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\n\r\nuntil the end",
	"HTTP/1.1 200 OK\r\nDetour-Served-By: shop/farther\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 503 No\r\nDetour-Error: no-table\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
	"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntoo short",
	"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntoo long",
	"HTTP/1.1 204 No Content\r\n\r\nstray",
	"HTTP/1.1 304 Not Modified\r\n\r\nstray",
	"HTTP/1.1 101 Switching Protocols\r\n\r\nnobody asked",
	"HTTP/1.1 100 Continue\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Le",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}
