package authority

import "testing"

// One that has lost its authority may seek a higher epoch than the one by
// which it is succeeded meanwhile: it gives way all the same.
func TestLingerEndsWithSuccession(t *testing.T) {
	c := pairOf(B, 1)
	for _, sought := range []Epoch{0, 7} {
		d := Director{Phase: Linger, Since: t0, Able: true, Epoch: sought, Seen: 5}
		d, _ = d.Step(c, Said{Rival, Message{Kind: Consent, Epoch: 6, Asked: 6, Round: 1, Role: Active}}, ms(100))
		if d.Phase != Passive || d.Epoch != 0 || d.Seen != 6 {
			t.Errorf("seeking %d: %v, epoch %d, seen %d", sought, d.Phase, d.Epoch, d.Seen)
		}
	}
	d := Director{Phase: Linger, Since: t0, Able: true, Epoch: 7, Seen: 5}
	if d, _ = d.Step(c, Said{Rival, Message{Kind: Reply, Epoch: 7, Asked: 7, Round: ms(99)}}, ms(100)); d.Phase != Linger || d.Epoch != 7 {
		t.Errorf("hears of its own epoch: %v, epoch %d", d.Phase, d.Epoch)
	}
}
