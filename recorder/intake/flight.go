package intake

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tandem/recorder/journal"
)

// Between the kernel's queue and a block of the journal datagrams are in a
// shard's receiver, for a microsecond or two; with a thousand channels that is
// where a process is killed once in some fifty times. So the receivers, too,
// may be in a file without a disk that outlives it, as the journal's blocks
// are (journal.Config.Memory).
//
// It begins with a page that says what the receivers look like,
//
//	0  magic  8  "TJrecv\x00\x01", the last byte a version
//	8  size   4  of a receiver
//
// and goes on with one for each shard, on a page of its own.
const (
	flightMagic = "TJrecv\x00\x01"
	pageSize    = 4096

	receiverRoom = (int(unsafe.Sizeof(receiver{})) + pageSize - 1) / pageSize * pageSize
)

// receiversIn makes n receivers in the file. What those in it before had
// received and not given to the journal is given to it now.
func receiversIn(f *os.File, n int, w *journal.Writer) ([]*receiver, error) {
	bytes, err := mapFlight(f, n)
	if err != nil {
		return nil, fmt.Errorf("open memory of receivers: %w", err)
	}
	all := make([]*receiver, 0, n)
	for at := pageSize; at+receiverRoom <= len(bytes); at += receiverRoom {
		all = append(all, (*receiver)(unsafe.Pointer(&bytes[at])))
	}
	rescue(all, w, time.Now())
	clear(bytes[pageSize:]) // pointers of another process: not even the garbage collector is to see them
	for _, r := range all {
		r.prepare()
	}
	return all[:n], nil
}

// mapFlight maps the file, with room for n receivers at least. What belongs to
// another version is given up.
func mapFlight(f *os.File, n int) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := binary.LittleEndian.AppendUint32([]byte(flightMagic), uint32(unsafe.Sizeof(receiver{})))
	found := make([]byte, len(head))
	size := int64(pageSize + n*receiverRoom)
	if read, _ := f.ReadAt(found, 0); read == len(head) && slices.Equal(found, head) {
		size = max(size, info.Size())
	} else if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return nil, err
	}
	// Populated: a page that is not there cannot be had by a process being
	// killed, and the datagram would be lost. It is never unmapped.
	return unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// rescue journals the RTP that receivers held when their process ended, each
// packet once even if this process ends before they are prepared anew.
func rescue(all []*receiver, w *journal.Writer, now time.Time) {
	var d *journal.Draft
	packets, lost := 0, 0
	for _, r := range all {
		for _, i := range r.untaken() {
			got := r.get(i)
			if _, why := parseHeader(got.data); got.truncated || why != accepted || isControl(got.data) {
				continue
			}
			p := journal.Packet{Num: r.num, Arrival: got.arrival, Data: got.data}
			if got.arrival == 0 {
				p.Arrival = now.UnixNano()
			}
			if w.Found(p) {
				continue
			}
			if d == nil || !d.Add(p.Num, p.Arrival, p.Data) {
				if d != nil {
					w.Append(d)
				}
				if d = w.Draft(0); d == nil || !d.Add(p.Num, p.Arrival, p.Data) {
					lost++
					continue
				}
			}
			packets++
		}
	}
	if d != nil {
		w.Append(d)
	}
	if packets+lost > 0 {
		slog.Info("packets rescued that were in nobody's hands", "packets", packets, "lost", lost)
	}
}
