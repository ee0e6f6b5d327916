-- What the REST API and the dashboard need of their own: tokens, how schemas are enforced, and a history for charts.

-- Who may use API and dashboard. A token is 256 random bits, so that a plain SHA-256 of it is as good as any slow hash; the
-- token itself is stored nowhere.
CREATE TABLE outbox.api_tokens (
  id           uuid        NOT NULL DEFAULT outbox.uuidv7(),
  name         text        NOT NULL,
  hash         bytea       NOT NULL,
  -- The first characters, for people to tell tokens apart.
  hint         text        NOT NULL,
  scopes       text[]      NOT NULL,
  tenant       text,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz,
  CONSTRAINT api_tokens_pkey PRIMARY KEY (id),
  CONSTRAINT api_tokens_hash_is_unique UNIQUE (hash),
  CONSTRAINT api_tokens_hash_is_sha256 CHECK (octet_length(hash) = 32),
  CONSTRAINT api_tokens_name_is_1_to_255_characters CHECK (length(name) BETWEEN 1 AND 255),
  CONSTRAINT api_tokens_scopes_are_known CHECK (cardinality(scopes) > 0 AND scopes <@ '{read,manage,publish}'::text[]),
  CONSTRAINT api_tokens_tenant_is_at_most_255_bytes CHECK (octet_length(tenant) <= 255)
);
-- A name stands for one token that is valid.
CREATE UNIQUE INDEX api_tokens_name ON outbox.api_tokens (name) WHERE revoked_at IS NULL;

COMMENT ON TABLE outbox.api_tokens IS 'Tokens of the REST API and the dashboard; walhook token create makes them.';
COMMENT ON COLUMN outbox.api_tokens.tenant IS 'Null: all tenants. Otherwise the token sees and changes rows of this tenant alone; the empty one is a tenant too.';

-- What the API does with an event that is not as its type's schema says. Who publishes in SQL is never asked.
ALTER TABLE outbox.event_types ADD COLUMN validation text NOT NULL DEFAULT 'warn'
  CONSTRAINT event_types_validation_is_warn_or_reject CHECK (validation IN ('warn', 'reject'));

COMMENT ON COLUMN outbox.event_types.validation IS 'For events published over the API that the schema does not fit: warn publishes them and says so, reject refuses them.';

-- The sums over everything, every minute: the history that charts begin with.
CREATE TABLE outbox.system_samples (
  sampled_at   timestamptz      NOT NULL,
  events       bigint           NOT NULL, -- recorded, of those that are still kept
  attempts     bigint           NOT NULL,
  succeeded    bigint           NOT NULL,
  failed       bigint           NOT NULL,
  queue_depth  bigint           NOT NULL,
  dead_letters bigint           NOT NULL,
  lag_bytes    bigint,
  lag_seconds  double precision NOT NULL,
  CONSTRAINT system_samples_pkey PRIMARY KEY (sampled_at)
);

-- The sums now, in one small query: what the dashboard asks every few seconds, however many pages are open.
CREATE VIEW outbox.system_now AS
SELECT clock_timestamp() AS sampled_at,
       (SELECT coalesce(sum(r.events), 0)::bigint FROM outbox.recorded r) AS events,
       t.attempts, t.succeeded, t.failed, l.queue_depth, l.dead_letters, l.lag_bytes, l.lag_seconds,
       l.slot_name, l.active, l.wal_status, l.retained_bytes, l.oldest_pending_seconds
FROM outbox.replication_lag l
CROSS JOIN (SELECT coalesce(sum(attempts), 0)::bigint, coalesce(sum(succeeded), 0)::bigint, coalesce(sum(failed), 0)::bigint
  FROM outbox.subscription_totals) AS t(attempts, succeeded, failed);

COMMENT ON VIEW outbox.system_now IS 'Everything in one row a slot: what was recorded, attempted and waits, and how far the relay is behind.';

-- Notes the sums, unless that was done within the last 50 seconds, and forgets those of more than 8 days ago.
CREATE FUNCTION outbox.sample_system(slot text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('outbox.sample_system')) THEN
    RETURN false;
  END IF;
  DELETE FROM outbox.system_samples WHERE sampled_at < now() - interval '8 days';
  INSERT INTO outbox.system_samples (sampled_at, events, attempts, succeeded, failed, queue_depth, dead_letters, lag_bytes, lag_seconds)
  SELECT n.sampled_at, n.events, n.attempts, n.succeeded, n.failed, n.queue_depth, n.dead_letters, n.lag_bytes, n.lag_seconds
  FROM outbox.system_now n
  WHERE n.slot_name = slot AND NOT EXISTS (SELECT FROM outbox.system_samples p WHERE p.sampled_at BETWEEN now() - interval '50 seconds' AND now());
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION outbox.sample_system IS 'Notes the sums over everything for the dashboard''s charts, unless that was done within the last 50 seconds.';
