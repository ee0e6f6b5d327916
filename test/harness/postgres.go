package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/sql"
)

// serverVariable names a server to use instead of a throw-away one.
const serverVariable = "WALHOOK_TEST_DATABASE_URL"

// setUpTimeout bounds making a server, a template or a database, which is work for a slow disk.
const setUpTimeout = 2 * time.Minute

// Cluster is the Postgres server that the tests of one binary share. Since others use it at the same time,
// nobody stops it: a test that wants to break a server gets its own from StartServer.
type Cluster struct {
	base     *url.URL // any database of the server
	version  int
	template string       // name of the database that has the schema
	close    func() error // gives back what was taken for the tests

	templateOnce sync.Once
	templateErr  error
	databases    atomic.Int64 // made so far; numbers their names
}

// shared is the one cluster of this test binary.
var shared sharedCluster

type sharedCluster struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

// Postgres returns the test binary's cluster, started at the first call. It is the server that
// WALHOOK_TEST_DATABASE_URL names (its role must be a superuser), or else a throw-away one from the binaries
// that localpg.Find finds. The test fails when there is none.
func Postgres(t testing.TB) *Cluster {
	t.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		shared.cluster, shared.err = openCluster(ctx)
	})
	require.NoError(t, shared.err, "a Postgres server for the tests")
	return shared.cluster
}

func openCluster(ctx context.Context) (*Cluster, error) {
	if address := os.Getenv(serverVariable); address != "" {
		c, err := newCluster(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("use %s: %w", serverVariable, err)
		}
		c.close = c.dropTemplate
		return c, nil
	}
	server, closeServer, err := startLocal(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	c, err := newCluster(ctx, server.URL("postgres"))
	if err != nil {
		return nil, errors.Join(err, closeServer())
	}
	c.close = closeServer
	return c, nil
}

// newCluster looks at the server. The template's name is this process's own: beside us, other test binaries
// may use the same server with another version of the schema.
func newCluster(ctx context.Context, address string) (*Cluster, error) {
	base, err := url.Parse(address)
	if err != nil || (base.Scheme != "postgres" && base.Scheme != "postgresql") {
		return nil, errors.New("not a URL (want postgres://user@host:port/database)")
	}
	c := &Cluster{base: base, template: "walhook_template_" + strings.ToLower(rand.Text()[:10])}
	return c, c.admin(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&c.version)
	})
}

// close ends the cluster of this binary, if a test started it.
func (s *sharedCluster) close() error {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.close()
}

// dropTemplate is all that has to be done on a server which stays.
func (c *Cluster) dropTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	return c.drop(ctx, c.template)
}

// URL returns the connection string of a database on the cluster.
func (c *Cluster) URL(database string) string {
	u := *c.base
	u.Path = "/" + database
	return u.String()
}

// Version returns the server's major version, such as 15.
func (c *Cluster) Version() int { return c.version }

// admin calls f with a connection to the database that the cluster was opened with.
func (c *Cluster) admin(ctx context.Context, f func(*pgx.Conn) error) error {
	return withConn(ctx, c.base.String(), f)
}

func withConn(ctx context.Context, url string, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return f(conn)
}

// Database returns the URL of a fresh database that has the schema. When the test ends it is dropped,
// together with its logical slots and whoever still uses it.
func Database(t testing.TB) string {
	t.Helper()
	c := Postgres(t)
	c.templateOnce.Do(func() { c.templateErr = c.makeTemplate() })
	require.NoError(t, c.templateErr, "a database with the schema")
	return c.database(t, c.template)
}

// EmptyDatabase is Database without the schema.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	return Postgres(t).database(t, "template0")
}

// makeTemplate migrates a database once, to be copied by every test. The lock is for what migrations may
// make for the whole server, such as roles, while another test binary migrates on the same one.
func (c *Cluster) makeTemplate() error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	return c.admin(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtext('walhook test template'))"); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+c.template+" TEMPLATE template0"); err != nil {
			return err
		}
		_, err := sql.Migrate(ctx, c.URL(c.template))
		return err
	})
}

func (c *Cluster) database(t testing.TB, template string) string {
	t.Helper()
	name := fmt.Sprintf("%s_%d", strings.Replace(c.template, "template", "test", 1), c.databases.Add(1))
	ctx, cancel := context.WithTimeout(t.Context(), setUpTimeout)
	defer cancel()
	require.NoError(t, c.admin(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
		return err
	}), "a database for the test")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		require.NoError(t, c.drop(ctx, name), "drop the test's database")
	})
	return c.URL(name)
}

// drop removes a database with all that holds on to it: prepared transactions, logical slots, sessions.
func (c *Cluster) drop(ctx context.Context, name string) error {
	if err := c.rollBackPrepared(ctx, name); err != nil {
		return fmt.Errorf("roll back prepared transactions of %s: %w", name, err)
	}
	return c.admin(ctx, func(conn *pgx.Conn) error {
		if err := dropSlots(ctx, conn, name); err != nil {
			return fmt.Errorf("drop the slots of %s: %w", name, err)
		}
		_, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		return err
	})
}

// rollBackPrepared connects to the database itself only if need be: elsewhere they cannot be ended.
func (c *Cluster) rollBackPrepared(ctx context.Context, database string) error {
	var gids []string
	err := c.admin(ctx, func(conn *pgx.Conn) error {
		rows, _ := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = $1", database)
		var err error
		gids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil || len(gids) == 0 {
		return err
	}
	return withConn(ctx, c.URL(database), func(conn *pgx.Conn) error {
		for _, gid := range gids {
			if _, err := conn.Exec(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropSlots ends whoever streams from a database's slots and drops them. A terminated walsender takes a
// moment to let go, and a relay that outlived its test may come back, so it is tried until they are gone.
func dropSlots(ctx context.Context, conn *pgx.Conn, database string) error {
	const within = 15 * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("they are still in use after %s", within))
	defer cancel()
	for {
		rows, _ := conn.Query(ctx, "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1", database)
		slots, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if len(slots) == 0 {
			return nil
		}
		for _, slot := range slots {
			if err := dropSlot(ctx, conn, slot); err != nil {
				return errors.Join(context.Cause(ctx), err)
			}
		}
	}
}

// dropSlot tries to drop one slot. That it is in use or gone is no error.
func dropSlot(ctx context.Context, conn *pgx.Conn, slot string) error {
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid), pg_sleep(0.01)
		FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`, slot)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot)
	const objectInUse, undefinedObject = "55006", "42704"
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (pgErr.Code == objectInUse || pgErr.Code == undefinedObject) {
		return nil
	}
	return err
}

// Connect returns a pool of connections to the database at url. It is closed when the test ends, before the
// database is dropped.
func Connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, pool.Ping(t.Context()))
	return pool
}
