package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
)

// A new setting starts the relay anew unless somebody thought of it here.
func TestLightKeysAreSettings(t *testing.T) {
	t.Parallel()
	var light []string
	for _, k := range config.Keys() {
		if lightKey(k.Name) {
			light = append(light, k.Name)
		}
	}
	require.Subset(t, light, []string{"log_level", "log_format", "retention.events", "retention.partitions_ahead", "alerts.interval", "replication.wal_disk_size"})
	for _, name := range []string{"database_url", "slot", "listen", "on_lost_slot", "delivery.max_senders", "replication.heartbeat", "secrets.keyset"} {
		require.NotContains(t, light, name)
	}
}

// What waiting mends is waited for, and nothing else.
func TestLastingErrors(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("connect to Postgres: %w", &pgconn.PgError{Code: code}) }
	for _, err := range []error{
		fmt.Errorf("%w: url", errUsage), fmt.Errorf("%w: no schema", relay.ErrSetup), state(invalidPassword), state(undefinedDatabase),
		state(insufficientPrivilege), state(undefinedTable), state("42703"),
	} {
		require.True(t, lasting(err), "%v", err)
	}
	for _, err := range []error{
		errors.New("connection refused"), state("57P03"), state("53300"), state("08006"), state("57P01"),
	} {
		require.False(t, lasting(err), "%v", err)
	}
}
