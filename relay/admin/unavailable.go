package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Status is the HTTP status of a kind; 0 for one that is not known.
func (k Kind) Status() int {
	switch k {
	case NotFound:
		return http.StatusNotFound
	case Invalid:
		return http.StatusUnprocessableEntity
	case Conflict:
		return http.StatusConflict
	case Stale:
		return http.StatusPreconditionFailed
	case Forbidden:
		return http.StatusForbidden
	case Unauthenticated:
		return http.StatusUnauthorized
	case TooMany:
		return http.StatusTooManyRequests
	}
	return 0
}

// awayStates are classes of SQLSTATEs, and one of them, that pass by themselves
// (https://www.postgresql.org/docs/current/errcodes-appendix.html): no connection, no room, shutting down or starting, and a
// standby, which cannot be written to.
var awayStates = []string{"08", "53", "57P", "25006"}

// Unavailable reports an error of the way to the database, or that the database is not up or has no room: asking again may
// help.
func Unavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var server *pgconn.PgError
	switch {
	case errors.As(err, &server): // also inside of a ConnectError: what it says is more exact
		for _, state := range awayStates {
			if strings.HasPrefix(server.Code, state) {
				return true
			}
		}
		return false
	case errors.As(err, &connect), errors.As(err, &network):
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}
