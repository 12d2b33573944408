package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pki"
)

// site issues certificates.
type site struct {
	authority *pki.Authority
	ca        string // the authority's file
}

func newSite(t testing.TB, name string) *site {
	t.Helper()
	authority, pair, err := pki.NewAuthority(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{authority, filepath.Join(t.TempDir(), "ca.crt")}
	write(t, s.ca, pair.Certificate)
	return s
}

// issue makes the certificate of somebody as of a time, for a day.
func (s *site) issue(t testing.TB, role pki.Role, name string, at time.Time, hosts ...string) pki.Config {
	t.Helper()
	pair, err := s.authority.Issue(pki.Order{Role: role, Name: name, Hosts: hosts, Life: 24 * time.Hour}, at)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := pki.Config{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key"), CA: s.ca}
	if err := pair.Save(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t testing.TB, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// logbook is a log that tests read.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// voter says who asked it.
type voter struct {
	tandemv1connect.UnimplementedVoterServiceHandler
}

func (voter) Query(ctx context.Context, _ *connect.Request[tandemv1.QueryRequest]) (*connect.Response[tandemv1.QueryResponse], error) {
	caller, _ := Caller(ctx)
	return connect.NewResponse(&tandemv1.QueryResponse{Ballot: &tandemv1.Ballot{Voter: caller.String()}}), nil
}

// stay is the group whose watches last.
const stay = "stay"

// recorder answers a watch once, and may then stay.
type recorder struct {
	tandemv1connect.UnimplementedRecorderServiceHandler
}

func (recorder) Watch(ctx context.Context, r *connect.Request[tandemv1.WatchRequest], stream *connect.ServerStream[tandemv1.WatchResponse]) error {
	err := stream.Send(&tandemv1.WatchResponse{Sequence: 1})
	if err == nil && r.Msg.GetGroup() == stay {
		<-ctx.Done()
	}
	return err
}

// serving serves both until the test ends, and returns the port.
func serving(t testing.TB, w Wire) (port string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewVoterServiceHandler(voter{}, OwnName()))
	mux.Handle(tandemv1connect.NewRecorderServiceHandler(recorder{}, OwnName()))
	return servingAll(t, w, mux)
}

// servingAll is serving with any handler.
func servingAll(t testing.TB, w Wire, handler http.Handler) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Serve(ctx, ln, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// query asks a voter who the caller is.
func query(ctx context.Context, client *http.Client, url string, director string) (string, error) {
	v := tandemv1connect.NewVoterServiceClient(client, url, connect.WithGRPC())
	r, err := v.Query(ctx, connect.NewRequest(&tandemv1.QueryRequest{Director: director}))
	if err != nil {
		return "", err
	}
	return r.Msg.GetBallot().GetVoter(), nil
}

// as is the wire of whoever the files name.
func as(t testing.TB, files pki.Config, log *slog.Logger) Wire {
	t.Helper()
	return Open(files, pki.Identity{}, log)
}

func client(t testing.TB, files pki.Config, log *slog.Logger) *http.Client {
	t.Helper()
	c := as(t, files, log).NewClient()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func registryOf(w Wire) *prometheus.Registry {
	r := prometheus.NewRegistry()
	w.Register(r)
	return r
}
