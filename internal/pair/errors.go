package pair

import (
	"errors"
	"fmt"
)

var (
	errNoKey    = errors.New("want a file with the secret that directors and watchdogs of the site share")
	errShortKey = fmt.Errorf("want a secret of at least %d characters", minKey)
)
