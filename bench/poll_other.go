//go:build !linux

package main

import (
	"errors"
	"time"
)

var errNotLinux = errors.New("the load needs Linux: it reads /proc and uses epoll")

type poller struct{}

type conn struct {
	in   []byte
	gone bool
	call call
}

func newPoller() (*poller, error) { return nil, errNotLinux }

func (*poller) serve(int) (string, error)                   { return "", errNotLinux }
func (*poller) dial(string) (*conn, error)                  { return nil, errNotLinux }
func (*poller) wait(time.Duration, func(*conn) error) error { return errNotLinux }
func (*poller) write(*conn, []byte) error                   { return errNotLinux }
func (*poller) close(*conn)                                 {}
func (*conn) drop(int)                                      {}
