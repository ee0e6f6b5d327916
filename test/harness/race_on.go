//go:build race

package harness

// raceEnabled says that the test binary was built with -race; the programs it builds are then, too.
const raceEnabled = true
