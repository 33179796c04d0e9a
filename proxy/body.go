package proxy

import "bytes"

// bodyKind is how a message says where its body ends (RFC 9112, section 6).
type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyLength
	bodyChunked
	bodyUntilEnd // of the connection
)

// framing follows a body through the bytes of a connection. The zero value is that of a message without one.
type framing struct {
	kind bodyKind
	part chunkPart
	left int64 // bytes of the body, or of the chunk
}

// chunkPart is what comes next in a chunked body.
type chunkPart uint8

const (
	chunkSize chunkPart = iota
	chunkData
	chunkDataEnd
	chunkTrailer
)

// next says how many bytes of b belong to the body. If they are fewer than all, the body is done, or there is a line of
// which the rest has to come first, or what follows them is in doubt.
func (f *framing) next(b []byte) (used int, done bool, why doubt) {
	switch f.kind {
	case bodyNone:
		return 0, true, ""
	case bodyUntilEnd:
		return len(b), false, ""
	case bodyLength:
		used = f.take(b)
		return used, f.left == 0, ""
	}
	for used < len(b) {
		n, done, why := f.chunk(b[used:])
		used += n
		if done || why != "" || n == 0 {
			return used, done, why
		}
	}
	return used, false, ""
}

// take passes over as much as is left.
func (f *framing) take(b []byte) int {
	n := min(int64(len(b)), f.left)
	f.left -= n
	return int(n)
}

// chunk takes one part of a chunked body (RFC 9112, section 7.1), if it is there as a whole.
func (f *framing) chunk(b []byte) (used int, done bool, why doubt) {
	if f.part == chunkData {
		used = f.take(b)
		if f.left == 0 {
			f.part = chunkDataEnd
		}
		return used, false, ""
	}
	n := bytes.IndexByte(b, '\n')
	if n < 0 {
		if len(b) > maxChunkLine || f.part == chunkDataEnd && !bytes.HasPrefix([]byte("\r\n"), b) {
			return 0, false, doubtChunk
		}
		return 0, false, ""
	}
	line := b[:n]
	if n == 0 || line[n-1] != '\r' || bytes.IndexByte(line[:n-1], '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return 0, false, doubtChunk
	}
	line = line[:n-1]
	switch f.part {
	case chunkDataEnd:
		if len(line) > 0 {
			return 0, false, doubtChunk
		}
		f.part = chunkSize
	case chunkSize:
		if f.left, why = parseChunkSize(line); why != "" {
			return 0, false, why
		}
		f.part = chunkData
		if f.left == 0 {
			f.part = chunkTrailer
		}
	case chunkTrailer:
		if len(line) == 0 {
			return n + 1, true, ""
		}
		if !trailerAllowed(line) {
			return 0, false, doubtTrailer
		}
	}
	return n + 1, false, ""
}

// maxChunkLine bounds a chunk's extensions, and a trailer field.
const maxChunkLine = 8 << 10

// parseChunkSize reads the line before a chunk. Extensions pass, whatever they say.
func parseChunkSize(line []byte) (size int64, why doubt) {
	digits := 0
	for _, c := range line {
		v := hexValue(c)
		if v < 0 {
			break
		}
		size = size<<4 | int64(v)
		digits++
	}
	if digits == 0 || digits > 15 || digits < len(line) && line[digits] != ';' || len(line) > maxChunkLine {
		return 0, doubtChunk
	}
	return size, ""
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// trailerAllowed refuses what would change how the message is framed or routed (RFC 9110, section 6.5.1).
func trailerAllowed(line []byte) bool {
	colon := nameEnd(line)
	if colon <= 0 || len(line) > maxChunkLine {
		return false
	}
	return fieldOf(line[:colon]) == fieldOther
}
