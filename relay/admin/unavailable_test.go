package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestUnavailable(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return &pgconn.PgError{Code: code} }
	for _, err := range []error{
		state("08006"), state("53300"), state("53100"), state("57P01"), state("57P03"), state("25006"),
		&net.OpError{Op: "dial", Err: errors.New("refused")}, &pgconn.ConnectError{}, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF,
	} {
		require.True(t, admin.Unavailable(fmt.Errorf("ask: %w", err)), "%v", err)
	}
	for _, err := range []error{state("23505"), state("42P01"), state("57014"), state("25P02"), errors.New("else"), context.Canceled, &admin.Error{}} {
		require.False(t, admin.Unavailable(fmt.Errorf("ask: %w", err)), "%v", err)
	}
}

func TestKindsHaveStatuses(t *testing.T) {
	t.Parallel()
	for kind, status := range map[admin.Kind]int{
		admin.NotFound: http.StatusNotFound, admin.Invalid: http.StatusUnprocessableEntity, admin.Conflict: http.StatusConflict,
		admin.Stale: http.StatusPreconditionFailed, admin.Forbidden: http.StatusForbidden,
		admin.Unauthenticated: http.StatusUnauthorized, admin.TooMany: http.StatusTooManyRequests, "": 0,
	} {
		require.Equal(t, status, kind.Status(), kind)
	}
}
