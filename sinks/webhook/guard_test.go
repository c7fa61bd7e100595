package main

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

func TestGuardRefuses(t *testing.T) {
	refused := []string{
		"169.254.169.254", "169.254.170.2", "169.254.0.23", "169.254.0.0", "169.254.255.255",
		"100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1",
		"fe80::1", "fe80::1%eth0", "febf:ffff::1", "ff02::1",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42",
		"::ffff:169.254.169.254",     // IPv4-mapped
		"::ffff:100.100.100.200",     // IPv4-mapped
		"::169.254.169.254",          // IPv4-compatible
		"::ffff:0:169.254.169.254",   // IPv4-translated
		"64:ff9b::169.254.169.254",   // NAT64
		"64:ff9b::a9fe:a9fe",         // NAT64
		"64:ff9b:1::169.254.169.254", // local NAT64, /96
		"64:ff9b:1:a9fe:a9:fe00::",   // local NAT64, /48
		"64:ff9b:1:a9:fe:a9fe::",     // local NAT64, /56
		"64:ff9b:1:0:a9:fea9:fe00:0", // local NAT64, /64
		"2002:a9fe:a9fe::1",          // 6to4
		"64:ff9b::168.63.129.16",
	}
	allowed := []string{
		"127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.201",
		"0.0.0.0", "::", "169.253.255.255", "169.255.0.0", "168.63.129.17", "192.0.0.193",
		"8.8.8.8", "2001:db8::1", "fd00::1", "fd12:3456::1", "fec0::1", "::ffff:127.0.0.1",
		"64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8", "2002:0808:0808::1",
	}
	guard := newAddressGuard()
	for _, s := range refused {
		if !guard.refuses(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
		if err := guard.control("tcp", net.JoinHostPort(s, "80"), nil); !errors.Is(err, errRefusedAddress) {
			t.Errorf("dialling %s: %v", s, err)
		}
	}
	for _, s := range allowed {
		if guard.refuses(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
		if err := guard.control("tcp", net.JoinHostPort(s, "80"), nil); err != nil {
			t.Errorf("dialling %s: %v", s, err)
		}
	}
	for _, s := range []string{"", "169.254.169.254", "metadata:80", "/run/socket"} {
		if err := guard.control("tcp", s, nil); !errors.Is(err, errRefusedAddress) {
			t.Errorf("an address that cannot be judged (%q) was let through: %v", s, err)
		}
	}
}

// The guard must hold where it counts: in the dialer that deliveries use. A
// packet to this address would be answered late or never, a refusal comes at
// once.
func TestDialToMetadataAddressIsRefused(t *testing.T) {
	for _, address := range []string{"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1%lo]:80"} {
		conn, err := newDialer(false).DialContext(t.Context(), "tcp", address)
		if !errors.Is(err, errRefusedAddress) {
			t.Errorf("%s: got connection %v, error %v", address, conn, err)
		}
	}
}

// to returns a transport whose target is not the one that the settings say, as if
// the name in there had been resolved to another address.
func to[T transport](target string, connect func(route, func() time.Time) (T, error)) func(route, func() time.Time) (T, error) {
	return func(r route, now func() time.Time) (T, error) {
		var err error
		if r.target, err = url.Parse(target); err != nil {
			panic(err)
		}
		return connect(r, now)
	}
}

// A name is judged by what it resolves to when it is dialled. The settings
// cannot know that address, so the delivery has to refuse it.
func TestDeliveryToMetadataAddressIsRefused(t *testing.T) {
	const metadata = "http://169.254.169.254/"
	config := Config{URL: sink.NewSecret("http://127.0.0.1:1/")}
	for name, w := range map[string]*webhook{
		"chosen": openOver(t, config, to(metadata, newTransport)), "nethttp": openOver(t, config, to(metadata, newNetHTTP)),
	} {
		err := w.Deliver(t.Context(), sampleEvent())
		wantOutcome(t, err, sink.OutcomeRetry, 0)
		if want := "cannot connect: " + errRefusedAddress.Error(); err.Error() != want {
			t.Errorf("%s: got %q, want %q", name, err, want)
		}
	}
}

func TestAllowLinkLocal(t *testing.T) {
	if newDialer(true).Control != nil {
		t.Error("guarded in spite of allow_link_local")
	}
	const address = "http://169.254.169.254/"
	if err := withDefaults(Config{URL: sink.NewSecret(address)}).Validate(); err == nil {
		t.Error("taken without allow_link_local")
	}
	openWebhook(t, Config{URL: sink.NewSecret(address), AllowLinkLocal: true})
}
