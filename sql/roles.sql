-- Four group roles with the least rights that each task takes. None may log in: give them to roles that may.
--
--   walhook_relay   what "walhook run" does, with its API and dashboard; it reads secrets and payloads
--   walhook_app     publishes events, and reads nothing
--   walhook_config  configures webhooks, and makes and revokes tokens of the API; it reads secrets, and no payload (but a
--                   token of its making reads them over the API)
--   walhook_reader  reads everything but secrets, what tokens are recognised by, and the headers that requests are made
--                   with, which may hold secrets
--
-- For example:
--   CREATE ROLE relay LOGIN PASSWORD '...' REPLICATION IN ROLE walhook_relay;
--   GRANT walhook_app TO clinic;
--
-- The attribute REPLICATION is not inherited from a group: the relay's login role needs it itself (on Amazon RDS:
-- GRANT rds_replication TO relay instead). It is much: whoever has it can read whatever any publication of the server
-- publishes, so let pg_hba.conf accept that role from the relay's machine alone. The schema, the publications and the first slot
-- stay with the role that runs "walhook init", which owns them. A relay that has only these rights cannot mend an altered
-- publication: it halts and says what to run. To see in "walhook status" and "walhook doctor" which session holds
-- WAL back, it needs one right more: GRANT pg_monitor TO walhook_relay.
--
-- Rights are on the tables, never on their partitions: whoever reads or writes through the table needs none there, so that
-- partitions made later need no grants. The relay reads the DEFAULT partitions by their names as well, and these stay.
--
-- This script may be repeated, and is to be after each upgrade: "walhook init --roles" does so. Roles belong to the
-- whole server and are shared by its databases; these rights belong to this database alone.

DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY '{walhook_relay,walhook_app,walhook_config,walhook_reader}'::text[] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL; -- another database's script was faster
    END;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA outbox TO walhook_relay, walhook_app, walhook_config, walhook_reader;

-- ---------------------------------------------------------------------------------------------------
-- The relay.
-- ---------------------------------------------------------------------------------------------------

-- Alerts are published as events.
GRANT SELECT, INSERT ON outbox.events TO walhook_relay;
GRANT SELECT ON outbox.events_default, outbox.emitted_events_default TO walhook_relay;
GRANT SELECT, INSERT, DELETE ON outbox.emitted_events, outbox.attempts TO walhook_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.deliveries, outbox.dead_letters, outbox.routing, outbox.recorded,
  outbox.recoveries, outbox.replays, outbox.subscription_totals, outbox.subscription_samples, outbox.wal_samples,
  outbox.alerts, outbox.system_samples TO walhook_relay;
GRANT SELECT, UPDATE ON outbox.checkpoint TO walhook_relay;
GRANT SELECT, INSERT ON outbox.epochs TO walhook_relay;
-- Its findings, and the end of a subscription whose receiver has said 410. API and dashboard change all of it, and the event
-- types; they make tokens and note when these were used.
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.subscriptions, outbox.event_types TO walhook_relay;
GRANT SELECT, INSERT, UPDATE ON outbox.api_tokens TO walhook_relay;
GRANT SELECT, DELETE ON outbox.subscription_revisions TO walhook_relay;
GRANT SELECT ON outbox.retained, outbox.schema_version TO walhook_relay;
GRANT SELECT ON outbox.replication_lag, outbox.subscription_stats, outbox.wal_history, outbox.system_now, outbox.queue, outbox.calls TO walhook_relay;

-- What needs its owner's rights may be called by the relay and by nobody else: making and dropping partitions, and
-- removing old rows.
DO $$
DECLARE
  function regprocedure;
BEGIN
  FOR function IN
    SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'outbox' AND p.prosecdef AND p.prorettype <> 'trigger'::regtype
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO walhook_relay', function);
  END LOOP;
END
$$;

-- ---------------------------------------------------------------------------------------------------
-- Applications. outbox.emit() takes nothing but the schema.
-- ---------------------------------------------------------------------------------------------------

GRANT INSERT ON outbox.events TO walhook_app;

-- ---------------------------------------------------------------------------------------------------
-- Configuration. Rotating a secret reads the old one; a test event is put into the queue.
-- ---------------------------------------------------------------------------------------------------

GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.subscriptions, outbox.event_types TO walhook_config;
GRANT SELECT, INSERT, UPDATE ON outbox.replays, outbox.api_tokens TO walhook_config;
GRANT INSERT (id, type, payload, tenant, source, only_for) ON outbox.emitted_events TO walhook_config;
GRANT INSERT (id, subscription_id, event_id, type, payload, tenant, source, headers, emitted, created_at, committed_at,
  commit_lsn, commit_index, round, next_attempt_at) ON outbox.deliveries TO walhook_config;
GRANT SELECT ON outbox.replication_lag, outbox.subscription_stats, outbox.wal_history, outbox.queue, outbox.alerts TO walhook_config;

-- ---------------------------------------------------------------------------------------------------
-- Reading. outbox.calls shows the headers of requests with the values hidden that look like credentials.
-- ---------------------------------------------------------------------------------------------------

GRANT SELECT ON outbox.events, outbox.emitted_events, outbox.deliveries, outbox.dead_letters, outbox.attempts,
  outbox.checkpoint, outbox.epochs, outbox.routing, outbox.recorded, outbox.recoveries, outbox.replays,
  outbox.subscription_totals, outbox.subscription_samples, outbox.wal_samples, outbox.system_samples, outbox.alerts, outbox.event_types,
  outbox.retained, outbox.schema_version, outbox.replication_lag, outbox.subscription_stats, outbox.wal_history, outbox.system_now,
  outbox.queue, outbox.calls TO walhook_reader;

-- Every column but those of secrets, headers and hashes of tokens, also of columns that a later version adds.
DO $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    SELECT a.attrelid::regclass AS relation, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
    FROM pg_attribute a
    WHERE a.attrelid IN ('outbox.subscriptions'::regclass, 'outbox.subscription_revisions'::regclass, 'outbox.api_tokens'::regclass)
      AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT IN ('secret', 'previous_secret', 'headers', 'hash')
    GROUP BY a.attrelid
  LOOP
    EXECUTE format('GRANT SELECT (%s) ON %s TO walhook_reader', wanted.columns, wanted.relation);
  END LOOP;
END
$$;
