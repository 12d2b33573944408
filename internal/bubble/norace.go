//go:build !race

package bubble

func narrow() (widen func()) { return func() {} }
