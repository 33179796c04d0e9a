package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// previewPod is the Pod of the preview of generated conversations.
const previewPod = "shop/preview"

// judge says what is wrong with what a conversation came to through the proxy.
func (c *conversation) judge(got observed) error {
	if err := got.overdue(); err != nil {
		return err
	}
	switch c.kind {
	case mixed:
		return c.judgeMixed(got)
	case hostile:
		return c.judgeHostile(got)
	}
	return c.direct().difference(got)
}

// overdue is the error of a side that was left without an end.
func (o observed) overdue() error {
	var sides []string
	for name, h := range o.sides() {
		if h.end == tooLate {
			sides = append(sides, fmt.Sprintf("the %s waited in vain after %s", name, excerpt(h.bytes)))
		}
	}
	slices.Sort(sides)
	if sides == nil {
		return nil
	}
	return errors.New(strings.Join(sides, "\n"))
}

func (o observed) sides() map[string]heard {
	return map[string]heard{"app": o.app, "preview": o.preview, "client": o.client}
}

// difference is that between a direct conversation and one through the proxy, which nobody may see.
func (o observed) difference(got observed) error {
	if err := got.overdue(); err != nil {
		return err
	}
	proxied := got.sides()
	for _, name := range []string{"app", "preview", "client"} {
		want, got := o.sides()[name], proxied[name]
		if !bytes.Equal(want.bytes, got.bytes) {
			return differs(name, got.bytes, want.bytes)
		}
		if want.end != got.end {
			return fmt.Errorf("the %s saw the end %q, want %q", name, got.end, want.end)
		}
	}
	return nil
}

// differs shows where two texts part.
func differs(name string, got, want []byte) error {
	i := commonPrefix(got, want)
	from := max(0, i-40)
	return fmt.Errorf("the %s got, from byte %d of %d, %s\n  want, of %d, %s",
		name, from, len(got), excerpt(got[from:]), len(want), excerpt(want[from:]))
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// part is what one side gets of a turn.
type part struct {
	turn turn
	form form
}

// form is how a turn arrives.
type form int

const (
	verbatim  form = iota // the request as it was sent
	carrying              // the request with what is added and taken out
	cutShort              // less than the whole request
	answering             // the answer as it was given
	signed                // the answer with the line that says who gave it
	ownAnswer             // an answer of ours
)

// expectation is what a mixed conversation may come to.
type expectation struct {
	app, preview, client []part
	closed               bool // by us, with what comes after it unread
}

// expectations walks through the turns. A refusal other than for doubt may close the connection or not.
func (c *conversation) expectations() []expectation {
	var all []expectation
	var e expectation
	for i, t := range c.turns {
		switch t.fate {
		case forwarded:
			e.app, e.client = append(e.app, part{t, carrying}), append(e.client, part{t, answering})
		case previewed:
			e.preview, e.client = append(e.preview, part{t, carrying}), append(e.client, part{t, signed})
		case refused:
			e.client = append(e.client, part{t, ownAnswer})
			all = append(all, e.close())
			if t.status == 400 {
				return all
			}
		case brokenOff:
			e.preview, e.client = append(e.preview, part{t, cutShort}), append(e.client, part{t, ownAnswer})
			return append(all, e.close())
		default:
			return append(all, e.through(c.turns[i:]))
		}
	}
	return append(all, e)
}

// close is the expectation as it stands, with the connection closed.
func (e expectation) close() expectation {
	return expectation{slices.Clone(e.app), slices.Clone(e.preview), slices.Clone(e.client), true}
}

// through has all turns go the same way from here on.
func (e expectation) through(turns []turn) expectation {
	for i, t := range turns {
		switch {
		case turns[0].fate != tunnelledP:
			e.app, e.client = append(e.app, part{t, verbatim}), append(e.client, part{t, answering})
		case i == 0:
			e.preview, e.client = append(e.preview, part{t, carrying}), append(e.client, part{t, signed})
		default:
			e.preview, e.client = append(e.preview, part{t, verbatim}), append(e.client, part{t, answering})
		}
	}
	return e
}

func (c *conversation) judgeMixed(got observed) error {
	var err error // of the expectation that goes farthest
	for _, e := range c.expectations() {
		if err = e.judge(got); err == nil {
			return nil
		}
	}
	return err
}

func (e expectation) judge(got observed) error {
	sides := got.sides()
	for name, parts := range map[string][]part{"app": e.app, "preview": e.preview, "client": e.client} {
		if err := consumeAll(parts, sides[name].bytes); err != nil {
			return fmt.Errorf("the %s: %w", name, err)
		}
	}
	return e.judgeEnds(got)
}

func consumeAll(parts []part, got []byte) (err error) {
	for _, p := range parts {
		rest, err := p.consume(got)
		if err != nil {
			return fmt.Errorf("%s: %w", p.turn.name, err)
		}
		got = rest
	}
	if len(got) > 0 {
		return fmt.Errorf("got more than there should be: %s", excerpt(got))
	}
	return nil
}

func (e expectation) judgeEnds(got observed) error {
	n := len(e.preview)
	switch {
	case got.client.end != atEOF && !(e.closed && got.client.end == byRST):
		return fmt.Errorf("the client saw the end %q", got.client.end)
	case got.app.end != atEOF && !e.closed:
		return fmt.Errorf("the app saw the end %q", got.app.end)
	case n > 0 && e.preview[n-1].form == cutShort && len(got.preview.bytes) > 0 && got.preview.end != byRST:
		return fmt.Errorf("the preview's request was broken off with %q, want a reset", got.preview.end)
	}
	return nil
}

// consume takes the part from the beginning of what was received.
func (p part) consume(got []byte) (rest []byte, err error) {
	t := p.turn
	switch p.form {
	case verbatim:
		return consume(got, t.bytes)
	case carrying:
		if t.h2c {
			return consumeWithoutOffer(got, t)
		}
		return t.consumeMember(got)
	case cutShort:
		return nil, t.checkCutShort(got)
	case answering:
		return consume(got, t.answer.bytes)
	case signed:
		return t.answer.consumeSigned(got)
	}
	return t.consumeRefusal(got)
}

func consume(got, want []byte) (rest []byte, err error) {
	rest, ok := bytes.CutPrefix(got, want)
	if !ok {
		return nil, differs("other side", got[:min(len(got), len(want)+100)], want)
	}
	return rest, nil
}

func (t turn) consumeMember(got []byte) (rest []byte, err error) {
	want, head := t.carried()
	if t.member == "" {
		return consume(got, want)
	}
	if rest, ok := consumeInserted(got, want, 0, head, memberForms(t.member)); ok {
		return rest, nil
	}
	return nil, fmt.Errorf("want one member %s added to its baggage and nothing else: %w",
		t.member, differs("other side", got[:min(len(got), len(want)+100)], want))
}

// carried is the request as it is sent on, but for the member: to a preview, a URL as the target overrules Host (RFC 9112,
// section 3.2.2).
func (t turn) carried() (b []byte, head int) {
	url := urlTarget.FindSubmatch(t.bytes)
	if url == nil || t.fate != previewed && t.fate != brokenOff && t.fate != tunnelledP {
		return t.bytes, t.head
	}
	b = slices.Concat(hostLine.ReplaceAll(t.bytes[:t.head], []byte("$1: "+string(url[1]))), t.bytes[t.head:])
	return b, t.head + len(b) - len(t.bytes)
}

var (
	urlTarget = regexp.MustCompile(`^\S+ [^ /]*://([^/? ]+)`)
	hostLine  = regexp.MustCompile(`(\r\n(?i:host)):[^\r]*`)
)

// memberForms find a member that may have been added to baggage: in a line of its own, or in one that was there.
func memberForms(member string) []*regexp.Regexp {
	member = regexp.QuoteMeta(member)
	return []*regexp.Regexp{
		regexp.MustCompile(`\r\n((?i:baggage):[ \t]*` + member + `\r\n)`),
		regexp.MustCompile(`\r\n(?i:baggage):[^\r\n]*([ \t]*,[ \t]*` + member + `)`),
		regexp.MustCompile(`\r\n(?i:baggage):[ \t]*(` + member + `[ \t]*,[ \t]*)`),
	}
}

// consumeInserted takes want with one of the forms inserted between from and to, which are offsets in want.
func consumeInserted(got, want []byte, from, to int, forms []*regexp.Regexp) (rest []byte, ok bool) {
	for _, form := range forms {
		for _, m := range form.FindAllSubmatchIndex(got[:min(len(got), to+200)], -1) {
			at, n := m[2], m[3]-m[2]
			if at < from || at > to || !bytes.HasPrefix(want, got[:at]) {
				continue
			}
			if rest, ok := bytes.CutPrefix(got[at+n:], want[at:]); ok {
				return rest, true
			}
		}
	}
	return nil, false
}

// checkCutShort wants the beginning of a request only, with the added member or without.
func (t turn) checkCutShort(got []byte) error {
	want, _ := t.carried()
	want = bytes.TrimSuffix(want, []byte(t.mark))
	if !bytes.HasPrefix(want, got) {
		got = withoutMember(got)
	}
	if !bytes.HasPrefix(want, got) {
		return differs("preview", got, want)
	}
	if len(got) == len(want) {
		return errors.New("got the whole of it")
	}
	return nil
}

var signature = regexp.MustCompile(`\r\n((?i:Detour-Served-By): ?` + previewPod + `\r\n)`)

func (a answer) consumeSigned(got []byte) (rest []byte, err error) {
	head := a.final + bytes.Index(a.bytes[a.final:], []byte("\r\n\r\n")) + len("\r\n")
	rest, ok := consumeInserted(got, a.bytes, a.final, head, []*regexp.Regexp{signature})
	if ok {
		return rest, nil
	}
	if a.doubtful {
		return consume(got, a.bytes)
	}
	return nil, fmt.Errorf("want one line Detour-Served-By added to the final head and nothing else: %w",
		differs("other side", got[:min(len(got), len(a.bytes)+100)], a.bytes))
}

// consumeRefusal takes an answer of ours.
func (t turn) consumeRefusal(got []byte) (rest []byte, err error) {
	head, rest, found := bytes.Cut(got, []byte("\r\n\r\n"))
	if !found || !bytes.HasPrefix(head, []byte(fmt.Sprintf("HTTP/1.1 %d ", t.status))) || !refusalHead.Match(head) {
		return nil, fmt.Errorf("want a refusal %d, got %s", t.status, excerpt(got))
	}
	length := lengthField.FindSubmatch(head)
	if length == nil || t.isHEAD {
		return rest, nil
	}
	n, err := strconv.Atoi(string(length[1]))
	if err != nil || n > len(rest) {
		return nil, fmt.Errorf("a refusal is incomplete: %s", excerpt(got))
	}
	return rest[n:], nil
}

var (
	refusalHead = regexp.MustCompile(`\r\n(?i:Detour-Error): ?[a-z]`)
	lengthField = regexp.MustCompile(`\r\n(?i:Content-Length): ?(\d+)`)
)

// consumeWithoutOffer takes a request whose offer of HTTP/2 was taken out: its lines are gone, or what they list.
func consumeWithoutOffer(got []byte, t turn) (rest []byte, err error) {
	head, rest, _ := bytes.Cut(got, []byte("\r\n\r\n"))
	want := withoutOffer(t.bytes[:t.head-len("\r\n\r\n")])
	if lines := withoutOffer(head); lines != want {
		return nil, differs("other side", []byte(lines), []byte(want))
	}
	if offerLine.Match(head) {
		return nil, fmt.Errorf("the offer of HTTP/2 is still in %s", excerpt(head))
	}
	return consume(rest, t.bytes[t.head:])
}

var offerLine = regexp.MustCompile(`(?i)\r\n((upgrade|http2-settings):|connection:[^\r\n]*(upgrade|http2-settings))`)

// withoutOffer is a head in a form in which it does not matter how the offer was taken out of Connection.
func withoutOffer(head []byte) string {
	lines := strings.Split(string(head), "\r\n")
	var kept []string
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "upgrade", "http2-settings":
		case "connection":
			for option := range strings.SplitSeq(value, ",") {
				option = strings.TrimSpace(option)
				if o := strings.ToLower(option); o != "" && o != "upgrade" && o != "http2-settings" {
					kept = append(kept, "connection: "+option)
				}
			}
		default:
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\r\n")
}

// Hostile conversations end with a damaged request that had a key. Nobody can say what is to become of it, but whatever
// it is, every byte goes to one side, in order, up to a refusal; a preview gets only what is beyond doubt, and an app
// nothing that has the key.
func (c *conversation) judgeHostile(got observed) error {
	last := len(c.turns) - 1
	damaged := c.turns[last]
	before := *c
	before.turns = c.turns[:last]
	direct := before.direct()
	app, ok := bytes.CutPrefix(got.app.bytes, direct.app.bytes)
	if !ok {
		return differs("app", got.app.bytes, direct.app.bytes)
	}
	client, ok := bytes.CutPrefix(got.client.bytes, direct.client.bytes)
	if !ok {
		return differs("client", got.client.bytes, direct.client.bytes)
	}
	return errors.Join(
		judgeShares(withoutHost(damaged.bytes), withoutHost(withoutMember(app)), withoutHost(withoutMember(got.preview.bytes)), client),
		judgePreviewed(got.preview),
		judgeAnswer(damaged, app, got.preview.bytes, client),
	)
}

// withoutMember undoes what is added to a request.
func withoutMember(b []byte) []byte {
	b = joinedMember.ReplaceAll(b, []byte("$1\r\n"))
	return addedMember.ReplaceAll(b, []byte("\r\n"))
}

var joinedMember = regexp.MustCompile(`(\r\n(?i:baggage):[^\r\n]*),detour-key=[^\r\n,;]*\r\n`)

var addedMember = regexp.MustCompile(`\r\n(?i:baggage):[ \t]*detour-key=[^\r\n]*\r\n`)

// withoutHost leaves out what a URL as the target overrules.
func withoutHost(b []byte) []byte {
	if !urlTarget.Match(b) {
		return b
	}
	host := hostLine.FindIndex(b)
	if host == nil {
		return b
	}
	return slices.Concat(b[:host[0]], b[host[1]:])
}

// judgeShares wants each byte that was sent at one side, up to a refusal or an incomplete head.
func judgeShares(sent, app, preview, client []byte) error {
	n := len(app) + len(preview)
	if !shared(sent, app, preview) && !shared(sent, preview, app) {
		return fmt.Errorf("the app got %s\n  and the preview %s", excerpt(app), excerpt(preview))
	}
	answered := bytes.HasPrefix(client, []byte("HTTP/1.")) // what breaks off behind that has no answer of its own
	if n < len(sent) && !answered && bytes.Contains(sent[n:], []byte("\r\n\r\n")) {
		return fmt.Errorf("%s reached nobody, and nobody says why", excerpt(sent[n:]))
	}
	if keyStands(sent) && len(app) > 0 && bytes.HasPrefix(sent, app[:min(len(app), 10)]) {
		return fmt.Errorf("the app got what has a key: %s", excerpt(app))
	}
	return nil
}

// shared reports whether the beginning of sent is outer with inner inside.
func shared(sent, outer, inner []byte) bool {
	n := len(outer) + len(inner)
	if n > len(sent) {
		return false
	}
	for at := commonPrefix(sent, outer); at >= 0; at-- {
		if bytes.HasPrefix(sent[at:], inner) && bytes.Equal(sent[at+len(inner):n], outer[at:]) {
			return true
		}
	}
	return false
}

// keyStands reports whether a damaged request still begins as one and has the line with the key in its head, which ends
// at an empty line, whatever a line ends with.
func keyStands(sent []byte) bool {
	head := sent
	if at := emptyLine.FindIndex(sent); at != nil {
		head = sent[:at[1]]
	}
	return requestLine.Match(head) && keyField.Match(head)
}

var (
	emptyLine   = regexp.MustCompile(`\n\r?\n|\r\r|\r\n\r`)
	requestLine = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+ [A-Za-z/*][^\\x00-\\x20\\x7f]* HTTP/1\\.[01]\r\n")
	keyField    = regexp.MustCompile(`[\r\n](?i:Detour-Key):[ \t]*` + routedKey + `[ \t]*[\r\n]`)
)

// judgePreviewed wants whatever stays at the preview to begin with a head that has one reading.
func judgePreviewed(preview heard) error {
	if len(preview.bytes) == 0 || preview.end == byRST {
		return nil
	}
	head, _, found := bytes.Cut(preview.bytes, []byte("\r\n\r\n"))
	if !found || !clearHead.Match(head) || !clearFraming(head) {
		return fmt.Errorf("the preview got a head in doubt: %s", excerpt(head))
	}
	return nil
}

var (
	clearHead = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+ [^#\\x00-\\x20\\x7f]+ HTTP/1\\.[01]" +
		"(\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+:[^\r\n\x00]*)*$")
	codings = regexp.MustCompile(`\r\n(?i:Transfer-Encoding):[ \t]*([^\r\n]*?)[ \t]*(?:\r\n|$)`)
	lengths = regexp.MustCompile(`\r\n(?i:Content-Length):[ \t]*([^\r\n]*?)[ \t]*(?:\r\n|$)`)
	digits  = regexp.MustCompile(`^[0-9]{1,19}$`)
)

func clearFraming(head []byte) bool {
	c, l := codings.FindAllSubmatch(head, -1), lengths.FindAllSubmatch(head, -1)
	switch {
	case len(c)+len(l) > 1:
		return false
	case len(c) == 1:
		return strings.EqualFold(string(c[0][1]), "chunked") && bytes.Contains(head, []byte(" HTTP/1.1\r\n"))
	case len(l) == 1:
		return digits.Match(l[0][1])
	}
	return true
}

// judgeAnswer wants the right answer for a request that reached one side as a whole.
func judgeAnswer(t turn, app, preview, client []byte) (err error) {
	var rest []byte
	switch {
	case bytes.Equal(app, t.bytes):
		rest, err = consume(client, t.answer.bytes)
	case bytes.Equal(withoutMember(preview), t.bytes):
		rest, err = t.answer.consumeSigned(client)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("the client got more than the answer: %s", excerpt(rest))
	}
	return err
}

// ideal is what an expectation looks like when everything is done right.
func (e expectation) ideal() observed {
	o := observed{app: heard{end: atEOF}, client: heard{end: atEOF}}
	for _, p := range e.app {
		o.app.bytes = append(o.app.bytes, p.ideal()...)
	}
	for _, p := range e.preview {
		o.preview = heard{append(o.preview.bytes, p.ideal()...), atEOF}
		if p.form == cutShort {
			o.preview.end = byRST
		}
	}
	for _, p := range e.client {
		o.client.bytes = append(o.client.bytes, p.ideal()...)
	}
	return o
}

func (p part) ideal() []byte {
	t := p.turn
	switch {
	case p.form == cutShort:
		return t.bytes[:t.head]
	case p.form == answering:
		return t.answer.bytes
	case p.form == signed && t.answer.doubtful:
		return t.answer.bytes
	case p.form == signed:
		return afterLine(t.answer.bytes, t.answer.final, "Detour-Served-By: "+previewPod+"\r\n")
	case p.form == ownAnswer:
		return fmt.Appendf(nil, "HTTP/1.1 %d No\r\nDetour-Error: test\r\n\r\n", t.status)
	case p.form == carrying && t.h2c:
		return append([]byte(withoutOffer(t.bytes[:t.head-4])+"\r\n\r\n"), t.bytes[t.head:]...)
	case p.form == carrying:
		b, _ := t.carried()
		if t.member != "" {
			b = afterLine(b, 0, "baggage: "+t.member+"\r\n")
		}
		return b
	}
	return t.bytes
}

// afterLine puts text behind the line at from.
func afterLine(b []byte, from int, text string) []byte {
	at := from + bytes.Index(b[from:], []byte("\r\n")) + len("\r\n")
	return slices.Concat(b[:at], []byte(text), b[at:])
}

// TestJudge has the oracle see what is right, and then the same with one thing wrong.
func TestJudge(t *testing.T) {
	for seed := uint64(1); seed <= 2000; seed++ {
		c := newConversation(seed)
		right := c.direct()
		if c.kind == mixed {
			all := c.expectations()
			right = all[len(all)-1].ideal()
		} else if c.kind == hostile {
			continue // an app that gets what has a key is wrong
		}
		if err := c.judge(right); err != nil {
			t.Fatalf("seed %d: what is right is refused: %v\n%v", seed, err, c)
		}
		for what, wrong := range wrongs(right) {
			if c.judge(wrong) == nil {
				t.Errorf("seed %d: %s is not seen\n%v", seed, what, c)
			}
		}
	}
}

// wrongs are like o but for one thing.
func wrongs(o observed) map[string]observed {
	all := map[string]observed{}
	add := func(what string, change func(*observed)) {
		wrong := o
		change(&wrong)
		all[what] = wrong
	}
	add("an end that does not come", func(o *observed) { o.client.end = tooLate })
	add("something more for the app", func(o *observed) { o.app.bytes = append(slices.Clone(o.app.bytes), 'x') })
	add("something more for the client", func(o *observed) { o.client.bytes = append(slices.Clone(o.client.bytes), 'x') })
	if n := len(o.app.bytes); n > 0 {
		add("a byte less for the app", func(o *observed) { o.app.bytes = o.app.bytes[:n-1] })
		add("the app's request at the preview", func(o *observed) { o.app.bytes, o.preview.bytes = o.preview.bytes, o.app.bytes })
	}
	if len(o.client.bytes) > 0 {
		add("nothing for the client", func(o *observed) { o.client.bytes = nil })
	}
	return all
}
