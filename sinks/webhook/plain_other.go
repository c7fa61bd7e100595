//go:build !unix

package main

import "time"

// newPlainTransport uses net/http: the lean transport needs a look at a
// connection's buffer that only Unix has.
func newPlainTransport(r route, now func() time.Time) (transport, error) { return newNetHTTP(r, now) }
