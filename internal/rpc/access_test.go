package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/api/tandem/v1/tandemv1connect"
	"tandem/internal/pki"
)

// methods calls f with each method of each service that there is.
func methods(f func(path string, m protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFilesByPackage("tandem.v1", func(file protoreflect.FileDescriptor) bool {
		for n := range file.Services().Len() {
			service := file.Services().Get(n)
			for k := range service.Methods().Len() {
				m := service.Methods().Get(k)
				f("/"+string(service.FullName())+"/"+string(m.Name()), m)
			}
		}
		return true
	})
}

// Who may call it has been decided for each method, and nothing is in the table
// that is not there.
func TestTableIsComplete(t *testing.T) {
	seen := map[string]bool{}
	methods(func(path string, m protoreflect.MethodDescriptor) {
		seen[path] = true
		if len(mayCall[path]) == 0 {
			t.Errorf("nobody may call %s: decide who, in mayCall", path)
		}
		if len(servedBy[string(m.Parent().FullName())]) == 0 {
			t.Errorf("nobody serves %s: say who, in servedBy", m.Parent().FullName())
		}
	})
	if len(seen) < 30 {
		t.Fatalf("only %d methods found", len(seen))
	}
	for path, roles := range mayCall {
		if !seen[path] {
			t.Errorf("%s is in the table, and in no service", path)
		}
		for _, r := range roles {
			if !slices.Contains(pki.Roles, r) {
				t.Errorf("%s: no role %q", path, r)
			}
		}
	}
}

// The rules behind the table.
func TestRoles(t *testing.T) {
	for path, roles := range mayCall {
		may := func(r pki.Role) bool { return slices.Contains(roles, r) }
		if may(pki.Recorder) {
			t.Errorf("%s: a recorder calls nobody", path)
		}
		if may(pki.Viewer) && !may(pki.Operator) {
			t.Errorf("%s: a viewer may what an operator may not", path)
		}
		for _, method := range []string{"Export", "Listen", "Verify", "Drain", "Move", "Rebalance", "Failover", "Campaign", "Pause"} {
			if may(pki.Viewer) && strings.HasSuffix(path, "/"+method) {
				t.Errorf("%s: a viewer changes nothing and hears nothing", path)
			}
		}
		if strings.Contains(path, "RecorderService") && !slices.Equal(roles, []pki.Role{pki.Director}) {
			t.Errorf("%s: %v: a recorder obeys directors alone", path, roles)
		}
	}
}

// Each role is let through to exactly what the table says, over real
// connections, and told its role where it is not.
func TestGuard(t *testing.T) {
	ldn := newSite(t, "ldn")
	now := time.Now()
	reached := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	ports := map[pki.Role]string{}
	for _, role := range pki.Roles {
		if role.Serves() {
			ports[role] = servingAll(t, as(t, ldn.issue(t, role, string(role)+"-1", now, "127.0.0.1"), new(logbook).log()), reached)
		}
	}
	for _, role := range pki.Roles {
		var hosts []string
		if role.Serves() {
			hosts = []string{"127.0.0.1"}
		}
		c := client(t, ldn.issue(t, role, "x-1", now, hosts...), new(logbook).log())
		methods(func(path string, m protoreflect.MethodDescriptor) {
			server := servedBy[string(m.Parent().FullName())][0]
			err := patiently(func() error { return call(t.Context(), c, "http://127.0.0.1:"+ports[server]+path, m) })
			may := slices.Contains(mayCall[path], role)
			denied := connect.CodeOf(err) == connect.CodePermissionDenied
			if denied == may || denied && !strings.Contains(err.Error(), fmt.Sprintf("%s x-1 may not call %s of %s", role, m.Name(), m.Parent().Name())) {
				t.Errorf("%s calls %s: %v", role, path, err)
			}
			if may && !strings.Contains(fmt.Sprint(err), "418") {
				t.Errorf("%s calls %s, which is not reached: %v", role, path, err)
			}
		})
	}
}

// patiently calls again while no connection comes about, for some seconds: a
// handshake gets one, which it exceeds on a machine that lets nobody run.
func patiently(call func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := call()
		var trouble *pki.Trouble
		if !errors.As(err, &trouble) || trouble.Reason != pki.Handshake || time.Now().After(deadline) {
			return err
		}
	}
}

// call calls any method with an empty message.
func call(ctx context.Context, c *http.Client, url string, m protoreflect.MethodDescriptor) error {
	client := connect.NewClient[dynamicpb.Message, dynamicpb.Message](c, url, connect.WithSchema(m), connect.WithResponseInitializer(
		func(spec connect.Spec, message any) error {
			if d, ok := message.(*dynamicpb.Message); ok {
				*d = *dynamicpb.NewMessage(m.Output())
			}
			return nil
		}))
	in := connect.NewRequest(dynamicpb.NewMessage(m.Input()))
	if !m.IsStreamingServer() {
		_, err := client.CallUnary(ctx, in)
		return err
	}
	stream, err := client.CallServerStream(ctx, in)
	if err != nil {
		return err
	}
	defer stream.Close()
	stream.Receive()
	return stream.Err()
}

// What is no method is refused before it is looked for.
func TestGuardUnknown(t *testing.T) {
	err := denial(pki.Identity{Site: "ldn", Role: pki.Operator, Name: "ann"}, "/tandem.v1.MediaService/Erase")
	if err.Code() != connect.CodeUnimplemented || err.Message() != `no method "Erase" of "tandem.v1.MediaService"` {
		t.Error(err)
	}
}

// A director speaks as itself alone: each message that names its sender is
// checked, streams included.
func TestOwnName(t *testing.T) {
	ldn := newSite(t, "ldn")
	now := time.Now()
	url := "http://127.0.0.1:" + serving(t, as(t, ldn.issue(t, pki.Recorder, "rec-1", now, "127.0.0.1"), new(logbook).log()))
	c := client(t, ldn.issue(t, pki.Director, "dir-a", now, "127.0.0.1"), new(logbook).log())
	for name, want := range map[string]connect.Code{"dir-a": 0, "": 0, "dir-b": connect.CodePermissionDenied} {
		if _, err := query(t.Context(), c, url, name); (err != nil) != (want != 0) || err != nil && connect.CodeOf(err) != want {
			t.Errorf("query as %q: %v", name, err)
		}
		stream, err := tandemv1connect.NewRecorderServiceClient(c, url, connect.WithGRPC()).Watch(t.Context(), connect.NewRequest(&tandemv1.WatchRequest{Director: name}))
		if err != nil {
			t.Fatal(err)
		}
		if received := stream.Receive(); received != (want == 0) || !received && connect.CodeOf(stream.Err()) != want {
			t.Errorf("watch as %q: %v", name, stream.Err())
		}
		stream.Close()
	}
}

// A message whose sender has a name must not be passed over by the check.
func TestClaimed(t *testing.T) {
	methods(func(path string, m protoreflect.MethodDescriptor) {
		for _, role := range []pki.Role{pki.Director, pki.Watchdog} {
			if !slices.Contains(mayCall[path], role) {
				continue
			}
			message, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			filled := message.New()
			named := fill(filled, role)
			if got := claimed(filled.Interface(), role); (got == "borrowed") != named {
				t.Errorf("%s of a %s: %q", path, role, got)
			}
		}
	})
}

// fill puts a name wherever a message may say who sends it.
func fill(m protoreflect.Message, role pki.Role) (named bool) {
	fields := m.Descriptor().Fields()
	put := func(in protoreflect.Message, field protoreflect.FieldDescriptor) {
		in.Set(field, protoreflect.ValueOfString("borrowed"))
		named = true
	}
	if by := fields.ByName("by"); by != nil {
		put(m, by)
	}
	if director := fields.ByName("director"); director != nil && role == pki.Director {
		put(m, director)
	}
	if order := fields.ByName("order"); order != nil && role == pki.Director {
		o := m.Mutable(order).Message()
		put(o, o.Descriptor().Fields().ByName("director"))
	}
	return named
}
