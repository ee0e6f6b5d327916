package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// benchClientCommand is the benchmark's raw limit: a plain net/http client that posts the relay's bodies, unsigned,
// over as many connections as the relay may use.
func (a *app) benchClientCommand() *cobra.Command {
	var url string
	var posts, connections int
	c := &cobra.Command{
		Use: "bench-client", Hidden: true, Args: usage(cobra.NoArgs), Short: "Post for walhook bench",
		RunE: func(c *cobra.Command, _ []string) error { return postAll(c.Context(), url, posts, connections) },
	}
	c.Flags().StringVar(&url, "url", "", "where to")
	c.Flags().IntVar(&posts, "posts", 1, "how many requests")
	c.Flags().IntVar(&connections, "connections", 1, "how many connections")
	return c
}

func postAll(ctx context.Context, url string, posts, connections int) error {
	bodies := benchBodies(min(posts, 1024))
	client := plainClient(connections)
	defer client.CloseIdleConnections()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range connections {
		g.Go(func() error {
			for i := next.Add(1); i <= int64(posts); i = next.Add(1) {
				if err := postPlainly(ctx, client, url, bodies[int(i)%len(bodies)]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// plainClient is what one writes without a second thought, but for the number of kept connections, which is 2
// by default and would make every other request open one.
func plainClient(connections int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
}

func postPlainly(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post: %s", resp.Status)
	}
	return nil
}
