package relay

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
)

// The publications that the slot decodes. Events are inserts only; of subscriptions every change counts.
const (
	EventsPublication = "walhook_events"
	ConfigPublication = "walhook_config"
)

// published is a publication that must be there.
type published struct{ name, table, publish string }

var publications = []published{
	{EventsPublication, "outbox.events", "insert"},
	{ConfigPublication, "outbox.subscriptions", "insert, update, delete"},
}

// create is the statement that makes the publication. Rows come under the name of the table that the
// application knows, whichever partition holds them.
func (p published) create() string {
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish = '%s', publish_via_partition_root = true)", p.name, p.table, p.publish)
}

// catalogQuery looks at both publications at once, so that watching them costs one round trip. prqual and prattrs
// exist from Postgres 15 on: as JSON they are simply absent before. The statement's snapshot is taken before the
// position in the WAL is read: every transaction below the snapshot's xmin has its commit record before that position.
const catalogQuery = `SELECT p.oid IS NOT NULL, coalesce(p.puballtables OR r.oid IS NOT NULL, false),
	coalesce(p.pubinsert AND (w.inserts OR p.pubupdate AND p.pubdelete), false), coalesce(p.pubviaroot OR t.relkind <> 'p', false),
	to_jsonb(r) ->> 'prqual' IS NOT NULL, to_jsonb(r) ->> 'prattrs' IS NOT NULL,
	coalesce(t.oid::bigint, 0), coalesce(former.oid::regclass::text, ''),
	concat_ws('/', coalesce(p.oid::text, '0'), coalesce(p.xmin::text, '0'), coalesce(r.oid::text, '0'), coalesce(r.xmin::text, '0')),
	pg_snapshot_xmin(pg_current_snapshot())::text,
	CASE WHEN pg_is_in_recovery() THEN '0/0' ELSE pg_current_wal_insert_lsn()::text END
	FROM unnest($1::text[], $2::text[], $3::bool[], $4::bigint[]) WITH ORDINALITY AS w(name, "table", inserts, former, i)
	LEFT JOIN pg_class t ON t.oid = to_regclass(w."table")
	LEFT JOIN pg_class former ON former.oid = w.former::oid
	LEFT JOIN pg_publication p ON p.pubname = w.name
	LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = t.oid
	ORDER BY w.i`

// publicationState is what the catalog says of a publication and its table.
type publicationState struct {
	Exists, Member, Complete, ViaRoot, Filtered, Columns bool

	Table   int64  // OID of the table that has the name now; 0: there is none
	Former  string // name of the table that the checkpoint's catalog has, if it still exists
	Version string // OIDs and row versions of the publication and of the table's membership
	XMin    string
	End     string
}

// catalogState is one look at the tables and publications.
type catalogState struct {
	stored string // the checkpoint's
	slot   string // whose checkpoint that is
	found  []publicationState
	mark   mark
}

// mark says that every transaction with a smaller id has ended, with its commit record before the position.
type mark struct {
	at  delivery.LSN
	xid uint64
}

// readCatalog looks at the tables and publications; stored is what the checkpoint says of them.
func readCatalog(ctx context.Context, conn *pgx.Conn, stored string) (catalogState, error) {
	c := catalogState{stored: stored}
	var names, tables []string
	var inserts []bool
	var formers []int64
	for _, p := range publications {
		names, tables, inserts = append(names, p.name), append(tables, p.table), append(inserts, p.publish == "insert")
		formers = append(formers, tableIn(stored, p.table))
	}
	rows, err := conn.Query(ctx, catalogQuery, names, tables, inserts, formers)
	if err != nil {
		return c, fmt.Errorf("look at the publications: %w", err)
	}
	if c.found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[publicationState]); err != nil {
		return c, fmt.Errorf("look at the publications: %w", err)
	}
	if c.mark.at, err = delivery.ParseLSN(c.found[0].End); err != nil {
		return c, fmt.Errorf("look at the end of the WAL: %w", err)
	}
	if c.mark.xid, err = strconv.ParseUint(c.found[0].XMin, 10, 64); err != nil {
		return c, fmt.Errorf("look at the oldest transaction: %w", err)
	}
	return c, nil
}

// fingerprint names the tables and publications by OID and row version, as in "outbox.events=16422
// walhook_events=16600/733/16601/733": whoever drops, re-creates or alters one of them changes it for good, also if it
// then looks as before. A publication for all tables has 0/0 for the membership.
func (c *catalogState) fingerprint() string {
	parts := make([]string, 0, 2*len(publications))
	for i, p := range publications {
		parts = append(parts, fmt.Sprintf("%s=%d", p.table, c.found[i].Table), p.name+"="+c.found[i].Version)
	}
	return strings.Join(parts, " ")
}

var tableOID = regexp.MustCompile(`(outbox\.[a-z]+)=([0-9]+)`)

// tableIn reads a table's OID from a fingerprint; 0 when it has none.
func tableIn(fingerprint, table string) int64 {
	for _, m := range tableOID.FindAllStringSubmatch(fingerprint, -1) {
		if m[1] == table {
			oid, _ := strconv.ParseInt(m[2], 10, 64) // too many digits make it 0 or an OID that does not exist
			return oid
		}
	}
	return 0
}

// problems lists what keeps something from the stream, or may have done so since the checkpoint, with the remedies.
// Postgres says nothing about it: rows that are not published are just not there.
func (c *catalogState) problems() []*Problem {
	var all []*Problem
	for i, p := range publications {
		if problem := c.found[i].renamed(p); problem != nil {
			all = append(all, problem)
		} else if problem := c.found[i].check(p); problem != nil {
			all = append(all, problem)
		}
	}
	if now := c.fingerprint(); len(all) == 0 && c.stored != "" && c.stored != now {
		all = append(all, c.changed(now))
	}
	return all
}

// changed says that something was re-created or altered, if it looks as it should now. Up to Postgres 17 the stream gets
// stuck at what was written while a publication did not exist: then only another slot helps.
func (c *catalogState) changed(now string) *Problem {
	p := &Problem{Code: CodeCatalogChanged, Gap: true,
		What:   fmt.Sprintf("a table or publication was re-created or altered since the checkpoint (%s then, %s now): what was committed meanwhile may be missing from the stream", c.stored, now),
		Remedy: fillGap + "; if nothing is missing, or to go on without it, run UPDATE outbox.checkpoint SET catalog = ''"}
	if !slices.Equal(publicationOIDs(c.stored), publicationOIDs(now)) {
		p.Remedy = fillGap + "; " + dropAndSkip(c.slot)
	}
	return p
}

var publicationOID = regexp.MustCompile(`walhook_[a-z]+=[0-9]+/`)

// publicationOIDs reads the publications from a fingerprint.
func publicationOIDs(fingerprint string) []string {
	return publicationOID.FindAllString(fingerprint, -1)
}

// renamed refuses a table that is not there under its name: nobody can publish any more. Its rows are in the stream
// whatever it is called, so nothing is missing once it is renamed back.
func (s *publicationState) renamed(p published) *Problem {
	schema, name, _ := strings.Cut(p.table, ".")
	switch {
	case s.Table != 0:
		return nil
	case s.Former == "":
		return &Problem{Code: CodeCatalogChanged, What: "table " + p.table + " does not exist", Remedy: "restore it, or drop schema outbox and run walhook init"}
	case strings.HasPrefix(s.Former, schema+"."):
		return &Problem{Code: CodeCatalogChanged, What: fmt.Sprintf("table %s was renamed to %s", p.table, s.Former),
			Remedy: fmt.Sprintf("run ALTER TABLE %s RENAME TO %s", s.Former, name)}
	}
	return &Problem{Code: CodeCatalogChanged, What: fmt.Sprintf("table %s was moved to %s", p.table, s.Former),
		Remedy: fmt.Sprintf("run ALTER TABLE %s SET SCHEMA %s, and rename it to %s if it has another name", s.Former, schema, name)}
}

// check names what is wrong with a publication first.
func (s *publicationState) check(p published) *Problem {
	wrong, remedy := s.wrong(p)
	if wrong == "" {
		return nil
	}
	code := CodePublicationAltered
	if !s.Exists {
		code = CodePublicationMissing
	}
	return &Problem{Code: code, Gap: true, What: fmt.Sprintf("publication %s %s", p.name, wrong),
		Remedy: fmt.Sprintf("run %s; what was committed while it was so is not in the stream: "+
			"such events stay in outbox.events undelivered, and such changes of subscriptions are not followed until they are made again; "+
			"with on_lost_slot: recover the relay mends both", remedy)}
}

// wrong says what is wrong and the statement that mends it.
func (s *publicationState) wrong(p published) (wrong, remedy string) {
	switch {
	case !s.Exists:
		return "does not exist", p.create()
	case !s.Member:
		return "lacks table " + p.table, fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", p.name, p.table)
	case !s.Complete:
		return "does not publish " + p.publish, fmt.Sprintf("ALTER PUBLICATION %s SET (publish = '%s')", p.name, p.publish)
	case !s.ViaRoot:
		return "publishes partitions instead of " + p.table, fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", p.name)
	case s.Filtered:
		return "has a row filter on " + p.table, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", p.name, p.table)
	case s.Columns:
		return "has a column list for " + p.table, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", p.name, p.table)
	}
	return "", ""
}

// mend makes or alters the publications that keep something from the stream. One that the role may not mend is a
// Problem that is no gap yet: somebody must mend it first.
func mend(ctx context.Context, conn *pgx.Conn) error {
	const most = 8 // things that can be wrong with them at a time
	for range most {
		c, err := readCatalog(ctx, conn, "")
		if err != nil {
			return err
		}
		done := true
		for i, p := range publications {
			if c.found[i].Table == 0 {
				continue
			}
			_, remedy := c.found[i].wrong(p)
			if remedy == "" {
				continue
			}
			done = false
			if err := mendOne(ctx, conn, remedy); err != nil {
				problem := c.found[i].check(p)
				problem.Gap, problem.Err = false, fmt.Errorf("the relay tried: %w", err)
				return problem
			}
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("mend the publications: somebody alters them all the while")
}

// mendOne runs one statement. Whoever else mends at the same moment gets in the way of it, and the next look tells.
func mendOne(ctx context.Context, conn *pgx.Conn, statement string) error {
	const duplicateObject, concurrentlyUpdated = "42710", "XX000"
	_, err := conn.Exec(ctx, statement)
	if c := code(err); c == duplicateObject || c == concurrentlyUpdated {
		return nil
	}
	return err
}

// ensurePublication makes a publication that is not there, and reports whether it did.
func ensurePublication(ctx context.Context, conn *pgx.Conn, p published) (bool, error) {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", p.name).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for publication %s: %w", p.name, err)
	}
	if exists {
		return false, nil
	}
	if _, err := conn.Exec(ctx, p.create()); err != nil {
		return false, fmt.Errorf("create publication %s: %w", p.name, privileges(err, "own the table and have CREATE on the database"))
	}
	return true, nil
}
