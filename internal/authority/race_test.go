//go:build race

package authority

func init() { raced = true }
