package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Said are the lines with a message that the daemon has logged in all its
// lives, each by its keys. A line that is not whole yet is left out.
func (p *Process) Said(message string) ([]map[string]string, error) {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return nil, fmt.Errorf("read log of %s: %w", p.Name, err)
	}
	var said []map[string]string
	for line := range strings.Lines(string(text)) {
		if fields := parse(line); strings.HasSuffix(line, "\n") && fields["msg"] == message {
			said = append(said, fields)
		}
	}
	return said, nil
}

// parse takes a line of slog's text apart: key=value, quoted where it must be.
// What is none of that ends it.
func parse(line string) map[string]string {
	fields := make(map[string]string)
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			return fields
		}
		value, err := strconv.QuotedPrefix(rest)
		if err == nil {
			rest = rest[len(value):]
			value, _ = strconv.Unquote(value)
		} else {
			value, rest, _ = strings.Cut(rest, " ")
		}
		fields[key], line = value, rest
	}
	return fields
}
