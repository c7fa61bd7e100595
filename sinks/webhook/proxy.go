package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// errProxyVariable does not quote the variable: it may hold a password.
var errProxyVariable = errors.New("a proxy variable of the environment (HTTP_PROXY, HTTPS_PROXY) is not a URL that begins with http, https, socks5 or socks5h")

// proxyFor returns the proxy that the environment sets for target, or nil. It is
// asked once: the environment of a process does not change.
func proxyFor(target *url.URL, env *httpproxy.Config) (*url.URL, error) {
	variable := env.HTTPProxy
	if target.Scheme == "https" {
		variable = env.HTTPSProxy
	}
	// ProxyFunc takes a variable that it cannot read for one that is not set:
	// requests would silently go around the proxy.
	if _, err := url.Parse(variable); err != nil {
		if _, err := url.Parse("http://" + variable); err != nil || strings.Contains(variable, "://") {
			return nil, errProxyVariable
		}
	}
	proxy, err := env.ProxyFunc()(target)
	if err != nil {
		return nil, errProxyVariable
	}
	if proxy == nil {
		return nil, nil
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		return proxy, nil
	}
	return nil, errProxyVariable
}

// refuseProxyAnswer replaces the error that net/http would make of the proxy's
// own words.
func refuseProxyAnswer(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return &proxyAnswerError{status: res.StatusCode}
	}
	return nil
}
