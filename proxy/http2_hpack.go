package proxy

import "golang.org/x/net/http2/hpack"

// h2Table decodes the header blocks of one peer (RFC 7541). All of them have to be decoded, in the order in which they
// come, because each may change what the next one means. It does what [hpack.Decoder] does, but looks at a field that
// is in the table only once, when it gets there, and makes no copies of what is.
type h2Table struct {
	entries []h2Entry // the oldest first
	size    int
	limit   int
}

// h2Entry is a field and what it means to us.
type h2Entry struct {
	field
	class h2Class
}

func (e *h2Entry) size() int { return len(e.name) + len(e.value) + fieldOverhead }

func newH2Table() *h2Table { return &h2Table{limit: h2DefaultTable} }

// decode reads a header block into h; false means that nothing which follows on the connection can be read.
func (t *h2Table) decode(b []byte, h *h2Head) bool {
	ok := true
	for begun := false; len(b) > 0 && ok; {
		switch c := b[0]; {
		case c&0x80 != 0:
			b, ok = t.indexed(b, h)
			begun = true
		case c&0xe0 == 0x20:
			if begun {
				return false
			}
			b, ok = t.resize(b)
		default:
			b, ok = t.literal(b, h)
			begun = true
		}
	}
	return ok
}

func (t *h2Table) indexed(b []byte, h *h2Head) ([]byte, bool) {
	i, b, ok := cutInt(b, 7)
	e := t.at(i)
	if !ok || e == nil {
		return nil, false
	}
	h.add(e, false)
	return b, true
}

func (t *h2Table) resize(b []byte) ([]byte, bool) {
	n, b, ok := cutInt(b, 5)
	if !ok || n > h2DefaultTable {
		return nil, false
	}
	t.limit = n
	t.evict()
	return b, true
}

func (t *h2Table) literal(b []byte, h *h2Head) ([]byte, bool) {
	form, prefix := b[0], 4
	if form&0xc0 == 0x40 {
		prefix = 6
	}
	i, b, ok := cutInt(b, prefix)
	if !ok {
		return nil, false
	}
	var e h2Entry
	if i == 0 {
		e.name, b, ok = h.cutString(b)
	} else if named := t.at(i); named != nil {
		e.name = named.name
	} else {
		ok = false
	}
	if !ok {
		return nil, false
	}
	if e.value, b, ok = h.cutString(b); !ok {
		return nil, false
	}
	e.class = classOf(e.name, e.value)
	h.add(&e, form&0xf0 == 0x10)
	if prefix == 6 {
		t.entries = append(t.entries, e)
		t.size += e.size()
		t.evict()
	}
	return b, true
}

// at is the entry of an index; nil if there is none.
func (t *h2Table) at(i int) *h2Entry {
	if i > 0 && i <= len(staticTable) {
		return &staticTable[i-1]
	}
	if i = len(t.entries) - (i - len(staticTable)); i >= 0 && i < len(t.entries) {
		return &t.entries[i]
	}
	return nil
}

func (t *h2Table) evict() {
	n := 0
	for t.size > t.limit {
		t.size -= t.entries[n].size()
		n++
	}
	if n > 0 {
		rest := copy(t.entries, t.entries[n:])
		clear(t.entries[rest:])
		t.entries = t.entries[:rest]
	}
}

// cutInt reads an integer that begins in the last bits of b[0] (RFC 7541, section 5.1).
func cutInt(b []byte, bits int) (n int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	most := 1<<bits - 1
	n, b = int(b[0])&most, b[1:]
	if n < most {
		return n, b, true
	}
	for shift := 0; len(b) > 0 && shift <= 21; shift += 7 {
		c := b[0]
		b = b[1:]
		n += int(c&0x7f) << shift
		if c&0x80 == 0 {
			return n, b, true
		}
	}
	return 0, nil, false
}

// cutString reads a string (RFC 7541, section 5.2).
func (h *h2Head) cutString(b []byte) (s string, rest []byte, ok bool) {
	compressed := len(b) > 0 && b[0]&0x80 != 0
	n, b, ok := cutInt(b, 7)
	if !ok || n > len(b) {
		return "", nil, false
	}
	if !compressed {
		return string(b[:n]), b[n:], true
	}
	h.text, ok = appendHuffman(h.text[:0], b[:n])
	return string(h.text), b[n:], ok
}

// staticTable is that of RFC 7541, appendix A.
var staticTable = func() (entries [61]h2Entry) {
	d := hpack.NewDecoder(0, nil)
	for i := range entries {
		fields, _ := d.DecodeFull([]byte{0x80 | byte(i+1)})
		f := field{fields[0].Name, fields[0].Value}
		entries[i] = h2Entry{f, classOf(f.name, f.value)}
	}
	return entries
}()

// huffmanStep is what four bits do: they lead to another node of the code's tree, and may complete a character on the way.
// A code has at least five bits, so it is one at most.
type huffmanStep struct {
	next     uint8
	char     byte
	complete bool
	bad      bool // it is the code of no character
}

// huffman has the steps from each node that is not a leaf, the root first; and padded, whether a string may end there:
// at a code's beginning, or after up to seven bits of padding, which are ones (RFC 7541, section 5.2).
var huffman, padded = func() (steps [256][16]huffmanStep, padded [256]bool) {
	const none = -1
	tree := [][2]int{{none, none}} // below 0, other than none: a character
	for c := range 256 {
		s := string([]byte{byte(c)})
		code := hpack.AppendHuffmanString(nil, s)
		bits := int(hpack.HuffmanEncodeLength(s + s + s + s + s + s + s + s))
		node := 0
		for i := range bits {
			next := &tree[node][code[i/8]>>(7-i%8)&1]
			switch {
			case i == bits-1:
				*next = none - 1 - c
			case *next == none:
				*next = len(tree)
				node = len(tree)
				tree = append(tree, [2]int{none, none})
			default:
				node = *next
			}
		}
	}
	for node := range tree {
		for nibble := range 16 {
			step, at := huffmanStep{}, node
			for i := 3; i >= 0 && !step.bad; i-- {
				if at = tree[at][nibble>>i&1]; at < none {
					step.char, step.complete = byte(none-1-at), true
					at = 0
				}
				step.bad = at == none
			}
			step.next = uint8(max(at, 0))
			steps[node][nibble] = step
		}
	}
	for node, depth := 0, 0; depth < 8; depth++ {
		padded[node] = true
		node = tree[node][1]
	}
	return steps, padded
}()

// appendHuffman decompresses s.
func appendHuffman(b, s []byte) ([]byte, bool) {
	var node uint8
	for _, c := range s {
		for _, nibble := range [2]byte{c >> 4, c & 0xf} {
			step := &huffman[node][nibble]
			if step.complete {
				b = append(b, step.char)
			}
			if step.bad {
				return b, false
			}
			node = step.next
		}
	}
	return b, padded[node]
}
