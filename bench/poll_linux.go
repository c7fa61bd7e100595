package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// A poller serves raw connections on one thread: a goroutine for each would cost
// several times as much, and that time would be missing for what is measured.
type poller struct {
	epoll  int
	events [512]syscall.EpollEvent
	conns  map[int32]*conn
	listen int // file descriptor whose connections are taken; -1: none
}

// conn is a connection of a poller.
type conn struct {
	fd   int
	in   []byte // has come in and is not read yet
	out  []byte // could not be written yet
	gone bool

	call call // of the generator
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{epoll: fd, conns: make(map[int32]*conn), listen: -1}, nil
}

func (p *poller) watch(fd int) error {
	err := syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// serve listens on a port of the loopback address; 0: a free one.
func (p *poller) serve(port int) (address string, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return "", fmt.Errorf("reuseaddr: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return "", fmt.Errorf("getsockname: %w", err)
	}
	at, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return "", errors.New("the socket has no IPv4 address")
	}
	p.listen = fd
	return fmt.Sprintf("127.0.0.1:%d", at.Port), p.watch(fd)
}

// dial connects to an IPv4 address.
func (p *poller) dial(address string) (*conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().Is4() {
		return nil, fmt.Errorf("%q is not an IPv4 address with a port", address)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return p.take(fd)
}

func (p *poller) take(fd int) (*conn, error) {
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return nil, fmt.Errorf("nodelay: %w", err)
	}
	c := &conn{fd: fd, in: make([]byte, 0, 4<<10)}
	p.conns[int32(fd)] = c
	return c, p.watch(fd)
}

// wait waits for connections that have something to read, for ever where timeout
// is negative, and calls f with each after it was read. A connection that has
// ended is gone by then.
func (p *poller) wait(timeout time.Duration, f func(*conn) error) error {
	n, err := syscall.EpollWait(p.epoll, p.events[:], waitMillis(timeout))
	if errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, e := range p.events[:n] {
		if int(e.Fd) == p.listen {
			if err := p.accept(); err != nil {
				return err
			}
			continue
		}
		c := p.conns[e.Fd]
		if c == nil {
			continue
		}
		if e.Events&syscall.EPOLLOUT != 0 {
			if err := p.flush(c); err != nil {
				return err
			}
		}
		if e.Events&^syscall.EPOLLOUT == 0 {
			continue
		}
		p.read(c)
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

// waitMillis rounds up: a wait of 0 would spin.
func waitMillis(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

func (p *poller) accept() error {
	for {
		fd, _, err := syscall.Accept4(p.listen, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		if _, err := p.take(fd); err != nil {
			return err
		}
	}
}

func (p *poller) read(c *conn) {
	if len(c.in) == cap(c.in) {
		c.in = append(c.in, make([]byte, max(len(c.in), 4<<10))...)[:len(c.in)]
	}
	n, err := syscall.Read(c.fd, c.in[len(c.in):cap(c.in)])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
	case err != nil, n == 0:
		p.close(c)
	default:
		c.in = c.in[:len(c.in)+n]
	}
}

// write sends b; what the kernel does not take at once follows when it can. b may
// be used again after it.
func (p *poller) write(c *conn, b []byte) error {
	if c.gone {
		return nil
	}
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return nil
	}
	n, err := syscall.Write(c.fd, b)
	gone := err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	if gone {
		p.close(c) // whoever has a callback open finds it gone
		return nil
	}
	if n = max(0, n); n == len(b) {
		return nil
	}
	c.out = append(c.out, b[n:]...)
	return p.await(c, syscall.EPOLLIN|syscall.EPOLLOUT)
}

func (p *poller) flush(c *conn) error {
	n, err := syscall.Write(c.fd, c.out)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		c.out = nil
		return p.await(c, syscall.EPOLLIN) // reading tells that it has ended
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) > 0 {
		return nil
	}
	return p.await(c, syscall.EPOLLIN)
}

func (p *poller) await(c *conn, events uint32) error {
	err := syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_MOD, c.fd, &syscall.EpollEvent{Events: events, Fd: int32(c.fd)})
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// drop forgets what was read of c.
func (c *conn) drop(n int) { c.in = c.in[:copy(c.in, c.in[n:])] }

func (p *poller) close(c *conn) {
	if !c.gone {
		c.gone = true
		delete(p.conns, int32(c.fd))
		_ = syscall.Close(c.fd)
	}
}
