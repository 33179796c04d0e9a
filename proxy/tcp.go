package proxy

// relay copies between two connections, a pair's client and the app or a preview, and hands on how they end: a half that
// closes closes the other's, a reset resets.
type relay struct {
	*pair
	a, b *socket
}

func (r *relay) other(s *socket) *socket {
	if s == r.a {
		return r.b
	}
	return r.a
}

func (r *relay) connected(*socket) {}

func (r *relay) data(from *socket, b []byte) int {
	r.other(from).send(b)
	return len(b)
}

func (r *relay) clogged(s *socket, is bool) {
	if is {
		r.other(s).hold(holdClogged)
	} else {
		r.other(s).release(holdClogged)
	}
}

func (r *relay) ended(s *socket, rest []byte) {
	other := r.other(s)
	other.send(rest)
	other.finish()
	if other.told {
		s.end()
		other.end()
	}
}

func (r *relay) closed(s *socket, err error) {
	if err != nil {
		r.other(s).reset()
		r.pair.abort(err)
	} else if r.other(s).gone {
		r.pair.close()
	}
}
