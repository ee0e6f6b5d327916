// Command walhook relays events from a Postgres outbox to webhooks.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() { os.Exit(run()) }

// again is how soon after the first signal a second one counts. timeout(1) sends its signal twice in a row, to
// the process and to its group, and means it once.
const again = time.Second

// run is where signals are turned into the end of a context. A second signal, later than again, ends the
// process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(again, stop) })
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ(), hangups: hangups}
	return a.execute(ctx, os.Args[1:])
}

// hangups listens for SIGHUP, for a command that reloads its settings then; to all others it means the end. One that
// comes while another one is dealt with is kept, and stands for all that follow it.
func hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}
