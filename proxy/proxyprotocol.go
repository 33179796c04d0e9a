package proxy

import (
	"encoding/binary"
	"net/netip"
)

// proxyHeader is what a connection to the app begins with where the app is to know its client by the PROXY protocol,
// version 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2). Where the two addresses are of
// different families, both are given in IPv6.
func proxyHeader(from, to netip.AddrPort) []byte {
	const (
		signature = "\r\n\r\n\x00\r\nQUIT\n"
		proxied   = 0x21 // version 2, command PROXY
		tcp4      = 0x11
		tcp6      = 0x21
	)
	source, target := from.Addr().Unmap(), to.Addr().Unmap()
	family := byte(tcp4)
	if !source.Is4() || !target.Is4() {
		source, target = netip.AddrFrom16(source.As16()), netip.AddrFrom16(target.As16())
		family = tcp6
	}
	addresses := append(source.AsSlice(), target.AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, from.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, to.Port())
	header := append([]byte(signature), proxied, family)
	return append(binary.BigEndian.AppendUint16(header, uint16(len(addresses))), addresses...)
}
