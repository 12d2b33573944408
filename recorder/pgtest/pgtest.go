// Package pgtest gives tests a PostgreSQL server of their own: a cluster in a
// temporary directory, reached by a Unix socket, that nothing else uses and that
// may be killed.
package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running server, until it is stopped. It has one user.
type Server struct {
	t    testing.TB
	dir  string // the cluster in "data", the socket, the log
	bin  string
	cred *syscall.Credential // nil: we are not root, whom the server refuses

	cmd   *exec.Cmd
	ended chan struct{}
	names int // of databases
}

// patience is how long a server may take to start on a machine that has other
// things to do.
const patience = time.Minute

// Start makes a cluster and starts its server; both end with the test. A test
// for which no server is installed is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Skip(err)
	}
	s := &Server{t: t, bin: bin}
	if s.dir, err = os.MkdirTemp("", "tandem-pg-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	if os.Geteuid() == 0 {
		s.cred = unprivileged(t, s.dir)
	}
	data := filepath.Join(s.dir, "data")
	if out, err := s.command("initdb", "-D", data, "-U", "tandem", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	t.Cleanup(s.Stop)
	s.Run()
	return s
}

// programs is where the server's newest version is.
func programs() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // the pattern is good
	if len(found) == 0 {
		return "", fmt.Errorf("no PostgreSQL server is installed: tools/setup installs one")
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

// version is the number in /usr/lib/postgresql/15/bin/postgres.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // what is no number is the oldest
	return n
}

// unprivileged gives the directory to the user that a package of the server
// makes, or to nobody.
func unprivileged(t testing.TB, dir string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid) // a number, on any Unix
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.cred, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// Run starts the server again after Kill or Stop, and waits until it answers. As
// long as a process of the life before is left it refuses, and is started again.
func (s *Server) Run() {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s.begin()
		if s.answers(deadline) {
			return
		}
		s.Kill()
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // empty when there is none
			s.t.Fatalf("PostgreSQL does not start within %v:\n%s", patience, log)
		}
	}
}

func (s *Server) begin() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = s.command("postgres", "-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
}

// answers waits for a first query's answer, the server's end or the deadline.
func (s *Server) answers(deadline time.Time) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
		if err := s.exec("postgres", "SELECT 1"); err == nil {
			return true
		}
		select {
		case <-s.ended:
			return false
		case <-tick.C:
		}
	}
	return false
}

// Kill ends the server as a crash would: its main process at once, the others as
// soon as they see that it is gone.
func (s *Server) Kill() {
	s.cmd.Process.Kill() // an error says that it has ended by itself
	<-s.ended
}

// Stop ends the server and its connections in order. It may be called again.
func (s *Server) Stop() {
	s.cmd.Process.Signal(syscall.SIGINT) // as for Kill
	<-s.ended
}

// CPU is what the server's connections have had of it so far: unlike the clock, it
// does not count what other programs of the machine took. 0 where the kernel does
// not tell.
func (s *Server) CPU() (sum time.Duration) {
	pid := s.cmd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none
	for child := range strings.FieldsSeq(string(children)) {
		var busy int64 // nanoseconds
		text, _ := os.ReadFile("/proc/" + child + "/schedstat")
		fmt.Sscan(string(text), &busy)
		sum += time.Duration(busy)
	}
	return sum
}

// Database makes an empty database and returns its URL.
func (s *Server) Database() string {
	s.t.Helper()
	s.names++
	name := fmt.Sprint("site", s.names)
	if err := s.exec("postgres", "CREATE DATABASE "+name); err != nil {
		s.t.Fatal(err)
	}
	return s.url(name)
}

// Guarded makes an empty database that belongs to a user of its own, who has no
// other rights and needs the password, and returns its URL without that.
func (s *Server) Guarded(password string) string {
	s.t.Helper()
	s.names++
	name, owner := fmt.Sprint("site", s.names), fmt.Sprint("owner", s.names)
	s.rule("local " + name + " " + owner + " scram-sha-256")
	for _, query := range []string{"CREATE ROLE " + owner + " LOGIN", "CREATE DATABASE " + name + " OWNER " + owner, "SELECT pg_reload_conf()"} {
		if err := s.exec("postgres", query); err != nil {
			s.t.Fatal(err)
		}
	}
	url := strings.Replace(s.url(name), "tandem@", owner+"@", 1)
	s.SetPassword(url, password)
	return url
}

// SetPassword gives the user of a URL that Guarded made another password.
func (s *Server) SetPassword(url, password string) {
	s.t.Helper()
	user, _, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "@")
	if err := s.exec("postgres", "ALTER ROLE "+user+" PASSWORD '"+password+"'"); err != nil {
		s.t.Fatal(err)
	}
}

// rule puts a line in front of those that say who may connect.
func (s *Server) rule(line string) {
	s.t.Helper()
	file := filepath.Join(s.dir, "data", "pg_hba.conf")
	rest, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append([]byte(line+"\n"), rest...), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://tandem@/%s?host=%s", database, s.dir)
}

func (s *Server) exec(database, query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, query)
	return err
}

// Dump is a table's rows in an order of their own, for comparing: what the query
// selects, a line a row.
func Dump(t testing.TB, url, query string, args ...any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		values, err := r.Values()
		return fmt.Sprintln(values...), err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, l := range lines {
		all.WriteString(l)
	}
	return all.String()
}
