package rpc

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"

	tandemv1 "tandem/api/tandem/v1"
	api "tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pki"
)

// servedBy says which daemons answer a service.
var servedBy = map[string][]pki.Role{
	api.DirectorServiceName: {pki.Director},
	api.PeerServiceName:     {pki.Director},
	api.RecorderServiceName: {pki.Recorder},
	api.MediaServiceName:    {pki.Recorder},
	api.VoterServiceName:    {pki.Recorder, pki.Watchdog},
	api.WatchdogServiceName: {pki.Watchdog},
}

// mayCall says who may call what. What is not in here nobody may. Recorders
// call nobody. A viewer finds out what there is, and hears none of it.
var mayCall = map[string][]pki.Role{
	api.DirectorServiceStatusProcedure:            {pki.Operator, pki.Viewer},
	api.DirectorServiceListTurretsProcedure:       {pki.Operator, pki.Viewer},
	api.DirectorServiceListFloorChannelsProcedure: {pki.Operator, pki.Viewer},
	api.DirectorServiceHistoryProcedure:           {pki.Operator, pki.Viewer},
	api.DirectorServiceDrainProcedure:             {pki.Operator},
	api.DirectorServiceMoveProcedure:              {pki.Operator},
	api.DirectorServiceRebalanceProcedure:         {pki.Operator},
	api.DirectorServiceCampaignProcedure:          {pki.Operator, pki.Watchdog},
	api.DirectorServiceFailoverProcedure:          {pki.Operator, pki.Watchdog, pki.Director}, // one director passes it on to the other

	api.PeerServiceMeetProcedure:  {pki.Director},
	api.PeerServiceReadyProcedure: {pki.Director},
	api.PeerServiceYieldProcedure: {pki.Director, pki.Watchdog}, // who saw the other one's process end

	api.VoterServiceQueryProcedure:   {pki.Director, pki.Watchdog},
	api.VoterServiceLeaseProcedure:   {pki.Director},
	api.VoterServiceReleaseProcedure: {pki.Director, pki.Watchdog},

	api.RecorderServiceInventoryProcedure:      {pki.Director},
	api.RecorderServiceFenceProcedure:          {pki.Director},
	api.RecorderServiceOpenChannelsProcedure:   {pki.Director},
	api.RecorderServiceUpdateChannelsProcedure: {pki.Director},
	api.RecorderServiceCloseChannelsProcedure:  {pki.Director},
	api.RecorderServicePutRecordsProcedure:     {pki.Director},
	api.RecorderServiceDrainProcedure:          {pki.Director},
	api.RecorderServiceWatchProcedure:          {pki.Director},

	api.MediaServiceSearchCallsProcedure:  {pki.Operator, pki.Viewer, pki.Director}, // who compares the two groups
	api.MediaServiceGetCallProcedure:      {pki.Operator, pki.Viewer, pki.Director},
	api.MediaServiceListChannelsProcedure: {pki.Operator, pki.Viewer},
	api.MediaServiceListSegmentsProcedure: {pki.Operator, pki.Viewer, pki.Director},
	api.MediaServiceExportProcedure:       {pki.Operator},
	api.MediaServiceListenProcedure:       {pki.Operator},
	api.MediaServiceVerifyProcedure:       {pki.Operator}, // it reads every file

	api.WatchdogServiceReportProcedure: {pki.Operator, pki.Viewer},
	api.WatchdogServicePauseProcedure:  {pki.Operator},
	api.WatchdogServiceNoticeProcedure: {pki.Watchdog},
}

type callerKey struct{}

// Caller is whom the certificate of the caller names. Without TLS there is none.
func Caller(ctx context.Context) (caller pki.Identity, ok bool) {
	caller, ok = ctx.Value(callerKey{}).(pki.Identity)
	return caller, ok
}

// guard lets a caller do what its role may.
type guard struct {
	next   http.Handler
	ledger *pki.Ledger
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, _ := Caller(r.Context())
	if slices.Contains(mayCall[r.URL.Path], caller.Role) {
		g.next.ServeHTTP(w, r)
		return
	}
	no := denial(caller, r.URL.Path)
	g.ledger.Note(pki.AsServer, r.RemoteAddr, &pki.Trouble{Reason: pki.WrongRole, Text: no.Message()})
	if errors := connect.NewErrorWriter(); errors.IsSupported(r) {
		errors.Write(w, r, no)
		return
	}
	http.Error(w, no.Message(), http.StatusForbidden)
}

func denial(caller pki.Identity, path string) *connect.Error {
	service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	roles := mayCall[path]
	if len(roles) == 0 {
		return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("no method %q of %q", method, service))
	}
	texts := make([]string, len(roles))
	for n, r := range roles {
		texts[n] = string(r)
	}
	short := service[strings.LastIndexByte(service, '.')+1:]
	return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s may not call %s of %s: that takes the role %s", caller, method, short, strings.Join(texts, " or ")))
}

// OwnName refuses messages in which a caller goes by another's name: a director
// orders, asks for leases and gives them back as itself. Without TLS names are
// believed.
func OwnName() connect.HandlerOption { return connect.WithInterceptors(ownName{}) }

// ownName implements connect.Interceptor.
type ownName struct{}

// claims are the names that a message may have its sender go by.
type (
	ordering  interface{ GetOrder() *tandemv1.Order }
	directing interface{ GetDirector() string }
	deciding  interface{ GetBy() string }
)

// claimed is the name that a message says its sender has, being a daemon of
// that role; empty where it says nothing.
func claimed(m any, role pki.Role) string {
	if d, ok := m.(deciding); ok {
		return d.GetBy()
	}
	if role != pki.Director { // to others it is the director that they speak of
		return ""
	}
	switch m := m.(type) {
	case ordering:
		return m.GetOrder().GetDirector()
	case directing:
		return m.GetDirector()
	}
	return ""
}

func checkName(ctx context.Context, m any) error {
	caller, ok := Caller(ctx)
	if !ok {
		return nil
	}
	if name := claimed(m, caller.Role); name != "" && name != caller.Name {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the certificate is that of %s, and the message speaks as %q", caller, name))
	}
	return nil
}

func (ownName) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if err := checkName(ctx, r.Any()); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

func (ownName) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (ownName) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, named{conn, func(m any) error { return checkName(ctx, m) }})
	}
}

// named checks each message of a stream.
type named struct {
	connect.StreamingHandlerConn
	check func(m any) error
}

func (n named) Receive(m any) error {
	if err := n.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	return n.check(m)
}
