package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// Event is what a watchdog learns of the director beside it, one of Connected,
// Heard, Lost and Gone.
type Event interface{ event() }

type (
	// Connected says that a director's process is there.
	Connected struct{ Process *Process }
	// Heard is a report.
	Heard struct{ Report Report }
	// Lost says that the connection ended, which proves nothing.
	Lost struct{ Err error }
	// Gone says that the process has ended: it will never write anything again.
	// Every report that it sent was told before.
	Gone struct{ PID int }
)

func (Connected) event() {}
func (Heard) event()     {}
func (Lost) event()      {}
func (Gone) event()      {}

const (
	retry = 20 * time.Millisecond // between two attempts to connect
	drain = 50 * time.Millisecond // for the last reports of a process that has ended
)

// Follow stays connected to the director at path until ctx ends, and tells
// what it learns. tell is called from several goroutines, and must not wait
// for long.
func Follow(ctx context.Context, path string, tell func(Event)) error {
	var group errgroup.Group
	var held *Process // the newest one
	for ctx.Err() == nil {
		link, process, err := connect(ctx, path, held)
		if err == nil {
			if process != held {
				held = process
				tell(Connected{process})
				group.Go(func() error { return watch(ctx, process, tell) })
			}
			process.reading <- struct{}{}
			err = listen(ctx, link, tell)
			<-process.reading
			if ctx.Err() == nil {
				tell(Lost{err})
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
	return group.Wait()
}

// connect returns a connection and the process at its other end, which is the
// one held already if it is the same.
func connect(ctx context.Context, path string, held *Process) (*net.UnixConn, *Process, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, path)
	if err != nil {
		return nil, nil, err
	}
	link := conn.(*net.UnixConn)
	process, err := peer(link)
	if err != nil {
		link.Close()
		return nil, nil, err
	}
	if held != nil && held.PID == process.PID && !held.ended() {
		process.Close()
		process = held
	}
	return link, process, nil
}

// listen tells reports until the connection ends.
func listen(ctx context.Context, link *net.UnixConn, tell func(Event)) error {
	defer link.Close()
	stop := context.AfterFunc(ctx, func() { link.Close() })
	defer stop()
	buffer := make([]byte, maxReport)
	for {
		n, err := link.Read(buffer)
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		var r Report
		if err := json.Unmarshal(buffer[:n], &r); err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		tell(Heard{r})
	}
}

// watch tells when the process has ended, after what it said last has been
// read.
func watch(ctx context.Context, process *Process, tell func(Event)) error {
	defer process.Close()
	stop := context.AfterFunc(ctx, func() { process.Close() })
	defer stop()
	if err := process.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	select {
	case process.reading <- struct{}{}: // its connection has been read to the end
	case <-time.After(drain):
	}
	tell(Gone{process.PID})
	return nil
}
