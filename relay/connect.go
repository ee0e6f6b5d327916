package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/stream"
)

// connect opens a session for the relay's own work. What a role or database sets for its sessions does not
// apply here: a recorded batch must survive a crash, and no time limit may break a transaction off.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("connection string: %w", err)
	}
	stream.Unlimited(&cfg.Config)
	for name, value := range map[string]string{
		"application_name": "walhook", "synchronous_commit": "on", "search_path": "", "timezone": "UTC", "client_encoding": "UTF8",
		"default_transaction_isolation": "read committed", "default_transaction_read_only": "off",
		"jit": "off", // compiling a claim takes longer than many claims
		// The plan of a statement that is kept from when the queue was empty, or half of whose rows are one sequence's,
		// would read the whole queue once for each row of a claim. There is an index for everything here.
		"enable_seqscan": "off",
	} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

// connectGuarded opens a session that holds what other relays need. Postgres ends it, and frees that, when its relay has
// been silent for long: one that was stopped in the midst of its work keeps the connection open for ever.
func connectGuarded(ctx context.Context, url string, silent time.Duration) (*pgx.Conn, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "SELECT set_config('idle_session_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $1, false)",
		fmt.Sprint(silent.Milliseconds()))
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("connect to Postgres: limit the session's silence: %w", err)
	}
	return conn, nil
}
