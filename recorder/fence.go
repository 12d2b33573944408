package recorder

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	tandemv1 "tandem/api/tandem/v1"
	"tandem/internal/voter"
)

// authorityFile is what the voter keeps, in the recorder's directory.
const authorityFile = "authority.json"

// fence lets through the orders of one director at a time, and counts those
// that it does not. Safe for concurrent use.
type fence struct {
	voter   *voter.Keeper
	refused *prometheus.CounterVec // by reason
}

// newFence counts each reason from zero on.
func newFence(v *voter.Keeper) *fence {
	f := &fence{voter: v, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_recorder_orders_refused_total", Help: "Orders of directors that were not obeyed, and questions of those of other groups.",
	}, []string{"reason"})}
	for reason := range tandemv1.Refusal_Reason_name {
		if r := tandemv1.Refusal_Reason(reason); r != tandemv1.Refusal_REASON_UNSPECIFIED {
			f.refused.WithLabelValues(reasonName(r))
		}
	}
	return f
}

// reasonName is a reason as directors log it, stale_epoch for one.
func reasonName(r tandemv1.Refusal_Reason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}

// obey carries out an order that may be obeyed, alone.
func (f *fence) obey(ctx context.Context, order *tandemv1.Order, act func() error) error {
	return f.count(f.voter.Obey(ctx, order, false, act))
}

// begin is obey for the one order that may begin an epoch.
func (f *fence) begin(ctx context.Context, order *tandemv1.Order, act func() error) error {
	return f.count(f.voter.Obey(ctx, order, true, act))
}

// admit refuses whoever is of another group, at the network address from.
func (f *fence) admit(director, group, from string) error {
	return f.count(f.voter.CheckGroup(director, group, from))
}

func (f *fence) count(err error) error {
	if r := voter.RefusalIn(err); r != nil {
		f.refused.WithLabelValues(reasonName(r.GetReason())).Inc()
	}
	return err
}
