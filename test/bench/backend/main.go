// Command backend is what stands behind the proxies in the benchmark: the app, on 127.0.0.1, and a preview of it, on
// 127.0.0.2, each on a port for small answers and one for large bodies.
//
//	backend -small 8080 -bulk 8081
//
// On the first it speaks HTTP/1.1, and HTTP/2 with prior knowledge as a gRPC server does: 128 bytes, which are all 'a'
// from the app and all 'p' from the preview. It looks at requests no more than it must to tell where they end, so that
// it costs little beside the load generator, whose core it shares. On the second, see [serveBulk].
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
)

var hosts = map[string]byte{"127.0.0.1": 'a', "127.0.0.2": 'p'}

func main() {
	small := flag.Int("small", 0, "the `port` for small answers")
	bulk := flag.Int("bulk", 0, "the `port` for large bodies")
	flag.Parse()
	log.Fatal(run(*small, *bulk))
}

func run(small, bulk int) error {
	loop, err := newLoop()
	if err != nil {
		return err
	}
	ended := make(chan error)
	for host, letter := range hosts {
		if err := loop.listen(host, small, newAnswers(letter)); err != nil {
			return err
		}
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, bulk))
		if err != nil {
			return err
		}
		go func() { ended <- serveBulk(l) }()
	}
	go func() { ended <- loop.run() }()
	return errors.Join(errors.New("a listener ended"), <-ended)
}
