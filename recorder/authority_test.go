package recorder

import (
	"errors"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"
	"pgregory.net/rapid"

	tandemv1 "tandem/api/tandem/v1"
)

func order(epoch uint64, director string) *tandemv1.Order {
	return &tandemv1.Order{Epoch: epoch, Director: director, Group: "primary"}
}

func refusalOf(t interface{ Fatalf(string, ...any) }, err error) tandemv1.Refusal_Reason {
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) || connectErr.Code() != connect.CodeFailedPrecondition || len(connectErr.Details()) != 1 {
		t.Fatalf("got %v, want a refusal", err)
	}
	detail, err := connectErr.Details()[0].Value()
	if err != nil {
		t.Fatalf("detail: %v", err)
	}
	return detail.(*tandemv1.Refusal).Reason
}

func TestFenceRefuses(t *testing.T) {
	f, err := openFence("primary", filepath.Join(t.TempDir(), "authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.obey(order(4, "a"), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	other := order(9, "a")
	other.Group = "secondary"
	for _, c := range []struct {
		order *tandemv1.Order
		want  tandemv1.Refusal_Reason
	}{
		{order(3, "b"), tandemv1.Refusal_REASON_STALE_EPOCH},
		{order(0, "a"), tandemv1.Refusal_REASON_STALE_EPOCH},
		{nil, tandemv1.Refusal_REASON_WRONG_GROUP},
		{order(4, "b"), tandemv1.Refusal_REASON_WRONG_HOLDER},
		{other, tandemv1.Refusal_REASON_WRONG_GROUP},
	} {
		err := f.obey(c.order, func() error { t.Errorf("%v was obeyed", c.order); return nil })
		if got := refusalOf(t, err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.order, got, c.want)
		}
	}
	if got := f.seen(); got != (authority{Epoch: 4, Holder: "a"}) {
		t.Errorf("a refused order changed the fence: %+v", got)
	}
}

// Accepted epochs never go down and never change hands, restarts included.
func TestFenceNeverGoesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), rapid.StringMatching(`[a-z]{12}`).Draw(rt, "file"))
		f, err := openFence("primary", path)
		if err != nil {
			rt.Fatal(err)
		}
		holders := map[uint64]string{}
		var highest uint64
		for range rapid.IntRange(1, 12).Draw(rt, "orders") {
			if rapid.Bool().Draw(rt, "restart") {
				if f, err = openFence("primary", path); err != nil {
					rt.Fatal(err)
				}
			}
			o := order(rapid.Uint64Range(0, 6).Draw(rt, "epoch"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "director"))
			obeyed := false
			if err := f.obey(o, func() error { obeyed = true; return nil }); err != nil {
				refusalOf(rt, err)
			}
			if !obeyed {
				continue
			}
			if o.Epoch < highest || holders[o.Epoch] != "" && holders[o.Epoch] != o.Director {
				rt.Fatalf("obeyed %v after epoch %d, holders %v", o, highest, holders)
			}
			highest, holders[o.Epoch] = o.Epoch, o.Director
		}
	})
}
