package relay_test

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// check is what walhook run does first.
func check(t *testing.T, o relay.Options) error {
	t.Helper()
	return relay.New(o, nil, deaf{}, zerolog.Nop()).Check(t.Context())
}

// inspect lists what doctor finds wrong with the slot.
func inspect(t *testing.T, o relay.Options) error {
	t.Helper()
	var all []error
	for _, p := range relay.Inspect(t.Context(), o.URL, o.Slot) {
		require.NotEmpty(t, p.Code)
		require.NotEmpty(t, p.What)
		require.NotEmpty(t, p.Remedy)
		all = append(all, p)
	}
	return errors.Join(all...)
}

// hasSlot reports whether the server has the slot, of whichever database.
func hasSlot(t *testing.T, db *pgxpool.Pool, slot string) bool {
	t.Helper()
	return value[bool](t, db, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", slot)
}

// Whoever made a slot would lose what it holds, so that it is dropped only when the set-up itself made it.
func TestSetupLeavesSlotsOfOthers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		make, says string
		elsewhere  bool // made in another database
	}{
		"another database": {"SELECT pg_create_logical_replication_slot($1, 'pgoutput')", "belongs to database walhook_test_", true},
		"physical":         {"SELECT pg_create_physical_replication_slot($1)", "is a physical slot", false},
		"another plugin":   {"SELECT pg_create_logical_replication_slot($1, 'test_decoding')", "uses the plugin test_decoding", false},
		"not walhook's":    {"SELECT pg_create_logical_replication_slot($1, 'pgoutput')", "run SELECT pg_drop_replication_slot('walhook_", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(harness.Database(t))
			db := harness.Connect(t, o.URL)
			maker := db
			if tt.elsewhere {
				maker = harness.Connect(t, harness.EmptyDatabase(t))
			}
			exec(t, maker, tt.make, o.Slot)
			_, err := relay.Setup(t.Context(), o.URL, o.Slot)
			require.ErrorIs(t, err, relay.ErrSetup)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "--slot")
			require.True(t, hasSlot(t, db, o.Slot))

			exec(t, maker, "SELECT pg_drop_replication_slot($1)", o.Slot)
			_, err = relay.Setup(t.Context(), o.URL, o.Slot)
			require.NoError(t, err)
			require.NoError(t, check(t, o))
		})
	}
}

// A set-up that is killed after it made the slot leaves no checkpoint. The next one takes the slot for its own.
func TestSetupMayBeRepeatedWhenItWasKilled(t *testing.T) {
	t.Parallel()
	o := options(harness.Database(t))
	db := harness.Connect(t, o.URL)
	// The checkpoint cannot be written, as if the set-up had been killed right before.
	exec(t, db, "ALTER TABLE outbox.checkpoint ADD CONSTRAINT killed CHECK (false)")
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.ErrorContains(t, err, "killed")
	require.True(t, hasSlot(t, db, o.Slot))
	exec(t, db, "ALTER TABLE outbox.checkpoint DROP CONSTRAINT killed")

	done, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	require.Equal(t, []string{"created replication slot " + o.Slot}, done)
	require.NoError(t, check(t, o))
}

// A database copied inside the server brings the checkpoint along, and the slot remains the original's.
func TestCheckRefusesTheSlotOfTheOriginal(t *testing.T) {
	t.Parallel()
	o, original := options(harness.Database(t)), options(harness.Database(t))
	original.Slot = o.Slot
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	db := harness.Connect(t, o.URL)
	exec(t, db, "SELECT pg_drop_replication_slot($1)", o.Slot)
	_, err = relay.Setup(t.Context(), original.URL, original.Slot)
	require.NoError(t, err)
	for _, err := range []error{inspect(t, o), second(relay.Setup(t.Context(), o.URL, o.Slot))} {
		require.ErrorIs(t, err, relay.ErrSetup)
		require.ErrorContains(t, err, "belongs to database")
	}
	require.ErrorContains(t, inspect(t, o), "if this database is meant to send as well, delete the slot's row")
	require.NotContains(t, inspect(t, o).Error(), "pg_drop_replication_slot", "it is the original's")
	require.NoError(t, check(t, o), "the queue can be served")
	require.NoError(t, check(t, original))
}

// Somebody else took the name after the slot was dropped. Another name alone would not help, since the checkpoint bears this
// one: the remedies work as they are printed.
func TestRemediesOfATakenName(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{"drop it": "run (SELECT pg_drop_replication_slot[^:]*):", "another name": `\((DELETE FROM outbox.checkpoint [^)]*)\)`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(harness.Database(t))
			db := harness.Connect(t, o.URL)
			_, err := relay.Setup(t.Context(), o.URL, o.Slot)
			require.NoError(t, err)
			exec(t, db, "SELECT pg_drop_replication_slot($1)", o.Slot)
			exec(t, db, "SELECT pg_create_physical_replication_slot($1)", o.Slot)
			err = inspect(t, o)
			require.ErrorContains(t, err, "is a physical slot")
			found := regexp.MustCompile(begin).FindStringSubmatch(err.Error())
			require.NotNil(t, found, err)
			exec(t, db, found[1])
			if name == "drop it" {
				require.ErrorContains(t, inspect(t, o), "is gone although its checkpoint exists", "what on_lost_slot is about")
				return
			}
			t.Cleanup(func() { drop(t, db, o.Slot) })
			o.Slot += "_2"
			_, err = relay.Setup(t.Context(), o.URL, o.Slot)
			require.NoError(t, err)
			require.NoError(t, inspect(t, o))
		})
	}
}

// Nothing is said of a server that could not be asked, and a schema that may not be used is no missing one.
func TestInspectWithoutUsage(t *testing.T) {
	t.Parallel()
	o := options(harness.Database(t))
	db := harness.Connect(t, o.URL)
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	role := "stranger_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec(t, db, "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() {
		_, err := db.Exec(context.Background(), "DROP ROLE "+role)
		require.NoError(t, err)
	})
	at, err := url.Parse(o.URL)
	require.NoError(t, err)
	at.User = url.User(role)
	o.URL = at.String()
	problems := relay.Inspect(t.Context(), o.URL, o.Slot)
	codes := make([]relay.Code, len(problems))
	for i, p := range problems {
		codes[i] = p.Code
	}
	require.Equal(t, []relay.Code{relay.CodeReplication, relay.CodePrivileges}, codes)
}

func second(_ []string, err error) error { return err }

// remedy is the statement that an error says to run.
var remedy = regexp.MustCompile(`run ((?:ALTER|CREATE) PUBLICATION [^;]*?)(?: \(if[^;]*)?;`)

// Whatever keeps rows from the stream is refused by init and found by doctor, and the remedy works as it is printed. What
// was altered and is as before is known all the same, until somebody says that nothing is missing.
func TestAlteredPublicationsAreRefused(t *testing.T) {
	t.Parallel()
	harms := map[string]string{
		"ALTER PUBLICATION walhook_events DROP TABLE outbox.events":                          "walhook_events lacks table outbox.events",
		"ALTER PUBLICATION walhook_config DROP TABLE outbox.subscriptions":                   "walhook_config lacks table outbox.subscriptions",
		"ALTER PUBLICATION walhook_events SET TABLE outbox.events_default":                   "walhook_events lacks table outbox.events",
		"ALTER PUBLICATION walhook_events SET (publish = 'update')":                          "walhook_events does not publish insert",
		"ALTER PUBLICATION walhook_config SET (publish = 'insert, update')":                  "walhook_config does not publish insert, update, delete",
		"ALTER PUBLICATION walhook_events SET (publish_via_partition_root = false)":          "walhook_events publishes partitions",
		"ALTER TABLE outbox.subscriptions RENAME TO s; CREATE TABLE outbox.subscriptions ()": "walhook_config lacks table outbox.subscriptions",
	}
	if harness.Postgres(t).Version() >= 15 { // before, there are neither filters nor column lists
		harms["ALTER PUBLICATION walhook_events SET TABLE outbox.events WHERE (type <> 'secret')"] = "walhook_events has a row filter"
		harms["ALTER PUBLICATION walhook_config SET TABLE outbox.subscriptions WHERE (id IS NOT NULL)"] = "walhook_config has a row filter"
		harms["ALTER PUBLICATION walhook_events SET TABLE outbox.events (id, type)"] = "walhook_events has a column list"
	}
	for harm, says := range harms {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			o := options(harness.Database(t))
			_, err := relay.Setup(t.Context(), o.URL, o.Slot)
			require.NoError(t, err)
			require.NoError(t, check(t, o))
			db := harness.Connect(t, o.URL)
			exec(t, db, harm)
			for _, err := range []error{inspect(t, o), second(relay.Setup(t.Context(), o.URL, o.Slot))} {
				require.ErrorIs(t, err, relay.ErrSetup)
				require.ErrorContains(t, err, says)
				require.ErrorContains(t, err, "outbox.events undelivered")
			}
			require.NoError(t, check(t, o), "the queue can be served")
			match := remedy.FindStringSubmatch(inspect(t, o).Error())
			require.NotNil(t, match)
			exec(t, db, match[1])
			problems := relay.Inspect(t.Context(), o.URL, o.Slot)
			require.Len(t, problems, 1)
			require.Equal(t, relay.CodeCatalogChanged, problems[0].Code)
			exec(t, db, "UPDATE outbox.checkpoint SET catalog = ''")
			require.NoError(t, inspect(t, o))
		})
	}
}

// A publication that is gone is found; init makes it, and says so.
func TestMissingPublicationIsFound(t *testing.T) {
	t.Parallel()
	o := options(harness.Database(t))
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	exec(t, harness.Connect(t, o.URL), "DROP PUBLICATION walhook_config")
	require.NoError(t, check(t, o), "the queue can be served")
	problems := relay.Inspect(t.Context(), o.URL, o.Slot)
	require.Len(t, problems, 1)
	require.Equal(t, relay.CodePublicationMissing, problems[0].Code)
	require.Regexp(t, remedy, problems[0].Error())
	done, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	require.Equal(t, []string{"created publication walhook_config for outbox.subscriptions"}, done)
	require.NoError(t, check(t, o))
}

// Postgres says nothing when a table leaves its publication. The relay looks by itself: it halts, goes on with
// its queue, and goes on with the stream when the publication is mended and somebody says that nothing is missing.
func TestRunningRelayNoticesAnAlteredPublication(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	c := harness.NewCollector(t)
	subscribe(t, db, c.URL())
	o := options(url)
	o.HaltOnGap = true
	r := start(t, o)
	exec(t, db, "SELECT outbox.publish('before', '{}')")
	c.Wait(1, soon)
	settled(t, db)

	exec(t, db, "ALTER PUBLICATION walhook_events DROP TABLE outbox.events")
	harness.Eventually(t, 10*time.Second, "the relay has halted", func() bool { return r.Health().State == relay.Halted })
	require.False(t, r.Health().Ready())
	require.Contains(t, r.Health().Error, "ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	exec(t, db, "SELECT outbox.redeliver(delivery_id) FROM outbox.attempts")
	c.Wait(2, soon)
	require.Equal(t, relay.Halted, r.Health().State)
	require.Equal(t, relay.CodePublicationAltered, r.Health().Code)

	exec(t, db, "ALTER PUBLICATION walhook_events ADD TABLE outbox.events")
	harness.Eventually(t, soon, "it knows", func() bool { return r.Health().Code == relay.CodeCatalogChanged })
	require.Equal(t, relay.Halted, r.Health().State)
	exec(t, db, "UPDATE outbox.checkpoint SET catalog = ''")
	harness.Eventually(t, soon, "the relay runs again", func() bool { return r.Health().State == relay.Running })
	exec(t, db, "SELECT outbox.publish('after', '{}')")
	c.Wait(3, soon)
	require.Equal(t, []string{"before", "before", "after"}, types(c.Requests()))
}

// Receivers get JSON, which is UTF-8, whatever encoding a role or database gives its sessions; a database that
// stores text otherwise is refused, because a logical message arrives as it is stored.
func TestEncodings(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	exec(t, db, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_encoding = ''LATIN1''', current_database()); END $$")
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"name": "Łukasz"}'), outbox.emit('b', '{"name": "Łukasz"}')`)
	for _, got := range r.Wait(2, 10*time.Second) {
		require.Contains(t, string(got.Body), `"Łukasz"`)
	}

	name := "latin1_" + options(url).Slot
	exec(t, db, "CREATE DATABASE "+name+" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() {
		_, err := db.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
	})
	o := options(regexp.MustCompile(`/walhook_test_[^?]*`).ReplaceAllString(url, "/"+name))
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.ErrorIs(t, err, relay.ErrSetup)
	require.ErrorContains(t, err, "has the encoding LATIN1")
}
