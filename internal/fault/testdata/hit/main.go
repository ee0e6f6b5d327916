// Command hit passes kill points, those that its arguments name, and says which it survived. Before that it
// says which mistakes it would make, and which of the variables it was given are left.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/walhook/walhook/internal/fault"
)

func main() {
	for _, m := range fault.Mistakes() {
		if fault.Bug(m) {
			fmt.Println("mistake", m)
		}
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "WALHOOK_KILL=") || strings.HasPrefix(v, "WALHOOK_BUG=") {
			fmt.Println("left", v)
		}
	}
	for _, name := range os.Args[1:] {
		name, never := strings.CutPrefix(name, "!")
		fault.PointIf(!never, fault.Kill(name))
		fmt.Println("passed", name)
	}
}
