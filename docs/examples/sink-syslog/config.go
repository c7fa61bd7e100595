package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strconv"

	"github.com/callbackd/callbackd/plugins/sink"
)

// Config is what the user writes into config { … }.
type Config struct {
	Address    string                `hcl:"address" doc:"the syslog server: HOST:PORT, TCP"`
	Facility   string                `hcl:"facility" default:"local0" oneof:"user|daemon|auth|authpriv|local0|local1|local2|local3|local4|local5|local6|local7" doc:"the facility of the messages"`
	Severity   string                `hcl:"severity" default:"notice" oneof:"emerg|alert|crit|err|warning|notice|info|debug" doc:"the severity of the messages"`
	AppName    string                `hcl:"app_name" default:"callbackd" doc:"the APP-NAME of the messages: 1 to 48 visible ASCII characters"`
	Message    sink.PerEvent[string] `hcl:"message,optional" doc:"the text of the message; without it, the body of the event"`
	MaxMessage sink.Size             `hcl:"max_message" default:"8KiB" doc:"the longest message that the server takes, 480B to 64KiB; a longer one becomes a dead letter"`
	TLS        *TLS                  `hcl:"tls,block" doc:"speak TLS"`
}

// TLS is what the user writes into tls { … }.
type TLS struct {
	CAFile     sink.Path `hcl:"ca_file,optional" doc:"certificates to trust, in PEM, instead of the system's"`
	ServerName string    `hcl:"server_name,optional" doc:"the name in the server's certificate, where it is not the host of address"`
}

// The bounds of max_message: what every server has to take (RFC 5424, 6.1), and
// what still fits into a batch many times.
const (
	minMessage = 480
	maxMessage = 64 << 10
)

// Validate checks what the types of the settings cannot say, without side effects.
func (c Config) Validate() error {
	host, port, err := net.SplitHostPort(c.Address)
	number, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || host == "" || number == 0 {
		return sink.Invalid("address", "It is not HOST:PORT.", `Write one like "logs.example.com:514".`)
	}
	if c.AppName == "" || visible(c.AppName, 48) != c.AppName {
		return sink.Invalid("app_name", "It is no APP-NAME.", "Use 1 to 48 visible ASCII characters, without spaces.")
	}
	if c.MaxMessage < minMessage || c.MaxMessage > maxMessage {
		return sink.Invalid("max_message", "It is out of range.", `It may be "480B" to "64KiB".`)
	}
	_, err = c.clientTLS()
	return err
}

// clientTLS reads the files that the tls block names; nil without the block.
func (c Config) clientTLS() (*tls.Config, error) {
	if c.TLS == nil {
		return nil, nil
	}
	out := &tls.Config{ServerName: c.TLS.ServerName, MinVersion: tls.VersionTLS12}
	if c.TLS.CAFile == "" {
		return out, nil
	}
	certificates, err := os.ReadFile(string(c.TLS.CAFile))
	if err != nil {
		return nil, sink.Invalid("tls.ca_file", "It cannot be read.", err.Error())
	}
	out.RootCAs = x509.NewCertPool()
	if !out.RootCAs.AppendCertsFromPEM(certificates) {
		return nil, sink.Invalid("tls.ca_file", "There is no certificate in it.", "It has to hold certificates in PEM.")
	}
	return out, nil
}
