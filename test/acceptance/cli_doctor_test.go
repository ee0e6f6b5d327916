package acceptance_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// report is what walhook doctor --json prints.
type report struct {
	Findings []struct{ Code, Severity, What, Explanation, Remedy string }
	Errors   int
	Warnings int
}

// with lists the codes of one severity.
func (r *report) with(severity string) (codes []string) {
	for _, f := range r.Findings {
		if f.Severity == severity {
			codes = append(codes, f.Code)
		}
	}
	return codes
}

func (r *report) remedy(t *testing.T, code string) string {
	t.Helper()
	for _, f := range r.Findings {
		if f.Code == code {
			return f.Remedy
		}
	}
	require.Fail(t, "no finding "+code, "%+v", r.Findings)
	return ""
}

// examine runs walhook doctor, whose exit code must fit what it says.
func (db *database) examine(args ...string) *report {
	db.t.Helper()
	got := run(db.t, db.env(), append([]string{"doctor", "--json"}, args...)...)
	var r report
	require.NoError(db.t, json.Unmarshal([]byte(got.stdout), &r), got.stdout+got.stderr)
	require.Equal(db.t, []int{len(r.with("error")), len(r.with("warning"))}, []int{r.Errors, r.Warnings})
	if r.Errors > 0 {
		require.Equal(db.t, 3, got.code, got.stderr)
	} else {
		require.Zero(db.t, got.code, got.stderr)
	}
	return &r
}

func TestDoctorOfAFreshSetUp(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", map[string]string{"max_slot_wal_keep_size": "10GB"})
	db := prepared(t, server.URL("postgres"))
	r := db.examine()
	require.Empty(t, r.with("error"), "%+v", r.Findings)
	require.Subset(t, []string{"superuser", "version_minor", "version_end_of_life"}, r.with("warning"))
	require.Subset(t, r.with("ok"), []string{"wal_level", "slot_missing", "publication_altered", "privileges", "clone"})

	text := run(t, db.env(), "doctor")
	require.Zero(t, text.code)
	require.Contains(t, text.stdout, "WARNING\n")
	require.Contains(t, text.stdout, "  superuser: role postgres is a superuser\n      why:  ")
	require.Contains(t, text.stdout, "      mend: walhook init --roles")
	require.Regexp(t, `\n0 errors, \d+ warnings; \d+ checks found nothing\n$`, text.stdout)
	require.NotContains(t, text.stdout, "publication_altered")
	require.Contains(t, run(t, db.env(), "doctor", "--all").stdout, "publication_altered: the publications leave nothing out\n")
}

// What keeps a relay from running is an error under the relay's own code, and its remedy mends it.
func TestDoctorFindsWhatTheRelayRefuses(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	at := server.URL("postgres")
	bare := &database{t: t, url: at, slot: "walhook_" + uuid.NewString()[:8], cli: build(t)}
	r := bare.examine()
	require.Contains(t, r.with("error"), "schema_missing")
	require.Contains(t, r.remedy(t, "schema_missing"), "walhook init")
	require.NotContains(t, r.with("ok"), "slot_missing", "what could not be looked at does not hold")

	db := prepared(t, at)
	db.do("ALTER PUBLICATION walhook_events SET (publish = 'delete')")
	r = db.examine()
	require.Equal(t, []string{"publication_altered"}, r.with("error"))
	statement := regexp.MustCompile(`ALTER PUBLICATION [^;:]*\)`).FindString(r.remedy(t, "publication_altered"))
	db.do(statement)
	require.NotContains(t, db.examine().with("error"), "publication_altered")

	db.do("SELECT pg_drop_replication_slot($1)", db.slot)
	r = db.examine()
	require.Contains(t, r.with("error"), "slot_missing")

	text := run(t, db.env(), "doctor")
	require.Equal(t, 3, text.code)
	require.True(t, strings.HasPrefix(text.stdout, "ERROR\n"), text.stdout)
	require.Contains(t, text.stderr, "doctor found errors")
}

func TestDoctorWithoutADatabase(t *testing.T) {
	t.Parallel()
	r := run(t, []string{"DATABASE_URL=postgres://postgres:hidden@127.0.0.1:1/none"}, "doctor", "--json")
	require.Equal(t, 3, r.code, r.stderr)
	require.NotContains(t, r.stdout+r.stderr, "hidden")
	var got report
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
	require.Equal(t, []string{"connection"}, got.with("error"))
	require.Len(t, got.Findings, 1)
}

func TestDoctorTriesReceiversUnderThePolicy(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	db.subscribe(receiver.URL())
	db.subscribe("http://192.0.2.1/")
	r := db.examine()
	require.Contains(t, r.with("warning"), "url_refused")
	require.NotContains(t, r.with("warning"), "url_unreachable")
	require.Contains(t, fmt.Sprint(r.Findings), "delivery.allow_networks")
	require.Zero(t, receiver.Count(), "nothing is sent")
	require.NotContains(t, db.examine("--skip-urls").with("warning"), "url_refused")
}

func TestDoctorListsItsCodes(t *testing.T) {
	t.Parallel()
	text := run(t, nil, "doctor", "--list")
	require.Zero(t, text.code, text.stderr)
	require.Regexp(t, `(?m)^wal_level +error +wal_level is logical$`, text.stdout)
	o := run(t, nil, "doctor", "--list", "--json").object(t)
	require.Len(t, o["codes"], strings.Count(text.stdout, "\n")-1)
}

// The roles can be printed and applied by somebody else, and who may not make them is told so.
func TestInitMakesRoles(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	code, out := db.walhook("init", "--roles")
	require.Zero(t, code, out)
	require.Contains(t, out, "made and granted the roles walhook_relay, walhook_app, walhook_config, walhook_reader")
	require.Equal(t, 4, ask[int](db, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'walhook%'"))

	printed := run(t, nil, "init", "--roles", "--print-sql")
	require.Zero(t, printed.code, printed.stderr)
	db.do(printed.stdout)

	db.do("CREATE ROLE plain LOGIN REPLICATION")
	db.do("CREATE DATABASE other OWNER plain")
	env := []string{"DATABASE_URL=" + strings.Replace(server.URL("other"), "postgres@", "plain@", 1), "WALHOOK_SLOT=other"}
	require.Zero(t, run(t, env, "init", "--roles").code, "they are there: granting takes the owner alone")
	conn, err := pgx.Connect(t.Context(), server.URL("other"))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "DROP OWNED BY walhook_app, walhook_config, walhook_reader, walhook_relay")
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	db.do("DROP OWNED BY walhook_app; DROP ROLE walhook_app")
	r := run(t, env, "init", "--roles")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, `ALTER ROLE "plain" CREATEROLE`)
	require.Contains(t, r.stderr, "--print-sql")
}
