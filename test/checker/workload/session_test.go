package workload

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/harness"
)

// opened returns a session of the database.
func opened(t *testing.T, address string) *session {
	t.Helper()
	s := &session{url: address}
	require.NoError(t, s.open(t.Context()))
	t.Cleanup(s.close)
	return s
}

func (s *session) do(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		_, err := s.conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

// What a COMMIT means whose transaction does something at its very end.
func TestOnlyASureAnswerDecides(t *testing.T) {
	t.Parallel()
	address := harness.EmptyDatabase(t)
	s := opened(t, address)
	s.do(t, "CREATE TABLE t (statement text)",
		"CREATE FUNCTION last() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE NEW.statement; RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER last AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION last()")
	ended, end := context.WithCancel(t.Context())
	end()
	for name, tt := range map[string]struct {
		ctx       context.Context
		statement string
		want      reply
		failure   string // no fault explains it
		closed    bool
	}{
		"accepted":              {ctx: t.Context(), statement: "SELECT 1", want: accepted},
		"an error that passes":  {ctx: t.Context(), statement: "DO $$ BEGIN RAISE serialization_failure; END $$", want: refused},
		"an error of our own":   {ctx: t.Context(), statement: "SELECT 1/0", want: refused, failure: "division by zero"},
		"never sent":            {ctx: ended, statement: "SELECT 1", want: refused, closed: true},
		"the connection breaks": {ctx: t.Context(), statement: "SELECT pg_terminate_backend(pg_backend_pid())", want: noReply, closed: true},
	} {
		s := opened(t, address)
		s.do(t, "BEGIN", "INSERT INTO t VALUES ('"+tt.statement+"')")
		got, err := s.decide(tt.ctx, "COMMIT", "COMMIT")
		require.Equal(t, tt.want, got, name)
		require.Equal(t, tt.closed, s.conn.IsClosed(), name)
		if tt.failure == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, tt.failure, name)
		}
	}
	s.do(t, "BEGIN")
	_, err := s.conn.Exec(t.Context(), "SELECT 1/0")
	require.Error(t, err)
	got, err := s.decide(t.Context(), "COMMIT", "COMMIT")
	require.Equal(t, refused, got)
	require.ErrorContains(t, err, "ROLLBACK")
}

// A server that dies says nothing.
func TestAServerThatDiesDuringCommit(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	s := opened(t, server.URL("postgres"))
	s.do(t, "CREATE TABLE t ()",
		"CREATE FUNCTION last() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER last AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION last()")
	died := make(chan error, 1)
	other := opened(t, server.URL("postgres"))
	go func() {
		var asleep bool
		for !asleep {
			err := other.conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')").Scan(&asleep)
			if err != nil {
				died <- err
				return
			}
		}
		died <- server.Stop("immediate")
	}()
	s.do(t, "BEGIN", "INSERT INTO t DEFAULT VALUES")
	got, err := s.decide(t.Context(), "COMMIT", "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-died)
	require.Equal(t, noReply, got)
	require.True(t, s.conn.IsClosed())

	got, err = s.decide(t.Context(), "COMMIT", "COMMIT")
	require.NoError(t, err)
	require.Equal(t, refused, got, "on a connection that is closed already")
}

// A command about a prepared transaction that got no reply is decided by whether the transaction is still there.
func TestADoubtIsResolved(t *testing.T) {
	t.Parallel()
	address := harness.EmptyDatabase(t)
	opened(t, address).do(t, "CREATE TABLE t (gid text)")
	for name, tt := range map[string]struct {
		there, asked, commit bool
		want                 history.Outcome
	}{
		"PREPARE was done, commit":                {there: true, commit: true, want: history.Committed},
		"PREPARE was done, roll back":             {there: true, want: history.RolledBack},
		"PREPARE was not done":                    {commit: true, want: history.RolledBack},
		"COMMIT PREPARED was done":                {asked: true, commit: true, want: history.Committed},
		"COMMIT PREPARED was not done":            {there: true, asked: true, commit: true, want: history.Committed},
		"ROLLBACK PREPARED was done":              {asked: true, want: history.RolledBack},
		"ROLLBACK PREPARED was not done, and now": {there: true, asked: true, want: history.RolledBack},
	} {
		lost := opened(t, address) // as the server sees it, its client is still there
		gid := "doubt " + name + " " + lost.conn.Config().Database
		if tt.there {
			lost.do(t, "BEGIN", "INSERT INTO t VALUES ('"+gid+"')", "PREPARE TRANSACTION '"+gid+"'")
		}
		w := New(Options{URL: address})
		x := &prepared{gid: gid, write: history.Write{Kept: []int64{1}, Prepared: true}, fate: fate{commit: tt.commit}, doubt: lost.name, asked: tt.asked}
		s := opened(t, address)
		finished, err := w.finish(t.Context(), s, x)
		require.NoError(t, err, name)
		require.True(t, finished, name)
		require.Equal(t, tt.want, w.Writes()[0].Outcome, name)
		var rows int
		require.NoError(t, s.conn.QueryRow(t.Context(), "SELECT count(*) FROM t WHERE gid = $1", gid).Scan(&rows))
		require.Equal(t, tt.there && tt.commit, rows == 1, name)
		require.Error(t, lost.conn.Ping(t.Context()), "%s: the session in doubt can still act", name)
	}
}
