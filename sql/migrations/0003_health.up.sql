-- What operators watch over time: where WAL and slot stood, and what subscriptions did lately.

-- Notes where WAL and slot stand, for rates, and reports whether it did. Any number of relays may call it, every minute
-- each: who finds another at it, or a sample of the last 50 seconds, writes nothing. The time is exact, since rates are
-- made of it.
CREATE FUNCTION outbox.sample_wal(slot text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('outbox.sample_wal')) THEN
    RETURN false;
  END IF;
  INSERT INTO outbox.wal_samples (sampled_at, slot_name, wal_lsn, confirmed_lsn, restart_lsn)
  SELECT clock_timestamp(), slot, pg_current_wal_lsn(), s.confirmed_flush_lsn, s.restart_lsn
  FROM (SELECT) AS one LEFT JOIN pg_replication_slots s ON s.slot_name = slot
  WHERE NOT EXISTS (SELECT FROM outbox.wal_samples p
    WHERE p.slot_name = slot AND p.sampled_at BETWEEN now() - interval '50 seconds' AND now());
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION outbox.sample_wal IS 'Notes where WAL and slot stand, for the forecast, unless that was done within the last 50 seconds.';

-- Notes the totals of the subscriptions that had attempts since they were last noted, under the beginning of the
-- present five minutes, and returns how many. Within these, a second call finds them noted. Once a day all are: so what
-- was last noted is found among a day's samples, and outlives the samples' retention. A partition that was empty when
-- the plan was made would be read whole, again for each row that is put into it meanwhile, but for enable_seqscan.
CREATE FUNCTION outbox.sample_subscriptions() RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
  at      timestamptz := to_timestamp(floor(extract(epoch FROM now()) / 300) * 300);
  written bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('outbox.sample_subscriptions')) THEN
    RETURN 0;
  END IF;
  INSERT INTO outbox.subscription_samples
    (sampled_at, subscription_id, attempts, succeeded, failed, delivered, timeouts, total_us, latency)
  SELECT at, t.subscription_id, t.attempts, t.succeeded, t.failed, t.delivered, t.timeouts, t.total_us, t.latency
  FROM outbox.subscription_totals t
  LEFT JOIN LATERAL (
    SELECT p.attempts FROM outbox.subscription_samples p
    WHERE p.subscription_id = t.subscription_id AND p.sampled_at BETWEEN at - interval '1 day' AND at
    ORDER BY p.sampled_at DESC LIMIT 1) AS last ON true
  WHERE last.attempts IS DISTINCT FROM t.attempts
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS written = ROW_COUNT;
  RETURN written;
END
$$;

COMMENT ON FUNCTION outbox.sample_subscriptions IS 'Notes the totals of subscriptions with attempts since the last time, at most every five minutes.';

-- What became of a - b. Written out like outbox.add_counts.
CREATE FUNCTION outbox.subtract_counts(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT ARRAY[
    a[1] - b[1], a[2] - b[2], a[3] - b[3], a[4] - b[4], a[5] - b[5],
    a[6] - b[6], a[7] - b[7], a[8] - b[8], a[9] - b[9], a[10] - b[10],
    a[11] - b[11], a[12] - b[12], a[13] - b[13], a[14] - b[14], a[15] - b[15],
    a[16] - b[16], a[17] - b[17], a[18] - b[18], a[19] - b[19], a[20] - b[20]]
$$;

-- What each subscription did lately: the present totals less the last sample that is at least that old, or less
-- nothing where there was none by then. The moment is as exact as samples are frequent, five minutes. A subscription
-- without an attempt since then costs no look at its samples. They are looked for among those of the day before first,
-- which is where a relay that runs has put them, and else in all partitions. A sample above the totals is of a
-- subscription whose totals began anew.
CREATE FUNCTION outbox.subscription_activity(since interval)
RETURNS TABLE (subscription_id uuid, attempts bigint, succeeded bigint, failed bigint, delivered bigint, timeouts bigint,
  total_us bigint, latency bigint[], success_rate double precision, mean_ms double precision, p95_ms double precision)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT d.id, d.attempts, d.succeeded, d.failed, d.delivered, d.timeouts, d.total_us, d.latency,
         round(d.succeeded::numeric / nullif(d.attempts, 0), 4)::double precision,
         round(d.total_us::numeric / nullif(d.attempts, 0) / 1000, 3)::double precision,
         outbox.latency_quantile(d.latency, 0.95)
  FROM (
    SELECT s.id,
           coalesce(t.attempts, 0) - coalesce(b.attempts, 0) AS attempts,
           coalesce(t.succeeded, 0) - coalesce(b.succeeded, 0) AS succeeded,
           coalesce(t.failed, 0) - coalesce(b.failed, 0) AS failed,
           coalesce(t.delivered, 0) - coalesce(b.delivered, 0) AS delivered,
           coalesce(t.timeouts, 0) - coalesce(b.timeouts, 0) AS timeouts,
           coalesce(t.total_us, 0) - coalesce(b.total_us, 0) AS total_us,
           CASE WHEN t.latency IS NULL THEN array_fill(0::bigint, '{20}')
                WHEN b.latency IS NULL THEN t.latency
                ELSE outbox.subtract_counts(t.latency, b.latency) END AS latency
    FROM outbox.subscriptions s
    LEFT JOIN outbox.subscription_totals t ON t.subscription_id = s.id AND t.last_attempt_at > now() - since
    LEFT JOIN LATERAL (
      SELECT p.* FROM outbox.subscription_samples p
      WHERE p.subscription_id = t.subscription_id AND p.sampled_at <= now() - since AND p.sampled_at > now() - since - interval '1 day'
      ORDER BY p.sampled_at DESC LIMIT 1) AS near ON true
    LEFT JOIN LATERAL (
      SELECT p.* FROM outbox.subscription_samples p
      WHERE near.sampled_at IS NULL AND p.subscription_id = t.subscription_id AND p.sampled_at <= now() - since
      ORDER BY p.sampled_at DESC LIMIT 1) AS far ON true
    LEFT JOIN LATERAL (SELECT
      coalesce(near.attempts, far.attempts) AS attempts, coalesce(near.succeeded, far.succeeded) AS succeeded,
      coalesce(near.failed, far.failed) AS failed, coalesce(near.delivered, far.delivered) AS delivered,
      coalesce(near.timeouts, far.timeouts) AS timeouts, coalesce(near.total_us, far.total_us) AS total_us,
      coalesce(near.latency, far.latency) AS latency) AS b ON b.attempts <= t.attempts) AS d
$$;

COMMENT ON FUNCTION outbox.subscription_activity IS 'Attempts and their results since so long ago, one row a subscription; success_rate is from 0 to 1.';

-- A view, so that status needs no right on the relay's own tables.
CREATE VIEW outbox.wal_history AS
SELECT slot_name, sampled_at, wal_lsn, confirmed_lsn, restart_lsn FROM outbox.wal_samples;

COMMENT ON VIEW outbox.wal_history IS 'Where WAL and slot stood, every minute that a relay ran.';
