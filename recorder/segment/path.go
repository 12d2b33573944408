package segment

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"time"

	"tandem/internal/call"
)

// maxName keeps a file's name, with its time and SSRC, under the 255 bytes
// that file systems allow.
const maxName = 160

// Path is where under the media directory a segment's file is: a folder a
// day, one an hour, then the channel and when it begins. It is unique as long
// as no two segments of one channel and SSRC begin in the same microsecond.
func Path(channel call.ChannelID, start time.Time, ssrc uint32) string {
	start = start.UTC()
	const hexits = "0123456789abcdef"
	var tail [8]byte
	for i := range tail {
		tail[7-i] = hexits[ssrc>>(4*i)&15]
	}
	return path.Join(Folder(start), escape(string(channel))+"_"+start.Format("150405.000000")+"_"+string(tail[:])+".wav")
}

// Folder is where the files that begin in the hour of start are.
func Folder(start time.Time) string { return start.UTC().Format("2006-01-02/15") }

// escape makes a file name of any text: letters, digits, dots and dashes stand
// for themselves, everything else for its bytes in hexadecimal. What is too
// long ends in its hash.
func escape(name string) string {
	const hexits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hexits[c>>4], hexits[c&15]})
		}
	}
	if b.Len() <= maxName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	return b.String()[:maxName-33] + "~" + hex.EncodeToString(sum[:16])
}
