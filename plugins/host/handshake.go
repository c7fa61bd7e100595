package host

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/callbackd/callbackd/plugins/internal/wire"
)

const (
	// coreProtocol is the version of go-plugin's own handshake.
	coreProtocol = 1
	// maxSocketPath is what the kernel takes as the path of a socket.
	maxSocketPath = 107
)

// errNoHandshake: standard output ended without a line. What that means depends
// on how the process ended.
var errNoHandshake = errors.New("no handshake")

// checkHandshake checks a plugin's first line before go-plugin sees it:
// CORE|VERSION|NETWORK|ADDRESS|PROTOCOL|CERTIFICATE|…
func (c *child) checkHandshake(line string) error {
	fields := strings.Split(line, "|")
	if len(fields) < 4 {
		return c.badHandshake(line, "")
	}
	if core, err := strconv.Atoi(fields[0]); err != nil {
		return c.badHandshake(line, "")
	} else if core != coreProtocol {
		return fmt.Errorf("plugin %s uses version %d of go-plugin's handshake, callbackd uses version %d: build it with go-plugin 1.x", c.program, core, coreProtocol)
	}
	if version, err := strconv.Atoi(fields[1]); err != nil {
		return c.badHandshake(line, "its protocol version is not a number")
	} else if version != wire.ProtocolVersion {
		return fmt.Errorf("plugin %s speaks version %d of the sink protocol, this callbackd speaks version %d: use a plugin that was built for it", c.program, version, wire.ProtocolVersion)
	}
	if err := checkAddress(fields[2], fields[3]); err != nil {
		return c.badHandshake(line, err.Error())
	}
	if len(fields) < 5 || fields[4] != "grpc" {
		return fmt.Errorf("plugin %s does not serve gRPC: its handshake says %q", c.program, strings.Join(fields[4:min(5, len(fields))], ""))
	}
	return c.checkCertificate(line, fields)
}

// checkCertificate: go-plugin takes a sixth field of more than 50 characters as
// the plugin's certificate.
func (c *child) checkCertificate(line string, fields []string) error {
	given := len(fields) >= 6 && len(fields[5]) > 50
	switch {
	case !given && !c.plainText:
		return fmt.Errorf("plugin %s has no TLS certificate in its handshake: it has to use the one in PLUGIN_CLIENT_CERT and answer with its own (go-plugin's AutoMTLS)", c.program)
	case given && c.plainText:
		return fmt.Errorf("plugin %s answers with a TLS certificate that was not asked for", c.program)
	case given:
		if _, err := base64.RawStdEncoding.DecodeString(fields[5]); err != nil {
			return c.badHandshake(line, "its certificate is not in base64 without padding")
		}
	}
	return nil
}

// checkAddress lets through what is on this machine only.
func checkAddress(network, address string) error {
	switch network {
	case "unix":
		if !filepath.IsAbs(address) {
			return errors.New("its socket has no absolute path")
		}
		if len(address) > maxSocketPath {
			return fmt.Errorf("its socket's path has more than %d bytes", maxSocketPath)
		}
		return nil
	case "tcp":
		addr, err := netip.ParseAddrPort(address)
		if err != nil || !addr.Addr().IsLoopback() {
			return errors.New("its address is not a loopback address with a port")
		}
		return nil
	}
	return errors.New(`its network is neither "unix" nor "tcp"`)
}

// badHandshake is the error for a first line that is not what it should be.
func (c *child) badHandshake(line, why string) error {
	if why != "" {
		why = " (" + why + ")"
	}
	shown := c.stdoutLog.log.texts.clean(line, 200)
	return fmt.Errorf("plugin %s printed %q as its first line, which is not a plugin's handshake%s: is it a callbackd sink plugin? It must print nothing to standard output before its handshake", c.program, shown, why)
}
