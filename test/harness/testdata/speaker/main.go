// Speaker is a process for the harness's own tests: it says on stdout which of the variables named by its
// arguments are set, says on stderr that it waits, and exits with 3 on SIGTERM.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	for _, name := range os.Args[1:] {
		fmt.Printf("%s=%q\n", name, os.Getenv(name))
	}
	fmt.Fprintln(os.Stderr, "waiting for a signal")
	<-terminated
	fmt.Fprint(os.Stderr, "terminated") // an end without a line break
	os.Exit(3)
}
