package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// errRefusedAddress is the reason of a dial that the guard refused.
var errRefusedAddress = errors.New("refused: a link-local or cloud metadata address (allow_link_local lifts this)")

// addressGuard refuses the addresses on which clouds hand out credentials and
// configuration of the machine to whoever asks from it, and the link-local
// networks they live in. Loopback and private networks are not among them: an
// ops team has receivers there.
type addressGuard struct {
	refused []netip.Prefix

	// Prefixes of IPv6 addresses that carry an IPv4 address, which a gateway on
	// the way may turn back into it.
	compatible, translated, nat64, nat64Local, sixToFour netip.Prefix
}

func newAddressGuard() *addressGuard {
	return &addressGuard{
		refused: []netip.Prefix{
			netip.MustParsePrefix("169.254.0.0/16"),         // IPv4 link-local: the metadata services of nearly all clouds
			netip.MustParsePrefix("100.100.100.200/32"),     // Alibaba Cloud metadata
			netip.MustParsePrefix("168.63.129.16/32"),       // Azure WireServer
			netip.MustParsePrefix("192.0.0.192/32"),         // Oracle Cloud (classic) metadata
			netip.MustParsePrefix("224.0.0.0/24"),           // IPv4 link-local multicast
			netip.MustParsePrefix("fe80::/10"),              // IPv6 link-local
			netip.MustParsePrefix("fd00:ec2::/32"),          // AWS metadata, DNS, time, pod identity
			netip.MustParsePrefix("fd20:ce::254/128"),       // Google Cloud metadata
			netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle Cloud metadata
			netip.MustParsePrefix("fd00:42::42/128"),        // Scaleway metadata
			netip.MustParsePrefix("ff02::/16"),              // IPv6 link-local multicast
		},
		compatible: netip.MustParsePrefix("::/96"),           // RFC 4291, 2.5.5.1
		translated: netip.MustParsePrefix("::ffff:0:0:0/96"), // RFC 7915
		nat64:      netip.MustParsePrefix("64:ff9b::/96"),    // RFC 6052
		nat64Local: netip.MustParsePrefix("64:ff9b:1::/48"),  // RFC 8215
		sixToFour:  netip.MustParsePrefix("2002::/16"),       // RFC 3056
	}
}

// refuses tells whether requests to addr are refused.
func (g *addressGuard) refuses(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("") // a prefix contains no address with a zone
	if g.listed(addr) {
		return true
	}
	if !addr.Is6() {
		return false
	}
	b := addr.As16()
	switch {
	case g.compatible.Contains(addr), g.translated.Contains(addr), g.nat64.Contains(addr):
		return g.listed(netip.AddrFrom4([4]byte(b[12:16])))
	case g.sixToFour.Contains(addr):
		return g.listed(netip.AddrFrom4([4]byte(b[2:6])))
	case g.nat64Local.Contains(addr):
		// The operator of the network chooses how long the prefix is: 48, 56, 64
		// or 96 bits (RFC 6052, 2.2; bits 64 to 71 stay zero).
		return g.listed(netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]})) ||
			g.listed(netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]})) ||
			g.listed(netip.AddrFrom4([4]byte{b[9], b[10], b[11], b[12]})) ||
			g.listed(netip.AddrFrom4([4]byte(b[12:16])))
	}
	return false
}

func (g *addressGuard) listed(addr netip.Addr) bool {
	return slices.ContainsFunc(g.refused, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// control is a net.Dialer.Control. It sees the address after the name was
// resolved and before the first packet, so a name that resolves to something
// else the second time does not get around it.
func (g *addressGuard) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		// Fail closed: what cannot be judged is not dialled.
		return fmt.Errorf("cannot judge the address: %w", errRefusedAddress)
	}
	if g.refuses(ap.Addr()) {
		return errRefusedAddress
	}
	return nil
}
