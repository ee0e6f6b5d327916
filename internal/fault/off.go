//go:build !checker

package fault

// Point is where the checker may kill the process. Here it does nothing.
func Point(Kill) {}

// PointIf is Point where only some passages count. Here it does nothing.
func PointIf(bool, Kill) {}

// Bug reports whether a deliberate mistake is to be made. Here none is.
func Bug(Mistake) bool { return false }
