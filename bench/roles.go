package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"
)

// Roles: the program runs itself again for each process of a load, so that what
// each costs is known.
const (
	roleGenerator  = "role:generator"
	roleReceiver   = "role:receiver"
	roleBare       = "role:bare"
	roleProxy      = "role:proxy"
	roleTunedProxy = "role:tuned-proxy"
)

// play plays a role until standard input ends: so none outlives the one that
// started it.
func play(role, argument string) error {
	if role == roleGenerator || role == roleReceiver {
		debug.SetGCPercent(400)
	}
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	ctx := context.Background()
	switch role {
	case roleGenerator:
		var o order
		if err := json.Unmarshal([]byte(argument), &o); err != nil {
			return err
		}
		begin := func() error {
			if !in.Scan() {
				return io.ErrUnexpectedEOF
			}
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin)
				os.Exit(0)
			}()
			return nil
		}
		if err := generate(o, begin, func(r report) error { return out.Encode(r) }); err != nil {
			return err
		}
		select {} // what it has used is read while it is there
	case roleReceiver:
		var o receiverOrder
		if err := json.Unmarshal([]byte(argument), &o); err != nil {
			return err
		}
		r, address, err := newReceiver(o)
		if err != nil {
			return err
		}
		fmt.Println(address)
		failed := make(chan error, 1)
		go func() { failed <- r.run() }()
		go func() {
			for in.Scan() {
				if err := out.Encode(r.tell(in.Text())); err != nil {
					break
				}
			}
			failed <- in.Err()
		}()
		return <-failed
	case roleBare, roleProxy, roleTunedProxy:
		ln, err := listenLoopback(ctx)
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		switch role {
		case roleBare:
			return serveBare(ln)
		case roleProxy:
			return serveProxy(ln, argument)
		}
		return serveTunedProxy(ln, argument)
	}
	return fmt.Errorf("there is no role %q", role)
}

// player is a process of this program that plays a role.
type player struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// endPatience is how long a process may take to end when it is told to.
const endPatience = 5 * time.Second

func startRole(ctx context.Context, role string, argument any) (*player, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, ok := argument.(string)
	if !ok {
		b, err := json.Marshal(argument)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	p := &player{cmd: exec.CommandContext(ctx, self, role, text)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<16)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

// line reads the next line that the process prints.
func (p *player) line() (string, error) {
	text, err := p.out.ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = errors.Join(errors.New("the process ended"), p.cmd.Wait())
	}
	return strings.TrimSpace(text), err
}

// ask says a line, and reads the answer into v.
func (p *player) ask(text string, v any) error {
	if _, err := fmt.Fprintln(p.in, text); err != nil {
		return err
	}
	return p.read(v)
}

func (p *player) read(v any) error {
	text, err := p.line()
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), v)
}

// end ends the process.
func (p *player) end() {
	_ = p.in.Close()
	timer := time.AfterFunc(endPatience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait() // how a role ends says nothing
}
