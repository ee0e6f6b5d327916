-- Retention, and the proof that every committed event has its outcome.

-- What is kept: everything of a kind since then. Retention writes it before it removes what is older; the audit begins
-- behind it.
CREATE TABLE outbox.retained (
  kind  text        NOT NULL, -- a partitioned table
  since timestamptz NOT NULL,
  CONSTRAINT retained_pkey PRIMARY KEY (kind)
);

COMMENT ON TABLE outbox.retained IS 'Since when everything of a kind is kept: what is older may be gone.';

-- Since when things must be kept, given how old they may grow: whole days (UTC), because partitions are. Events stay
-- until the relay has recorded everything of their time; without a relay all of them do. A null age keeps everything.
CREATE FUNCTION outbox.kept_since(events_older_than interval, attempts_older_than interval, dead_letters_older_than interval,
  samples_older_than interval) RETURNS TABLE (kind text, since timestamptz)
LANGUAGE sql STABLE
AS $$
  SELECT k.kind, date_trunc('day', CASE WHEN k.recorded THEN least(now() - k.age, c.recorded_through) ELSE now() - k.age END, 'UTC')
  FROM (VALUES ('events', events_older_than, true), ('emitted_events', events_older_than, true), ('attempts', attempts_older_than, false),
               ('dead_letters', dead_letters_older_than, false), ('subscription_samples', samples_older_than, false),
               ('wal_samples', samples_older_than, false)) AS k(kind, age, recorded)
  CROSS JOIN (SELECT min(recorded_through) FROM outbox.checkpoint) AS c(recorded_through)
  WHERE k.age IS NOT NULL AND (c.recorded_through IS NOT NULL OR NOT k.recorded)
$$;

-- The daily partitions that lie wholly before that.
CREATE FUNCTION outbox.old_partitions(events_older_than interval, attempts_older_than interval, dead_letters_older_than interval,
  samples_older_than interval DEFAULT '8 days') RETURNS TABLE (parent text, name text, since timestamptz)
LANGUAGE sql STABLE
AS $$
  SELECT p.relname::text, c.relname::text, k.since
  FROM outbox.kept_since(events_older_than, attempts_older_than, dead_letters_older_than, samples_older_than) k
  JOIN pg_catalog.pg_class p ON p.relname = k.kind
  JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace AND n.nspname = 'outbox'
  JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  WHERE c.relname ~ '_p[0-9]{8}$'
    AND to_date(right(c.relname::text, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '24 hours' <= k.since
  ORDER BY c.relname
$$;

-- What outbox.unrecorded() measures from: a little ahead of all ids that a statement can see, its own included.
CREATE FUNCTION outbox.xids_ahead() RETURNS bigint
LANGUAGE sql STABLE
AS $$ SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1048576 $$;

-- Whether the transaction that wrote a row may not be recorded yet: its id is at or after the checkpoint's. Of the row's
-- the lower 32 bits are known, so that ids are compared by how far they lie behind. A row of a subtransaction bears an
-- id above its transaction's: that errs to the safe side. So does what is 4 billion transactions old.
CREATE FUNCTION outbox.unrecorded(row_xmin xid, recorded_xid bigint, xids_ahead bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT row_xmin::text::bigint > 2 AND mod(xids_ahead - row_xmin::text::bigint, 4294967296) <= xids_ahead - recorded_xid
$$;

-- Whether an old partition holds something that must stay: an event of a transaction that may not be recorded, or of a
-- time that is still kept (an application may choose ids and times); a dead letter that died late, after a replay.
CREATE FUNCTION outbox.partition_is_needed(parent text, name text, since timestamptz) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  needed boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM outbox.%I WHERE %s)', name, CASE parent
      WHEN 'events' THEN 'created_at >= $1 AND created_at <= now() OR outbox.unrecorded(xmin, $2, $3)'
      WHEN 'emitted_events' THEN 'created_at >= $1 AND created_at <= now()'
      WHEN 'dead_letters' THEN 'died_at >= $1'
      ELSE 'false' END)
    USING since, (SELECT min(recorded_xid::text::bigint) FROM outbox.checkpoint), outbox.xids_ahead()
    INTO needed;
  RETURN needed;
END
$$;

-- Drops a partition unless it is needed or in use. Its own lock comes first: it ends writing there, so that what is
-- found in it holds, and does not touch those who write elsewhere. Only the drop itself needs the whole table.
CREATE FUNCTION outbox.drop_partition(parent text, name text, since timestamptz) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
  EXECUTE format('LOCK TABLE outbox.%I IN SHARE MODE', name);
  IF outbox.partition_is_needed(parent, name, since) THEN
    RETURN false;
  END IF;
  EXECUTE format('LOCK TABLE ONLY outbox.%I IN ACCESS EXCLUSIVE MODE', parent);
  EXECUTE format('DROP TABLE outbox.%I', name);
  RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE NOTICE 'outbox.% is in use: it stays until the next time', name;
  RETURN false;
END
$$;

-- Drops the daily partitions that lie wholly before the given ages, or only the named one, and returns their names. Those
-- in use stay until the next time; so do all of them while somebody else is at it. Inserts wait half a second at most
-- for each lock that is not to be had; dropping one partition a transaction lets them go on in between.
CREATE FUNCTION outbox.drop_partitions(events_older_than interval, attempts_older_than interval, dead_letters_older_than interval,
  samples_older_than interval DEFAULT '8 days', named text DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
DECLARE
  part record;
BEGIN
  -- With an older snapshot, a row that was inserted meanwhile would be dropped unseen.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('outbox.drop_partitions was called in a %s transaction: call it in one that is read committed', current_setting('transaction_isolation'));
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtext('outbox.partitions')) THEN
    RETURN;
  END IF;
  PERFORM outbox.retain(events_older_than, attempts_older_than, dead_letters_older_than);
  FOR part IN
    SELECT o.parent, o.name, o.since
    FROM outbox.old_partitions(events_older_than, attempts_older_than, dead_letters_older_than, samples_older_than) o
    WHERE named IS NULL OR o.name = named
  LOOP
    IF outbox.drop_partition(part.parent, part.name, part.since) THEN
      RETURN NEXT part.name;
    END IF;
  END LOOP;
END
$$;

-- Writes down that what is older may be gone from now on.
CREATE FUNCTION outbox.retain(events_older_than interval, attempts_older_than interval, dead_letters_older_than interval) RETURNS void
LANGUAGE sql
AS $$
  INSERT INTO outbox.retained AS r (kind, since)
  SELECT k.kind, k.since FROM outbox.kept_since(events_older_than, attempts_older_than, dead_letters_older_than, NULL) k
  ON CONFLICT (kind) DO UPDATE SET since = excluded.since WHERE r.since < excluded.since
$$;

-- Removes what is too old and in no partition of its own: the rows of the DEFAULT partitions, and small tables. It takes
-- at most so many rows of a kind, and says how many it took: call it again while it takes that many. Rows that somebody
-- has locked are left.
CREATE FUNCTION outbox.remove_old(events_older_than interval, attempts_older_than interval, dead_letters_older_than interval,
  at_most int DEFAULT 5000) RETURNS TABLE (kind text, removed bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
  SELECT outbox.retain(events_older_than, attempts_older_than, dead_letters_older_than);
  WITH kept AS MATERIALIZED (
    SELECT max(k.since) FILTER (WHERE k.kind = 'events') AS events, max(k.since) FILTER (WHERE k.kind = 'attempts') AS attempts,
           max(k.since) FILTER (WHERE k.kind = 'dead_letters') AS dead_letters,
           (SELECT min(c.recorded_xid::text::bigint) FROM outbox.checkpoint c) AS xid, outbox.xids_ahead() AS ahead
    FROM outbox.kept_since(events_older_than, attempts_older_than, dead_letters_older_than, NULL) k),
  events AS (
    DELETE FROM outbox.events_default WHERE ctid = ANY (ARRAY(
      SELECT e.ctid FROM outbox.events_default e
      WHERE e.created_at < (SELECT events FROM kept) AND NOT outbox.unrecorded(e.xmin, (SELECT xid FROM kept), (SELECT ahead FROM kept))
      LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  emitted_events AS (
    DELETE FROM outbox.emitted_events_default WHERE ctid = ANY (ARRAY(
      SELECT e.ctid FROM outbox.emitted_events_default e
      WHERE e.created_at < (SELECT events FROM kept) LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  attempts AS (
    DELETE FROM outbox.attempts_default WHERE ctid = ANY (ARRAY(
      SELECT a.ctid FROM outbox.attempts_default a
      WHERE a.attempted_at < (SELECT attempts FROM kept) LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  dead_letters AS (
    DELETE FROM outbox.dead_letters_default WHERE ctid = ANY (ARRAY(
      SELECT d.ctid FROM outbox.dead_letters_default d
      WHERE d.died_at < (SELECT dead_letters FROM kept) LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  recorded AS (
    DELETE FROM outbox.recorded WHERE minute = ANY (ARRAY(
      SELECT m.minute FROM outbox.recorded m WHERE m.minute < (SELECT events FROM kept) LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  -- A revision that another one has followed for longer than attempts under it, or events of its time, are kept. The
  -- newest one stays, that of a deleted subscription as long as there are attempts. What the routing view has stays too.
  old_revisions AS (
    SELECT r.revision
    FROM (SELECT revision, subscription_id, coalesce(lead(changed_at) OVER later, changed_at) AS ended, lead(revision) OVER later IS NULL AS newest
          FROM outbox.subscription_revisions WINDOW later AS (PARTITION BY subscription_id ORDER BY revision)) r
    WHERE r.ended < (SELECT events FROM kept) AND r.ended < (SELECT attempts FROM kept)
      AND NOT EXISTS (SELECT FROM outbox.routing v WHERE v.revision = r.revision)
      AND (NOT r.newest
           OR NOT EXISTS (SELECT FROM outbox.subscriptions s WHERE s.id = r.subscription_id)
          AND NOT EXISTS (SELECT FROM outbox.attempts a WHERE a.subscription_id = r.subscription_id))
    LIMIT at_most),
  subscription_revisions AS (
    DELETE FROM outbox.subscription_revisions WHERE revision = ANY (ARRAY(SELECT revision FROM old_revisions)) RETURNING 1),
  replays AS (
    DELETE FROM outbox.replays WHERE id = ANY (ARRAY(
      SELECT r.id FROM outbox.replays r
      WHERE r.finished_at < now() - dead_letters_older_than LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  recoveries AS (
    DELETE FROM outbox.recoveries WHERE id = ANY (ARRAY(
      SELECT r.id FROM outbox.recoveries r WHERE r.recovered_at < now() - interval '90 days' LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1),
  alerts AS (
    DELETE FROM outbox.alerts WHERE id = ANY (ARRAY(
      SELECT a.id FROM outbox.alerts a WHERE a.resolved_at < now() - interval '90 days' LIMIT at_most FOR UPDATE SKIP LOCKED)) RETURNING 1)
  SELECT 'events', count(*) FROM events
  UNION ALL SELECT 'emitted_events', count(*) FROM emitted_events
  UNION ALL SELECT 'attempts', count(*) FROM attempts
  UNION ALL SELECT 'dead_letters', count(*) FROM dead_letters
  UNION ALL SELECT 'recorded', count(*) FROM recorded
  UNION ALL SELECT 'subscription_revisions', count(*) FROM subscription_revisions
  UNION ALL SELECT 'replays', count(*) FROM replays
  UNION ALL SELECT 'recoveries', count(*) FROM recoveries
  UNION ALL SELECT 'alerts', count(*) FROM alerts
$$;

REVOKE EXECUTE ON FUNCTION outbox.drop_partitions(interval, interval, interval, interval, text),
  outbox.remove_old(interval, interval, interval, int) FROM PUBLIC;

-- ---------------------------------------------------------------------------------------------------
-- The audit.
-- ---------------------------------------------------------------------------------------------------

-- Compares, minute by minute, what applications committed with what the relay wrote down in the very transactions that
-- recorded it, and what it matched with the outcomes that are there. unaccounted is what nothing explains:
-- 0 proves that each row of outbox.events was recorded or may still be in the slot (unread), and that each delivery
-- made of one was delivered, waits, or is a dead letter.
-- It does not prove that the rules were applied rightly, nor what became of an event that was emitted as a logical
-- message and has not been recorded: that has no row. What was deleted by hand hides as many losses of its minute.
-- Deliveries that a replay makes again hide none; those that are redelivered count where they stand now.
-- since and until come back as they were used: whole minutes, and nothing from before the slot or of a day that is
-- no longer kept. It takes SELECT on the tables named, all from one snapshot. Nested loops are off because a wrong
-- estimate would make them quadratic; everything is hashed.
CREATE FUNCTION outbox.audit(INOUT since timestamptz, INOUT until timestamptz DEFAULT now(), OUT events bigint, OUT matched bigint,
  OUT delivered bigint, OUT pending bigint, OUT dead bigint, OUT unread bigint, OUT unaccounted bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_nestloop = off SET enable_seqscan = on SET jit = off SET work_mem = '64MB'
AS $$
  WITH present AS MATERIALIZED (
    SELECT min(c.begun_at) AS begun, min(c.recorded_xid::text::bigint) AS xid, outbox.xids_ahead() AS ahead
    FROM outbox.checkpoint c),
  bounds AS MATERIALIZED (
    SELECT date_trunc('minute', greatest($1, (SELECT begun FROM present), -- clocks differ a little
             (SELECT max(r.since + CASE r.kind WHEN 'attempts' THEN interval '5 minutes' ELSE '0' END) FROM outbox.retained r)), 'UTC') AS low,
           date_trunc('minute', coalesce($2, now()) + interval '59.999999 seconds', 'UTC') AS high),
  all_events AS (
    SELECT e.id, e.created_at, e.xmin FROM outbox.events e
    UNION ALL
    SELECT e.id, e.created_at, e.xmin FROM outbox.emitted_events e WHERE e.only_for IS NULL),
  published AS MATERIALIZED (
    SELECT e.id, date_trunc('minute', e.created_at, 'UTC') AS minute,
           e.created_at >= coalesce((SELECT begun FROM present), '-infinity') AS ours,
           outbox.unrecorded(e.xmin, (SELECT xid FROM present), (SELECT ahead FROM present)) AS fresh
    FROM all_events e
    WHERE e.created_at >= (SELECT low FROM bounds) AND e.created_at < (SELECT high FROM bounds)),
  made AS (
    SELECT p.minute, count(*) FILTER (WHERE p.ours) AS events, count(*) FILTER (WHERE p.ours AND p.fresh) AS fresh,
           sum(('x' || right(p.id::text, 12))::bit(48)::bigint) FILTER (WHERE p.ours) AS digest
    FROM published p GROUP BY p.minute),
  counted AS (
    SELECT r.minute, r.events AS counted, r.digest AS counted_digest, r.matched FROM outbox.recorded r
    WHERE r.minute >= (SELECT low FROM bounds) AND r.minute < (SELECT high FROM bounds)),
  outcomes AS (
    SELECT o.id, min(o.stands) AS stands, min(o.minute) AS minute
    FROM (
      SELECT d.id, 1 AS stands, p.minute FROM outbox.deliveries d JOIN published p ON p.id = d.event_id
      UNION ALL
      SELECT d.id, 2, p.minute FROM outbox.dead_letters d JOIN published p ON p.id = d.event_id
      UNION ALL
      SELECT a.delivery_id, 3, p.minute FROM outbox.attempts a JOIN published p ON p.id = a.event_id
      WHERE a.error IS NULL AND a.attempted_at >= (SELECT low - interval '5 minutes' FROM bounds)) o
    GROUP BY o.id),
  ended AS (
    SELECT o.minute, count(*) AS outcomes, count(*) FILTER (WHERE o.stands = 1) AS pending,
           count(*) FILTER (WHERE o.stands = 2) AS dead, count(*) FILTER (WHERE o.stands = 3) AS delivered
    FROM outcomes o GROUP BY o.minute),
  minutes AS (
    SELECT m.events, c.matched, e.delivered, e.pending, e.dead,
           -- As many, but not the same: one was recorded that is not there, and one is there that was not recorded.
           CASE WHEN m.events = c.counted AND m.digest <> c.counted_digest THEN 1
                ELSE greatest(0, m.events - coalesce(c.counted, 0)) END AS missing,
           m.fresh,
           greatest(0, c.matched - coalesce(e.outcomes, 0)) AS open
    FROM made m FULL JOIN counted c USING (minute) FULL JOIN ended e USING (minute)),
  total AS MATERIALIZED (
    SELECT sum(events) AS events, sum(matched) AS matched, sum(delivered) AS delivered, sum(pending) AS pending, sum(dead) AS dead,
           sum(missing) AS missing, sum(open) AS open,
           sum(least(missing, fresh)) FILTER (WHERE EXISTS (
             SELECT FROM outbox.checkpoint c, pg_replication_slots s
             WHERE s.slot_name = c.slot_name AND s.wal_status IS DISTINCT FROM 'lost')) AS unread
    FROM minutes)
  SELECT (SELECT low FROM bounds), (SELECT high FROM bounds), coalesce(events, 0)::bigint, coalesce(matched, 0)::bigint,
         coalesce(delivered, 0)::bigint, coalesce(pending, 0)::bigint, coalesce(dead, 0)::bigint, coalesce(unread, 0)::bigint,
         (coalesce(missing, 0) - coalesce(unread, 0) + coalesce(open, 0))::bigint
  FROM total
$$;

COMMENT ON FUNCTION outbox.audit IS 'Proves that every committed event has its outcome: unaccounted is 0.';
