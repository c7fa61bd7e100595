package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/idna"

	"github.com/callbackd/callbackd/plugins/sink"
)

// The formats.
const (
	formatBody       = "body"
	formatBinary     = "cloudevents-binary"
	formatStructured = "cloudevents-structured"
)

// Config is the content of the config block.
type Config struct {
	URL            sink.Secret                      `hcl:"url" doc:"where to send: an http or https URL without fragment. A user name and password in it are sent as basic authentication"`
	Method         string                           `hcl:"method" default:"POST" oneof:"POST|PUT|PATCH" doc:"the request method"`
	Format         string                           `hcl:"format" default:"body" oneof:"body|cloudevents-binary|cloudevents-structured" doc:"\"body\": the bytes and content type as received. \"cloudevents-binary\": the body, with the event's attributes in ce-… headers. \"cloudevents-structured\": one CloudEvents JSON object"`
	Headers        sink.PerEvent[map[string]string] `hcl:"headers,optional,sensitive" doc:"headers to send. One with an empty value is not sent"`
	SigningSecrets []sink.Secret                    `hcl:"signing_secrets,optional" doc:"up to 8 secrets of Standard Webhooks, \"whsec_\" and the base64 of 24 to 64 bytes. Each signs, the first one first"`
	TLS            *TLS                             `hcl:"tls,block" doc:"how the receiver is authenticated, and the sink to it"`
	FinalStatus    []int                            `hcl:"final_status" default:"[400,404,405,410,413,414,415,422,501]" doc:"status codes, 300 to 599, after which an event is not tried again. []: none. 429 cannot be listed"`
	AllowLinkLocal bool                             `hcl:"allow_link_local" default:"false" doc:"allow receivers on link-local and cloud metadata addresses"`
}

// TLS is the content of the tls block. The files are in PEM form and read again
// when they change.
type TLS struct {
	CAFile     sink.Path `hcl:"ca_file,optional" doc:"the authorities to trust, instead of the system's. PEM"`
	CertFile   sink.Path `hcl:"cert_file,optional" doc:"the client certificate. PEM; needs key_file"`
	KeyFile    sink.Path `hcl:"key_file,optional" doc:"the private key of the client certificate. PEM; needs cert_file"`
	ServerName string    `hcl:"server_name,optional" doc:"the host name to expect in the receiver's certificate, instead of the one in url"`
}

// Validate checks what the schema cannot say. It reads the TLS files and
// connects to nothing.
func (c Config) Validate() error {
	_, err := c.resolve()
	return err
}

// settings are a Config that was checked, in the form that deliveries need.
type settings struct {
	target        *url.URL // without user information
	authorization string   // of the user information, else empty
	proxy         *url.URL // nil: none
	keys          [][]byte
	files         tlsFiles
}

// resolve checks the settings, tells all mistakes at once, and returns them in
// the form that deliveries need.
func (c Config) resolve() (settings, error) {
	var (
		s        settings
		mistakes []error
	)
	mistake := func(path, summary, detail string) {
		mistakes = append(mistakes, sink.Invalid(path, summary, detail))
	}
	report := func(err error) {
		var wrong *settingError
		if errors.As(err, &wrong) {
			mistake(wrong.path, wrong.summary, wrong.detail)
		}
	}

	var err error
	if s.target, s.authorization, err = parseTarget(c.URL.Reveal(), c.AllowLinkLocal); err != nil {
		report(err)
	} else if s.proxy, err = proxyFor(s.target, httpproxy.FromEnvironment()); err != nil {
		mistake("url", err.Error(), "Correct the variable where callbackd is started, or exempt the receiver with NO_PROXY.")
	}

	if headers, ok := c.Headers.Get(sink.Event{}); ok {
		if _, err := (headerRules{c.Format}).compile(headers); err != nil {
			var wrong *headerError
			if errors.As(err, &wrong) {
				mistake(fmt.Sprintf("headers[%q]", wrong.name), wrong.Error(), "")
			}
		}
	}

	if len(c.SigningSecrets) > maxSigningSecrets {
		mistake("signing_secrets", fmt.Sprintf("there are %d signing secrets, at most %d are allowed", len(c.SigningSecrets), maxSigningSecrets), "Remove those that no receiver uses any more.")
	}
	for i, secret := range c.SigningSecrets {
		key, err := parseSecret(secret.Reveal())
		if err != nil {
			mistake(fmt.Sprintf("signing_secrets[%d]", i), err.Error(), `A secret is "whsec_" followed by the base64 of 24 to 64 random bytes.`)
			continue
		}
		s.keys = append(s.keys, key)
	}

	for i, status := range c.FinalStatus {
		path := fmt.Sprintf("final_status[%d]", i)
		switch {
		case status < 300 || status > 599:
			mistake(path, fmt.Sprintf("%d is not a status code from 300 to 599", status), "Answers of 2xx are always a success.")
		case status == 429:
			mistake(path, "429 cannot be final: it asks to slow down and try again", "Remove it.")
		}
	}

	if c.TLS != nil {
		s.files = tlsFiles{ca: string(c.TLS.CAFile), cert: string(c.TLS.CertFile), key: string(c.TLS.KeyFile), serverName: c.TLS.ServerName}
		if s.target != nil && s.target.Scheme != "https" {
			mistake("tls", "tls needs a url that begins with https", "Change the scheme of url, or remove the block.")
		}
		if name := c.TLS.ServerName; name != "" && !validHostName(name) {
			mistake("tls.server_name", "this is not a host name", "Give a host name without scheme and port, for example crm.example.com.")
		}
		if _, err := s.files.load(); err != nil {
			report(err)
		}
	}
	return s, errors.Join(mistakes...)
}

// parseTarget reads url. Its errors are settingErrors that quote nothing of it:
// it may hold a password or a token, also in places where it does not belong.
func parseTarget(raw string, allowLinkLocal bool) (target *url.URL, authorization string, err error) {
	wrong := func(summary, detail string) (*url.URL, string, error) {
		return nil, "", &settingError{"url", summary, detail}
	}
	const example = "Give the full address, for example https://crm.example.com/callbacks."
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return wrong("url is not a valid URL", "Give the full address, for example https://crm.example.com/callbacks; special characters in a user name or password must be percent-encoded.")
	case u.Scheme != "http" && u.Scheme != "https":
		return wrong("url must begin with http:// or https://", example)
	case u.Opaque != "" || u.Hostname() == "":
		return wrong("url has no host name", example)
	case strings.Contains(raw, "#"):
		return wrong("url must not have a fragment (#…)", "A fragment is never sent; percent-encode a # that belongs to the path or query as %23.")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return wrong("the port of url is not between 1 and 65535", example)
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return wrong("the port of url is missing after the colon", example)
	}
	host := strings.TrimSuffix(u.Hostname(), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		if !allowLinkLocal && newAddressGuard().refuses(addr) {
			return wrong("url is a link-local or cloud metadata address", "Such addresses are refused, since machines hand out credentials there. Set allow_link_local = true if the receiver really is there.")
		}
	} else if !validHostName(host) {
		return wrong("the host name of url is not valid", example)
	}
	if u.Host, err = httpguts.PunycodeHostPort(u.Host); err != nil {
		return wrong("the host name of url is not valid", example)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		authorization = basicAuthorization(u.User.Username(), password)
		u.User = nil
	}
	return u, authorization, nil
}

// validHostName tells whether name can be a host name. One that ends in a number
// is none: some resolvers take 2852039166 or 0xa9fea9fe for an IPv4 address.
func validHostName(name string) bool {
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil {
		// Underscores are not allowed in host names, but in use in DNS.
		if ascii, err = idna.New(idna.MapForLookup(), idna.StrictDomainName(false)).ToASCII(name); err != nil {
			return false
		}
	}
	if ascii == "" || len(ascii) > 253 || strings.ContainsAny(ascii, ":/@?#[]% ") || !httpguts.ValidHostHeader(ascii) {
		return false
	}
	last := strings.ToLower(ascii[strings.LastIndexByte(ascii, '.')+1:])
	if isDigits(last) {
		return false
	}
	hex, isHex := strings.CutPrefix(last, "0x")
	return !isHex || strings.Trim(hex, "0123456789abcdef") != ""
}
