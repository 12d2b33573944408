package rpc

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/internal/pki"
)

// Wire is how a process speaks with the others: between certificates of the
// site where [tls] names some, else in the clear, as the zero Wire does. Its
// methods may be called concurrently.
type Wire struct {
	credentials *pki.Credentials // nil: in the clear
	ledger      *pki.Ledger      // nil only in the zero Wire
}

// Open reads the certificates for their owner; see pki.Open. Those that cannot
// be used keep calls from coming about, and no process from starting.
func Open(files pki.Config, owner pki.Identity, log *slog.Logger) Wire {
	ledger := pki.NewLedger(log)
	return Wire{pki.Open(files, owner, ledger, log), ledger}
}

// Run looks after the certificates until ctx ends.
func (w Wire) Run(ctx context.Context) error { return w.credentials.Run(ctx) }

// Worry is what is wrong with the process's own certificate, or soon will be.
func (w Wire) Worry(now time.Time) (text string, worried bool) { return w.credentials.Worry(now) }

// Register adds what is counted of certificates and handshakes.
func (w Wire) Register(r prometheus.Registerer) {
	if w.ledger != nil {
		r.MustRegister(w.ledger)
	}
	if w.credentials != nil {
		r.MustRegister(w.credentials)
	}
}

// Announce says once, at the start, who can use a control API.
func (w Wire) Announce(log *slog.Logger, control net.Addr, insecure bool) {
	switch {
	case w.credentials != nil:
		log.Info("control speaks TLS: whoever has a certificate of the site is served what its role may", "control", control.String())
	case insecure:
		log.Warn("control is neither encrypted nor protected: whoever reaches it may command this daemon", "control", control.String())
	default:
		log.Warn("control without TLS: only this machine can reach it", "control", control.String())
	}
}

// Serve is the package's Serve, for callers that have a certificate if this
// process has one.
func (w Wire) Serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	if w.credentials == nil {
		if w.ledger != nil {
			ln = clearListener{ln, w.ledger}
		}
		return Serve(ctx, ln, handler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return serve(ctx, newSecureListener(ln, w.credentials), &http.Server{
		Handler: guard{handler, w.ledger}, Protocols: &protocols, ConnContext: withCaller,
	})
}

// withCaller notes whom the certificate of a connection names; its handshake is
// done and has judged it.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
			if i, err := pki.IdentityOf(certs[0]); err == nil {
				return context.WithValue(ctx, callerKey{}, i)
			}
		}
	}
	return ctx
}

// NewClient is the package's NewClient, with this process's certificate if it
// has one. It calls only daemons whose certificate names the host that is called
// and a role that serves the call. Its URLs begin with http:// all the same: what
// is encrypted is the connection below.
func (w Wire) NewClient() *http.Client {
	if w.credentials == nil {
		return NewClient()
	}
	return &http.Client{Transport: newCallers(w.credentials, overTCP)}
}
