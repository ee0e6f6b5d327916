package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// flavour is one way in which an application talks to Postgres. Its functions run in one transaction,
// committed at the end.
type flavour struct {
	name    string
	publish func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error)
	batch   func(t *testing.T, url string, events []outbox.Event) ([]uuid.UUID, error)
	emit    func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error)
}

// flavours are pgx and database/sql, each with every protocol: poolers dictate which may be used.
func flavours() []flavour {
	var all []flavour
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		all = append(all, pgxFlavour(mode), sqlFlavour(mode))
	}
	return all
}

func pgxFlavour(mode pgx.QueryExecMode) flavour {
	return flavour{
		name: "pgx " + mode.String(),
		publish: func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error) {
			return inPgx(t, url, mode, func(tx pgx.Tx) (uuid.UUID, error) { return outbox.Publish(t.Context(), tx, e) })
		},
		batch: func(t *testing.T, url string, events []outbox.Event) ([]uuid.UUID, error) {
			return inPgx(t, url, mode, func(tx pgx.Tx) ([]uuid.UUID, error) { return outbox.PublishBatch(t.Context(), tx, events) })
		},
		emit: func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error) {
			return inPgx(t, url, mode, func(tx pgx.Tx) (uuid.UUID, error) { return outbox.Emit(t.Context(), tx, e) })
		},
	}
}

func inPgx[R any](t *testing.T, url string, mode pgx.QueryExecMode, f func(pgx.Tx) (R, error)) (R, error) {
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	var result R
	return result, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		result, err = f(tx)
		return err
	})
}

func sqlFlavour(mode pgx.QueryExecMode) flavour {
	return flavour{
		name: "database/sql " + mode.String(),
		publish: func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error) {
			return inSQL(t, url, mode, func(tx *sql.Tx) (uuid.UUID, error) { return outbox.PublishSQL(t.Context(), tx, e) })
		},
		batch: func(t *testing.T, url string, events []outbox.Event) ([]uuid.UUID, error) {
			return inSQL(t, url, mode, func(tx *sql.Tx) ([]uuid.UUID, error) { return outbox.PublishBatchSQL(t.Context(), tx, events) })
		},
		emit: func(t *testing.T, url string, e outbox.Event) (uuid.UUID, error) {
			return inSQL(t, url, mode, func(tx *sql.Tx) (uuid.UUID, error) { return outbox.EmitSQL(t.Context(), tx, e) })
		},
	}
}

func inSQL[R any](t *testing.T, url string, mode pgx.QueryExecMode, f func(*sql.Tx) (R, error)) (R, error) {
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	config.DefaultQueryExecMode = mode
	db := stdlib.OpenDB(*config)
	defer func() { require.NoError(t, db.Close()) }()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	result, err := f(tx)
	if err != nil {
		require.NoError(t, tx.Rollback())
		return result, err
	}
	return result, tx.Commit()
}

// stored is a row of outbox.events; JSON columns as jsonb prints them.
type stored struct {
	ID                         uuid.UUID
	Type, Payload              string
	Key, Source, CorrelationID *string
	Tenant, Headers            string
	Dated                      bool
}

// readEvents returns all events in the order in which they were inserted.
func readEvents(t *testing.T, pool *pgxpool.Pool) []stored {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		SELECT id, type, payload::text, key, source, correlation_id, tenant, headers::text,
		       created_at BETWEEN now() - interval '10 minutes' AND now()
		FROM outbox.events ORDER BY tableoid, ctid`)
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	require.NoError(t, err)
	return events
}

// truncate empties the table, so that rows lie in it as they are inserted.
func truncate(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), "TRUNCATE outbox.events")
	require.NoError(t, err)
}

func text(s string) *string { return &s }

// awkward holds what breaks careless quoting.
var awkward = outbox.Event{
	ID:   uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"),
	Type: `o'br\ien."x"$1`, Key: `k'\"$1{},NULL`, Tenant: "t\n\t?;--", Source: `\x00`, CorrelationID: "é😀\u2028<&>",
	Payload: json.RawMessage(` {"n": 12345678901234567890.12300, "s": "'\\\"$1\u00e9<&>\u2028", "a": [null, {}, []]} `),
	Headers: map[string]string{"traceparent": "00-a-b-01", `q'"\`: "<&>\n"},
}

var awkwardStored = stored{
	ID: awkward.ID, Type: awkward.Type, Key: &awkward.Key, Tenant: awkward.Tenant, Source: &awkward.Source, CorrelationID: &awkward.CorrelationID,
	Payload: `{"a": [null, {}, []], "n": 12345678901234567890.12300, "s": "'\\\"$1é<&>` + "\u2028" + `"}`,
	Headers: `{"q'\"\\": "<&>\n", "traceparent": "00-a-b-01"}`, Dated: true,
}

func TestPublishStoresTheEvent(t *testing.T) {
	url := harness.Database(t)
	pool := harness.Connect(t, url)
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			truncate(t, pool)
			id, err := f.publish(t, url, awkward)
			require.NoError(t, err)
			require.Equal(t, awkward.ID, id)
			made, err := f.publish(t, url, outbox.Event{Type: "ping"})
			require.NoError(t, err)
			require.Equal(t, uuid.Version(7), made.Version())
			require.Empty(t, cmp.Diff([]stored{
				awkwardStored,
				{ID: made, Type: "ping", Payload: "{}", Headers: "{}", Dated: true},
			}, byID(readEvents(t, pool))))
		})
	}
}

// byID sorts two events that may lie in different partitions.
func byID(events []stored) []stored {
	if len(events) == 2 && strings.Compare(events[0].ID.String(), events[1].ID.String()) > 0 {
		events[0], events[1] = events[1], events[0]
	}
	return events
}

func TestPublishBatchKeepsTheOrder(t *testing.T) {
	url := harness.Database(t)
	pool := harness.Connect(t, url)
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			truncate(t, pool)
			events := []outbox.Event{{Type: "null", Payload: json.RawMessage(" null ")}, {Type: "none"}, {Type: "text", Payload: "a<b", Key: "k"}}
			for len(events) < 2*outbox.ChunkEvents+500 {
				events = append(events, outbox.Event{Type: "n", Payload: len(events)})
			}
			ids, err := f.batch(t, url, events)
			require.NoError(t, err)
			got := readEvents(t, pool)
			require.Len(t, got, len(events))
			want := []stored{
				{ID: ids[0], Type: "null", Payload: "null", Headers: "{}", Dated: true},
				{ID: ids[1], Type: "none", Payload: "{}", Headers: "{}", Dated: true},
				{ID: ids[2], Type: "text", Payload: `"a<b"`, Key: text("k"), Headers: "{}", Dated: true},
			}
			require.Empty(t, cmp.Diff(want, got[:3]))
			for i, e := range got {
				require.Equal(t, ids[i], e.ID)
			}
		})
	}
}

func TestPublishBatchStoresTheSameAsPublish(t *testing.T) {
	url := harness.Database(t)
	pool := harness.Connect(t, url)
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			truncate(t, pool)
			ids, err := f.batch(t, url, []outbox.Event{awkward})
			require.NoError(t, err)
			require.Equal(t, []uuid.UUID{awkward.ID}, ids)
			require.Empty(t, cmp.Diff([]stored{awkwardStored}, readEvents(t, pool)))
		})
	}
}

func TestEmitWritesAMessageAndNoRow(t *testing.T) {
	url := harness.Database(t)
	pool := harness.Connect(t, url)
	slot := "emit_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	_, err := pool.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot)
	require.NoError(t, err)
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			e := awkward
			e.ID = uuid.Nil
			id, err := f.emit(t, url, e)
			require.NoError(t, err)
			require.Empty(t, readEvents(t, pool))

			var message string
			require.NoError(t, pool.QueryRow(t.Context(), `
				SELECT substring(data FROM 'content:(.*)$') FROM pg_logical_slot_get_changes($1, NULL, NULL)
				WHERE data LIKE 'message: transactional: 1 prefix: outbox%'`, slot).Scan(&message))
			var got struct {
				ID                                       uuid.UUID
				Type, Key, Tenant, Source, CorrelationID string
				Payload                                  json.RawMessage
				Headers                                  map[string]string
			}
			message = strings.Replace(message, `"correlation_id"`, `"CorrelationID"`, 1)
			require.NoError(t, json.Unmarshal([]byte(message), &got))
			require.Equal(t, id, got.ID)
			require.Equal(t, []string{e.Type, e.Key, e.Tenant, e.Source, e.CorrelationID},
				[]string{got.Type, got.Key, got.Tenant, got.Source, got.CorrelationID})
			require.Equal(t, awkwardStored.Payload, string(got.Payload))
			require.Equal(t, e.Headers, got.Headers)
		})
	}
}

func TestInvalidEventsDoNotReachTheDatabase(t *testing.T) {
	pool := harness.Connect(t, harness.Database(t))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = outbox.Publish(t.Context(), tx, outbox.Event{})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.EqualError(t, err, "publish event: invalid event: the type is empty: name what happened, as in patient.created")
	_, err = outbox.PublishBatch(t.Context(), tx, []outbox.Event{{Type: "a"}, {Type: "b c"}})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	require.EqualError(t, err, `publish event 1 of 2: invalid event: type "b c" has ' ' at byte 1: `+
		"use printable ASCII without spaces and '*', as in patient.created")
	_, err = outbox.Emit(t.Context(), tx, outbox.Event{Payload: []byte("{")})
	require.ErrorIs(t, err, outbox.ErrInvalid)
	_, err = outbox.Emit(t.Context(), tx, outbox.Event{Type: "a", ID: awkward.ID})
	require.EqualError(t, err, "emit event: invalid event: it has the id 01890a5d-ac96-774b-bcce-b302099a8057, "+
		"but outbox.emit() makes the id: leave it empty or use Publish")
	ids, err := outbox.PublishBatch(t.Context(), tx, nil)
	require.NoError(t, err)
	require.Empty(t, ids)

	_, err = outbox.Publish(t.Context(), tx, outbox.Event{Type: "still.usable"})
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.Len(t, readEvents(t, pool), 1)
}

func TestRollbackTakesTheEventBack(t *testing.T) {
	pool := harness.Connect(t, harness.Database(t))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = outbox.PublishBatch(t.Context(), tx, []outbox.Event{{Type: "a"}, {Type: "b"}})
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Empty(t, readEvents(t, pool))
}

func TestDatabaseErrorsAreKept(t *testing.T) {
	pool := harness.Connect(t, harness.Database(t))
	_, err := outbox.Publish(t.Context(), pool, awkward)
	require.NoError(t, err)
	_, err = outbox.Publish(t.Context(), pool, awkward)
	require.ErrorContains(t, err, "publish event "+awkward.ID.String())
	requireCode(t, "23505", err)
	_, err = outbox.PublishBatch(t.Context(), pool, []outbox.Event{{Type: "a"}, awkward})
	require.ErrorContains(t, err, "publish events 0 to 1 of 2: ")
	requireCode(t, "23505", err)
	_, err = pool.Exec(t.Context(), "DROP FUNCTION outbox.emit")
	require.NoError(t, err)
	_, err = outbox.Emit(t.Context(), pool, outbox.Event{Type: "a"})
	require.ErrorContains(t, err, "emit event (a): ")
	requireCode(t, "42883", err)
}

// requireCode checks the SQLSTATE that an error wraps.
func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code)
}

func TestInsertIsEnough(t *testing.T) {
	pool := harness.Connect(t, harness.Database(t))
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	role := "app_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	_, err = tx.Exec(t.Context(), `CREATE ROLE `+role+`; GRANT USAGE ON SCHEMA outbox TO `+role+`;
		GRANT INSERT ON outbox.events TO `+role+`; SET LOCAL ROLE `+role)
	require.NoError(t, err)
	_, err = outbox.Publish(t.Context(), tx, outbox.Event{Type: "a"})
	require.NoError(t, err)
	_, err = outbox.PublishBatch(t.Context(), tx, []outbox.Event{{Type: "b"}, {Type: "c"}})
	require.NoError(t, err)
	_, err = outbox.Emit(t.Context(), tx, outbox.Event{Type: "d"})
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
}

// TestLargestEvents publishes what is just allowed: the database must agree, alone and in a batch, and one
// byte more must be refused by both.
func TestLargestEvents(t *testing.T) {
	pool := harness.Connect(t, harness.Database(t))
	largest := outbox.Event{
		Type: strings.Repeat("t", outbox.MaxName), Key: strings.Repeat("k", outbox.MaxKey), Tenant: strings.Repeat("t", outbox.MaxName),
		Source: strings.Repeat("s", outbox.MaxName), CorrelationID: strings.Repeat("c", outbox.MaxName),
		Payload: incompressible(outbox.MaxPayload - 2),
	}
	_, err := outbox.Publish(t.Context(), pool, largest)
	require.NoError(t, err)
	small := outbox.Event{Type: "small", Payload: incompressible(outbox.ChunkBytes / 2)}
	_, err = outbox.PublishBatch(t.Context(), pool, []outbox.Event{small, largest, small})
	require.NoError(t, err)
	var n int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox.events").Scan(&n))
	require.Equal(t, 4, n)

	larger := largest
	larger.Payload = incompressible(outbox.MaxPayload - 1)
	require.ErrorIs(t, larger.Validate(), outbox.ErrInvalid)
	_, err = pool.Exec(t.Context(), outbox.InsertEvent, uuid.NewString(), "a", string(larger.Payload.(json.RawMessage)), nil, "", nil, nil, "{}")
	requireCode(t, "23514", err)
}

// incompressible makes a JSON array that jsonb prints with exactly so many bytes.
func incompressible(size int) json.RawMessage {
	const item = `"0123456789abcdefghij"`
	n := size / (len(item) + 2) / 2
	items := strings.Repeat(item+",", n)
	rest := size - n*(len(item)+2) - len(`[""]`)
	return json.RawMessage(`[` + items + `"` + strings.Repeat("x", rest) + `"]`)
}
