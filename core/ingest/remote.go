package ingest

import (
	"net/netip"
	"strings"
)

// networks is a list of networks.
type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// sender returns the address that a callback came from: the peer's or, where the
// peer is a trusted proxy, the right-most one of X-Forwarded-For or Forwarded
// (RFC 7239) that is not itself trusted. It returns the zero Addr where that
// cannot be told: proxies write one of the two headers, so where both are there
// and differ, one is the sender's own invention.
func (n networks) sender(c *callback) netip.Addr {
	peer := c.peer
	if !n.contain(peer) {
		return peer
	}
	xff, forwarded := c.header.values("x-forwarded-for"), c.header.values("forwarded")
	if len(xff) == 0 && len(forwarded) == 0 {
		return peer
	}
	if len(xff) == 0 {
		return n.farthest(peer, forwardedFor(forwarded))
	}
	addr := n.farthest(peer, strings.Split(strings.Join(xff, ","), ","))
	if len(forwarded) > 0 && addr != n.farthest(peer, forwardedFor(forwarded)) {
		return netip.Addr{}
	}
	return addr
}

// farthest goes from the peer towards the sender as long as it meets trusted
// proxies, and returns where it ends; the zero Addr where that is no address.
func (n networks) farthest(peer netip.Addr, hops []string) netip.Addr {
	addr := peer
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		if hop == "" {
			continue
		}
		addr = hopAddr(hop)
		if !n.contain(addr) {
			break
		}
	}
	return addr
}

// peerAddr parses "address:port".
func peerAddr(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return plainAddr(ap.Addr())
}

// hopAddr parses an address, with or without a port, with or without brackets.
func hopAddr(s string) netip.Addr {
	if a, err := netip.ParseAddr(s); err == nil {
		return plainAddr(a)
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		if a, err := netip.ParseAddr(s[1 : len(s)-1]); err == nil {
			return plainAddr(a)
		}
	}
	return peerAddr(s)
}

// plainAddr drops what would hide an address from a network that contains it.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// forwardedFor returns the "for" of each element of Forwarded headers. An element
// without one, or one that cannot be read, counts as a hop of unknown address.
func forwardedFor(values []string) []string {
	elements, balanced := splitQuoted(strings.Join(values, ","), ',')
	if !balanced {
		// A sender's open quote swallows what the proxy added behind it.
		return []string{"unknown"}
	}
	var hops []string
	for _, element := range elements {
		if strings.TrimSpace(element) == "" {
			continue
		}
		hop := "unknown"
		params, _ := splitQuoted(element, ';')
		for _, param := range params {
			name, value, ok := strings.Cut(strings.TrimSpace(param), "=")
			if ok && strings.EqualFold(name, "for") {
				hop = unquote(value)
				break
			}
		}
		hops = append(hops, hop)
	}
	return hops
}

// splitQuoted splits at sep outside of quoted strings, and tells whether every
// quote was closed.
func splitQuoted(s string, sep byte) (out []string, balanced bool) {
	quoted := false
	start := 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:]), !quoted
}

// unquote removes the quotes of a quoted string. Addresses need no escapes: what
// has one stays unreadable.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
