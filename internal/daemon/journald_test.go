package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// openJournald is a journald that is read with fieldsOf.
func openJournald(t *testing.T) (*net.UnixConn, *journaldLine) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := dialJournald("tandem-test", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn, line
}

// fieldsOf reads one record as journald does.
func fieldsOf(t *testing.T, conn *net.UnixConn) map[string]string {
	t.Helper()
	b := make([]byte, 2*recordMost)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for rest := b[:n]; len(rest) > 0; {
		line, behind, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			t.Fatalf("ends inside a field: %q", rest)
		}
		if name, value, ok := bytes.Cut(line, []byte("=")); ok {
			fields[string(name)], rest = string(value), behind
			continue
		}
		size := int(binary.LittleEndian.Uint64(behind))
		fields[string(line)], rest = string(behind[8:8+size]), behind[8+size+1:]
	}
	return fields
}

func TestJournald(t *testing.T) {
	conn, line := openJournald(t)
	log := slog.New(&journald{line: line})
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
	long := strings.Repeat("é", fieldMost)
	for _, c := range []struct {
		log  func()
		want map[string]string
	}{
		{func() { log.Info("recording", "channel", 17, "dir", "/var/lib") },
			map[string]string{"PRIORITY": "6", "SYSLOG_IDENTIFIER": "tandem-test", "MESSAGE": "recording channel=17 dir=/var/lib", "TANDEM_CHANNEL": "17", "TANDEM_DIR": "/var/lib"}},
		{func() {
			log.With("director", "dir-a").WithGroup("peer").Warn("gone", "address", "10.0.0.1:1", slog.Group("tls", "name", ""))
		},
			map[string]string{"PRIORITY": "4", "MESSAGE": `gone director=dir-a peer.address=10.0.0.1:1 peer.tls.name=""`,
				"TANDEM_DIRECTOR": "dir-a", "TANDEM_PEER_ADDRESS": "10.0.0.1:1", "TANDEM_PEER_TLS_NAME": ""}},
		{func() { log.Error("bad", "err", errors.New("two\nlines=3"), "at", at, "for", 20*time.Millisecond) },
			map[string]string{"PRIORITY": "3", "MESSAGE": `bad err="two\nlines=3" at=2026-03-01T12:00:00.005Z for=20ms`,
				"TANDEM_ERR": "two\nlines=3", "TANDEM_AT": "2026-03-01T12:00:00.005Z", "TANDEM_FOR": "20ms"}},
		{func() { log.Info("several\nlines", "Über-schlüssel", 1) },
			map[string]string{"MESSAGE": "several\nlines Über-schlüssel=1", "TANDEM__BER_SCHL_SSEL": "1"}},
		{func() { log.Info("long", "value", long+"x", "more", long, "again", long, "end", long) },
			map[string]string{"TANDEM_VALUE": long[:fieldMost]}},
	} {
		c.log()
		got := fieldsOf(t, conn)
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: got %.200q, want %.200q", name, got[name], want)
			}
		}
	}
	log.Debug("nobody asked for it")
	log.Info("last")
	if got := fieldsOf(t, conn); got["MESSAGE"] != "last" {
		t.Errorf("got %v", got)
	}
}

// A journald that does not read holds nobody up. What waits comes in order,
// and what found no room is counted.
func TestJournaldFull(t *testing.T) {
	conn, line := openJournald(t)
	log := slog.New(&journald{line: line})
	const records = 3 * journaldWaiting
	began := time.Now()
	for i := range records {
		log.Info("n", "i", i)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("logging took %v", took)
	}
	next := 0
	for {
		got := fieldsOf(t, conn)
		if got["TANDEM_RECORDS"] != "" {
			if want := fmt.Sprint(records - next); got["TANDEM_RECORDS"] != want || got["PRIORITY"] != "4" {
				t.Errorf("%v, want %s lost", got, want)
			}
			break
		}
		if got["TANDEM_I"] != fmt.Sprint(next) {
			t.Fatalf("got %v, want number %d", got, next)
		}
		next++
	}
	if next < journaldWaiting {
		t.Errorf("only %d came", next)
	}
	log.Info("on")
	if got := fieldsOf(t, conn); got["MESSAGE"] != "on" {
		t.Errorf("got %v", got)
	}
}

// The word of what was lost waits its turn as records do: it comes although
// the queue is full again when it is due.
func TestJournaldFullForTheLoss(t *testing.T) {
	conn, line := openJournald(t)
	filler := line.record(journal.PriInfo, "filler", nil)
	filled := 0
	for line.try(filler) {
		filled++
	}
	line.waiting, line.lost = [][]byte{filler}, 3
	fieldsOf(t, conn) // makes room for what waits, and for nothing behind it
	line.retry()
	for range filled {
		if got := fieldsOf(t, conn); got["MESSAGE"] != "filler" {
			t.Fatalf("got %v", got)
		}
	}
	if got := fieldsOf(t, conn); got["TANDEM_RECORDS"] != "3" {
		t.Errorf("got %v, want the word of 3 lost", got)
	}
}

// A journald that restarts loses nothing of what was logged meanwhile.
func TestJournaldRestarts(t *testing.T) {
	conn, line := openJournald(t)
	path := conn.LocalAddr().String()
	log := slog.New(&journald{line: line})
	conn.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.Info("while it is away")
	again, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line.end()
	if got := fieldsOf(t, again); got["MESSAGE"] != "while it is away" {
		t.Errorf("got %v", got)
	}
}
