//go:build unix

package main

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// closing is a connection that counts how often it was closed.
type closing struct {
	net.Conn
	times atomic.Int64
}

func (c *closing) Close() error {
	c.times.Add(1)
	return nil
}

func idleOne() (*connection, *closing) {
	conn := &closing{}
	return &connection{conn: conn}, conn
}

func TestIdleConnectionsAreTakenFromTheTop(t *testing.T) {
	p := newIdleConnections(2, time.Minute)
	if p.take() != nil {
		t.Error("there is a connection that nobody has put")
	}
	a, _ := idleOne()
	b, _ := idleOne()
	c, tooMany := idleOne()
	p.put(a)
	p.put(b)
	p.put(c)
	if tooMany.times.Load() != 1 {
		t.Error("more are kept than the limit")
	}
	if p.take() != b || p.take() != a || p.take() != nil {
		t.Error("not the one that was used last")
	}
	p.put(a)
	_, last := idleOne()
	p.close()
	p.put(&connection{conn: last})
	if a.conn.(*closing).times.Load() != 1 || last.times.Load() != 1 {
		t.Error("not closed with the sink")
	}
	p.close()
}

func TestIdleConnectionsThatNobodyTakesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newIdleConnections(10, time.Minute)
		busy, busyConn := idleOne()
		rare, rareConn := idleOne()
		never, neverConn := idleOne()
		p.put(never)
		p.put(rare)
		p.put(busy)
		for second := 1; second <= 600; second++ {
			time.Sleep(time.Second)
			synctest.Wait()
			if second == 40 { // in the second period
				p.take()
				p.take()
				p.put(rare)
				p.put(busy)
			}
			p.put(p.take())
			if (neverConn.times.Load() == 1) != (second >= 60) || (rareConn.times.Load() == 1) != (second >= 90) {
				t.Fatalf("after %d s: the one that nobody took was closed %d times, the one that was taken after 40 s %d times", second, neverConn.times.Load(), rareConn.times.Load())
			}
		}
		if busyConn.times.Load() != 0 {
			t.Error("the one in use was closed")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if busyConn.times.Load() != 1 || len(p.stack) != 0 || p.timer != nil {
			t.Errorf("closed %d times, %d are left", busyConn.times.Load(), len(p.stack))
		}
		again, conn := idleOne()
		p.put(again)
		time.Sleep(time.Minute)
		synctest.Wait()
		if conn.times.Load() != 1 {
			t.Error("the sweeps do not begin again")
		}
	})
}
