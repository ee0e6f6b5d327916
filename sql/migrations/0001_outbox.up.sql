-- The outbox: what applications write, what subscribers configure, and what the relay records.
-- Names here are the public contract; everything lives in the schema "outbox".

CREATE SCHEMA IF NOT EXISTS outbox;

-- ---------------------------------------------------------------------------------------------------
-- Ids. UUIDv7 (RFC 9562) sorts by time, so that range partitions on the id can be the primary key.
-- ---------------------------------------------------------------------------------------------------

-- Every insert pays for an id. Postgres 18 makes them itself. Before that it is PL/pgSQL, which keeps its plan
-- for the session: a function in SQL would be planned again for every statement. The 12 bits after the version
-- hold the fraction of the millisecond (RFC 9562, section 6.2, method 3).
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 180000 THEN
    CREATE FUNCTION outbox.uuidv7() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN pg_catalog.uuidv7();
  ELSE
    CREATE FUNCTION outbox.uuidv7() RETURNS uuid
    LANGUAGE plpgsql VOLATILE PARALLEL SAFE
    AS $body$
    DECLARE
      us bigint := floor(date_part('epoch', clock_timestamp()) * 1000000);
    BEGIN
      RETURN encode(overlay(uuid_send(gen_random_uuid())
        PLACING int8send(us / 1000 << 16 | 28672 | us % 1000 * 4096 / 1000) FROM 1 FOR 8), 'hex')::uuid;
    END
    $body$;
  END IF;
END
$$;

-- The lowest UUIDv7 of a moment, for ranges.
CREATE FUNCTION outbox.uuid_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT (encode(substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3), 'hex')
          || '00000000000000000000')::uuid
$$;

-- The stable id of one event's delivery to one subscription: the event id's first 48 bits, then SHA-256
-- over both ids, marked as a UUIDv8. The relay computes the same.
CREATE FUNCTION outbox.delivery_id(event_id uuid, subscription_id uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT encode(set_byte(set_byte(raw, 6, get_byte(raw, 6) & 15 | 128), 8, get_byte(raw, 8) & 63 | 128), 'hex')::uuid
  FROM (SELECT substring(uuid_send(event_id) FROM 1 FOR 6)
               || substring(sha256(uuid_send(event_id) || uuid_send(subscription_id)) FROM 1 FOR 10)) AS id(raw)
$$;

-- ---------------------------------------------------------------------------------------------------
-- Events: what applications write.
-- ---------------------------------------------------------------------------------------------------

-- Partitioned by the id's time. The DEFAULT partition takes ids that are no UUIDv7 or lie outside the
-- partitions made ahead, so that an insert never fails for want of a partition.
CREATE TABLE outbox.events (
  id             uuid        NOT NULL DEFAULT outbox.uuidv7(),
  type           text        NOT NULL,
  payload        jsonb       NOT NULL DEFAULT '{}',
  key            text,
  tenant         text        NOT NULL DEFAULT '',
  source         text,
  correlation_id text,
  headers        jsonb       NOT NULL DEFAULT '{}',
  created_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT events_pkey PRIMARY KEY (id),
  -- The type becomes a request header: printable ASCII without spaces, and no pattern.
  CONSTRAINT events_type_is_a_dotted_name CHECK (type ~ '^[!-)+-~]{1,255}$'),
  CONSTRAINT events_key_is_1_to_1024_bytes CHECK (octet_length(key) BETWEEN 1 AND 1024),
  CONSTRAINT events_names_are_at_most_255_bytes
    CHECK (octet_length(tenant) <= 255 AND octet_length(source) <= 255 AND octet_length(correlation_id) <= 255),
  CONSTRAINT events_headers_is_an_object CHECK (jsonb_typeof(headers) = 'object'),
  -- Arithmetic with an infinite time is an error.
  CONSTRAINT events_created_at_is_finite CHECK (isfinite(created_at)),
  -- One row stays under 10 MB: larger ones would stop logical decoding for good. Its text counts, which can be
  -- thousands of times what is stored: a number takes 16 bytes and up to 147456 digits (131072 before the point,
  -- 16383 behind). Below 800 bytes, provided that they are not compressed, 49 such numbers fit: 7 MB. Such small
  -- rows are therefore not written out to be measured.
  CONSTRAINT events_row_is_at_most_10_mb
    CHECK (pg_column_size(payload) + pg_column_size(headers) < 800
             AND pg_column_compression(payload) IS NULL AND pg_column_compression(headers) IS NULL
           OR octet_length(payload::text) + octet_length(headers::text) <= 10485760)
) PARTITION BY RANGE (id);

COMMENT ON TABLE outbox.events IS 'Events that applications publish, in their own transaction. Insert only.';

CREATE TABLE outbox.events_default PARTITION OF outbox.events DEFAULT;
-- For the audit and for retention. BRIN costs an insert next to nothing.
CREATE INDEX events_created ON outbox.events USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

-- Events that came as logical messages have no row in outbox.events: the relay keeps them here, in the
-- transaction that records their deliveries, so that the calls log, retries and replay work alike.
CREATE TABLE outbox.emitted_events (LIKE outbox.events INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE outbox.emitted_events ADD CONSTRAINT emitted_events_pkey PRIMARY KEY (id);
-- A test event (outbox.send_test) is made for one subscription: no replay gives it to another.
ALTER TABLE outbox.emitted_events ADD COLUMN only_for uuid;
CREATE TABLE outbox.emitted_events_default PARTITION OF outbox.emitted_events DEFAULT;
CREATE INDEX emitted_events_created ON outbox.emitted_events USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);

-- The id is made first, because RETURNING would require SELECT on the table. An application needs no more than:
--   GRANT USAGE ON SCHEMA outbox TO app;
--   GRANT INSERT ON outbox.events TO app; -- outbox.emit() does without
CREATE FUNCTION outbox.publish(
  type text, payload jsonb, key text DEFAULT NULL, tenant text DEFAULT '', source text DEFAULT NULL,
  correlation_id text DEFAULT NULL, headers jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  event_id uuid := outbox.uuidv7();
BEGIN
  INSERT INTO outbox.events (id, type, payload, key, tenant, source, correlation_id, headers)
  VALUES (event_id, $1, $2, $3, coalesce($4, ''), $5, $6, coalesce($7, '{}'));
  RETURN event_id;
END
$$;

COMMENT ON FUNCTION outbox.publish IS 'Publishes an event: inserts a row into outbox.events and returns its id.';

-- The same checks as on the table, then one transactional logical message with the event as JSON. The
-- payload is embedded as it is, so that every number keeps its digits.
CREATE FUNCTION outbox.emit(
  type text, payload jsonb, key text DEFAULT NULL, tenant text DEFAULT '', source text DEFAULT NULL,
  correlation_id text DEFAULT NULL, headers jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  event_id uuid := outbox.uuidv7();
BEGIN
  IF type IS NULL OR type !~ '^[!-)+-~]{1,255}$' THEN
    RAISE check_violation USING MESSAGE = format('event type %L is not a dotted name of 1 to 255 printable ASCII characters without spaces and *', left(type, 300));
  ELSIF octet_length(key) NOT BETWEEN 1 AND 1024 THEN
    RAISE check_violation USING MESSAGE = format('key has %s bytes, it may have 1 to 1024', octet_length(key));
  ELSIF octet_length(tenant) > 255 OR octet_length(source) > 255 OR octet_length(correlation_id) > 255 THEN
    RAISE check_violation USING MESSAGE = 'tenant, source and correlation_id may have 255 bytes each';
  ELSIF jsonb_typeof(headers) <> 'object' THEN
    RAISE check_violation USING MESSAGE = format('headers is a JSON %s, it must be an object', jsonb_typeof(headers));
  ELSIF octet_length(coalesce(payload, 'null')::text) + octet_length(coalesce(headers, '{}')::text) > 10485760 THEN
    RAISE check_violation USING MESSAGE = 'payload and headers have more than 10 MB (10485760 bytes) of JSON text';
  ELSIF payload IS NULL THEN
    RAISE not_null_violation USING MESSAGE = 'payload is null, it must be JSON (the JSON null is written ''null''::jsonb)';
  ELSIF octet_length(payload::text) > 10000 AND payload @? '$.**{5000 to last}' THEN
    RAISE check_violation USING MESSAGE = 'payload is nested deeper than 5000 levels, which a logical message may not be: use outbox.publish';
  END IF;
  PERFORM pg_logical_emit_message(true, 'outbox', jsonb_build_object(
    'id', event_id, 'type', type, 'payload', payload, 'key', key, 'tenant', coalesce(tenant, ''),
    'source', source, 'correlation_id', correlation_id, 'headers', coalesce(headers, '{}'),
    'created_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text);
  RETURN event_id;
END
$$;

COMMENT ON FUNCTION outbox.emit IS 'Publishes an event as a transactional logical message: no row is written.';

-- ---------------------------------------------------------------------------------------------------
-- Subscriptions: what a webhook is.
-- ---------------------------------------------------------------------------------------------------

-- http or https, a host, no user information, no white space or control character, a port up to 65535, and
-- percent signs only before two hexadecimal digits. What else a URL can have wrong, the relay finds.
CREATE FUNCTION outbox.valid_url(url text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT length(url) <= 2048
     AND url ~ '^[hH][tT][tT][pP][sS]?://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?]([!-$&-~]|%[0-9A-Fa-f]{2})*)?$'
     AND coalesce(substring(url FROM '^[^:]+://(?:\[[^]]*\]|[^:/?]*):([0-9]{1,5})')::int BETWEEN 1 AND 65535, true)
$$;

-- An object of strings; names are tokens (RFC 9110, section 5.6.2) that the relay doesn't set itself, under any
-- signature or format, and values are printable without CR, LF or NUL.
CREATE FUNCTION outbox.valid_headers(headers jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE WHEN jsonb_typeof(headers) <> 'object' THEN false ELSE (
    SELECT count(*) <= 50 AND coalesce(bool_and(
             jsonb_typeof(value) = 'string'
             AND key ~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]{1,128}$'
             AND lower(key) !~ '^(host|content-length|content-type|content-encoding|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|user-agent|proxy-.*|accept-encoding|idempotency-key|x-idempotency-key|webhook-.*|x-webhook-.*|x-hub-signature.*|x-github-.*|stripe-signature|x-shopify-.*|x-slack-.*|ce-.*)$'
             AND value #>> '{}' ~ '^[\x20-\x7e\t\u0080-\uffff]*$'
             AND octet_length(value #>> '{}') <= 4096), true)
    FROM jsonb_each(headers)) END
$$;

-- Names are dotted, with an optional * as the last part.
CREATE FUNCTION outbox.valid_event_types(types text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT coalesce(array_ndims(types), 1) = 1
     AND coalesce(bool_and(t IS NOT NULL AND t ~ '^([!-)+-~]{1,255}|[!-)+-~]{1,253}\.\*|\*)$'), true)
  FROM unnest(types) AS t
$$;

-- A secret is given as it is, or says where it is: "env:NAME" in a variable of the relay's, "file:/path" in a
-- file, "enc:" as base64 that only the relay's keys open.
CREATE FUNCTION outbox.valid_secret(secret text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE
    WHEN secret LIKE 'env:%' THEN secret ~ '^env:[A-Za-z_][A-Za-z0-9_]*$'
    WHEN secret LIKE 'file:%' THEN secret ~ '^file:/[^\x01-\x1f\x7f]+$'
    WHEN secret LIKE 'enc:%' THEN secret ~ '^enc:([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
    ELSE true END
$$;

-- Whether a secret that is given as it is can be the scheme's key (Standard Webhooks, "Signature scheme"): base64
-- behind an optional "whsec_", and for Ed25519 behind "whsk_" 32 bytes of seed or 64 of private key.
CREATE FUNCTION outbox.valid_key(secret text, signature text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE
    WHEN secret ~ '^(env|file|enc):' THEN true
    WHEN signature = 'standard' THEN secret ~ '^(whsec_)?([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
    WHEN signature = 'standard-ed25519' THEN secret ~ '^whsk_([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)$'
    ELSE true END
$$;

CREATE SEQUENCE outbox.subscription_revision AS int;

CREATE TABLE outbox.subscriptions (
  id                         uuid        NOT NULL DEFAULT outbox.uuidv7(),
  tenant                     text        NOT NULL DEFAULT '',
  name                       text        NOT NULL,
  description                text        NOT NULL DEFAULT '',
  url                        text        NOT NULL,
  event_types                text[]      NOT NULL DEFAULT '{}',
  filters                    jsonb       NOT NULL DEFAULT '{}',
  headers                    jsonb       NOT NULL DEFAULT '{}',
  secret                     text,
  previous_secret            text,
  previous_secret_expires_at timestamptz,
  signature                  text        NOT NULL DEFAULT 'sha256',
  payload_format             text        NOT NULL DEFAULT 'envelope',
  payload_version            int         NOT NULL DEFAULT 1,
  max_retries                int         NOT NULL DEFAULT 3,
  retry_delay                interval    NOT NULL DEFAULT '60 seconds',
  timeout                    interval    NOT NULL DEFAULT '30 seconds',
  ordering                   text        NOT NULL DEFAULT 'none',
  max_in_flight              int         NOT NULL DEFAULT 16,
  rate_limit                 int,
  batch_size                 int         NOT NULL DEFAULT 1,
  batch_wait                 interval    NOT NULL DEFAULT '0',
  verification               text        NOT NULL DEFAULT 'none',
  -- With an INSERT: replay matching events since then.
  backfill_from              timestamptz,
  is_active                  boolean     NOT NULL DEFAULT true,
  created_at                 timestamptz NOT NULL DEFAULT now(),
  updated_at                 timestamptz NOT NULL DEFAULT now(),
  -- What the relay found; it never changes anything else here.
  status                     text        NOT NULL DEFAULT 'valid',
  status_reason              text,
  verified_at                timestamptz,
  verification_error         text,
  -- Requests a minute that the receiver allowed in the handshake; null or 0: any number.
  allowed_rate               int,
  revision                   int         NOT NULL DEFAULT 0,
  CONSTRAINT subscriptions_pkey PRIMARY KEY (id),
  CONSTRAINT subscriptions_name_is_1_to_255_characters CHECK (length(name) BETWEEN 1 AND 255),
  CONSTRAINT subscriptions_tenant_is_at_most_255_bytes CHECK (octet_length(tenant) <= 255),
  CONSTRAINT subscriptions_url_is_http_or_https_without_credentials CHECK (outbox.valid_url(url)),
  CONSTRAINT subscriptions_event_types_are_names_or_prefixes CHECK (outbox.valid_event_types(event_types)),
  CONSTRAINT subscriptions_filters_is_an_object CHECK (jsonb_typeof(filters) = 'object'),
  CONSTRAINT subscriptions_headers_are_safe_strings CHECK (outbox.valid_headers(headers)),
  -- The relay holds every subscription in memory, and servers refuse requests with larger headers.
  CONSTRAINT subscriptions_description_is_at_most_10_kb CHECK (octet_length(description) <= 10240),
  CONSTRAINT subscriptions_event_types_are_at_most_1000 CHECK (cardinality(event_types) <= 1000),
  CONSTRAINT subscriptions_filters_is_at_most_64_kb CHECK (octet_length(filters::text) <= 65536),
  CONSTRAINT subscriptions_headers_are_at_most_16_kb CHECK (octet_length(headers::text) <= 16384),
  -- An encrypted one is longer than what it holds.
  CONSTRAINT subscriptions_secret_is_1_to_1024_bytes
    CHECK (octet_length(secret) BETWEEN 1 AND CASE WHEN secret LIKE 'enc:%' THEN 2048 ELSE 1024 END
       AND octet_length(previous_secret) BETWEEN 1 AND CASE WHEN previous_secret LIKE 'enc:%' THEN 2048 ELSE 1024 END),
  CONSTRAINT subscriptions_secret_is_plain_env_name_file_path_or_enc_base64
    CHECK (outbox.valid_secret(secret) AND outbox.valid_secret(previous_secret)),
  CONSTRAINT subscriptions_standard_secret_is_whsec_and_base64
    CHECK (signature <> 'standard' OR outbox.valid_key(secret, signature) AND outbox.valid_key(previous_secret, signature)),
  CONSTRAINT subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64
    CHECK (signature <> 'standard-ed25519' OR outbox.valid_key(secret, signature) AND outbox.valid_key(previous_secret, signature)),
  CONSTRAINT subscriptions_signature_is_known
    CHECK (signature IN ('sha256', 'standard', 'standard-ed25519', 'github', 'stripe', 'shopify', 'slack', 'none')),
  CONSTRAINT subscriptions_payload_format_is_known
    CHECK (payload_format IN ('envelope', 'standard', 'cloudevents', 'cloudevents-binary', 'raw')),
  -- The binary mode has no batches (CloudEvents HTTP binding, section 3.1): "cloudevents" has.
  CONSTRAINT subscriptions_cloudevents_binary_has_no_batches CHECK (batch_size <= 1 OR payload_format <> 'cloudevents-binary'),
  CONSTRAINT subscriptions_payload_version_is_1_or_2 CHECK (payload_version IN (1, 2)),
  CONSTRAINT subscriptions_max_retries_is_0_to_10 CHECK (max_retries BETWEEN 0 AND 10),
  CONSTRAINT subscriptions_retry_delay_is_0_to_1_day CHECK (retry_delay BETWEEN '0' AND '1 day'),
  CONSTRAINT subscriptions_timeout_is_at_most_300_s CHECK (timeout > '0' AND timeout <= '300 seconds'),
  CONSTRAINT subscriptions_ordering_is_known CHECK (ordering IN ('none', 'key', 'strict')),
  CONSTRAINT subscriptions_max_in_flight_is_1_to_1000 CHECK (max_in_flight BETWEEN 1 AND 1000),
  CONSTRAINT subscriptions_rate_limit_is_positive CHECK (rate_limit > 0),
  CONSTRAINT subscriptions_batch_size_is_1_to_1000 CHECK (batch_size BETWEEN 1 AND 1000),
  CONSTRAINT subscriptions_batch_wait_is_0_to_5_minutes CHECK (batch_wait BETWEEN '0' AND '5 minutes'),
  CONSTRAINT subscriptions_verification_is_known CHECK (verification IN ('none', 'cloudevents', 'slack')),
  CONSTRAINT subscriptions_backfill_from_is_finite CHECK (isfinite(backfill_from)),
  CONSTRAINT subscriptions_status_is_known CHECK (status IN ('valid', 'invalid'))
);

-- Who configures webhooks needs no more than this: the triggers below write the rest with their owner's rights.
--   GRANT USAGE ON SCHEMA outbox TO config;
--   GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.subscriptions TO config;
COMMENT ON TABLE outbox.subscriptions IS 'One row a webhook. Changes take effect live, in commit order with the events.';
COMMENT ON COLUMN outbox.subscriptions.event_types IS 'Exact names, or prefixes such as patient.*; none, or *, means all but the relay''s own events (walhook.alert.* and whatever else begins with walhook.), which must be named.';

-- The stream carries old rows whole, so that large values which an update leaves alone are known.
ALTER TABLE outbox.subscriptions REPLICA IDENTITY FULL;

-- What was sent where, for the calls log: an attempt names the revision it was sent under. Secrets stay out.
CREATE TABLE outbox.subscription_revisions (
  revision        int         NOT NULL,
  subscription_id uuid        NOT NULL,
  url             text        NOT NULL,
  headers         jsonb       NOT NULL,
  signature       text        NOT NULL,
  signed          boolean     NOT NULL,
  payload_format  text        NOT NULL,
  payload_version int         NOT NULL,
  batch_size      int         NOT NULL,
  changed_at      timestamptz NOT NULL DEFAULT now(),
  -- Every transaction with a smaller id had ended when the change was made.
  snapshot_xmin   xid8        NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
  -- The rule: a recovery asks which one stood when an event was made.
  tenant          text        NOT NULL,
  event_types     text[]      NOT NULL,
  filters         jsonb       NOT NULL,
  ordering        text        NOT NULL,
  is_active       boolean     NOT NULL,
  CONSTRAINT subscription_revisions_pkey PRIMARY KEY (revision)
);
CREATE INDEX subscription_revisions_changed ON outbox.subscription_revisions (changed_at);

CREATE FUNCTION outbox.subscriptions_before_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.id <> OLD.id THEN
      RAISE EXCEPTION 'the id of subscription % cannot change; insert a new subscription instead', OLD.id;
    END IF;
    -- The relay writes only its findings: that is no new revision.
    IF to_jsonb(NEW) - '{status,status_reason,verified_at,verification_error,allowed_rate,updated_at,revision}'::text[]
       = to_jsonb(OLD) - '{status,status_reason,verified_at,verification_error,allowed_rate,updated_at,revision}'::text[] THEN
      NEW.revision := OLD.revision;
      RETURN NEW;
    END IF;
    IF NEW.backfill_from IS NOT NULL AND NEW.backfill_from IS DISTINCT FROM OLD.backfill_from THEN
      RAISE EXCEPTION 'backfill_from counts only when subscription % is inserted; use outbox.replay(subscription_id, since) instead', OLD.id;
    END IF;
  ELSIF NEW.backfill_from > now() THEN
    RAISE check_violation USING MESSAGE = format('backfill_from %s lies in the future: there is nothing to replay yet', NEW.backfill_from);
  END IF;
  -- Only the relay finds out whether a receiver agrees; another one must be asked anew.
  IF TG_OP = 'INSERT' OR (NEW.url, NEW.verification) IS DISTINCT FROM (OLD.url, OLD.verification) THEN
    NEW.verified_at := NULL;
    NEW.verification_error := NULL;
    NEW.allowed_rate := NULL;
  END IF;
  NEW.revision := nextval('outbox.subscription_revision');
  NEW.updated_at := now();
  NEW.status := 'valid';
  NEW.status_reason := NULL;
  RETURN NEW;
END
$$;

CREATE FUNCTION outbox.subscriptions_after_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO outbox.subscription_revisions (revision, subscription_id, url, headers, signature, signed, payload_format,
    payload_version, batch_size, tenant, event_types, filters, ordering, is_active)
  VALUES (NEW.revision, NEW.id, NEW.url, NEW.headers, NEW.signature, NEW.secret IS NOT NULL, NEW.payload_format,
    NEW.payload_version, NEW.batch_size, NEW.tenant, NEW.event_types, NEW.filters, NEW.ordering, NEW.is_active)
  ON CONFLICT DO NOTHING;
  IF TG_OP = 'INSERT' AND NEW.backfill_from IS NOT NULL THEN
    INSERT INTO outbox.replays (subscription_id, since, backfill) VALUES (NEW.id, NEW.backfill_from, true);
    PERFORM pg_notify('walhook', 'replay');
  END IF;
  RETURN NULL;
END
$$;

-- A trigger that fires requires no right to execute its function. Without it nobody can hang these, which have
-- their owner's rights, on a table of their own.
REVOKE EXECUTE ON FUNCTION outbox.subscriptions_before_write(), outbox.subscriptions_after_write() FROM PUBLIC;

-- Tells the relay which settings to read again, ahead of the stream.
CREATE FUNCTION outbox.subscriptions_notify() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM pg_notify('walhook', 'subscription ' || coalesce(NEW.id, OLD.id));
  RETURN NULL;
END
$$;

CREATE FUNCTION outbox.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of outbox.% would go unnoticed by the relay; use DELETE', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER before_write BEFORE INSERT OR UPDATE ON outbox.subscriptions
  FOR EACH ROW EXECUTE FUNCTION outbox.subscriptions_before_write();
CREATE TRIGGER after_write AFTER INSERT OR UPDATE ON outbox.subscriptions
  FOR EACH ROW EXECUTE FUNCTION outbox.subscriptions_after_write();
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON outbox.subscriptions
  FOR EACH ROW EXECUTE FUNCTION outbox.subscriptions_notify();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON outbox.subscriptions
  FOR EACH STATEMENT EXECUTE FUNCTION outbox.refuse_truncate();

CREATE FUNCTION outbox.set_active(subscription_id uuid, active boolean) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  UPDATE outbox.subscriptions SET is_active = active WHERE id = subscription_id;
  IF NOT FOUND THEN
    RAISE no_data_found USING MESSAGE = format('there is no subscription %s', subscription_id);
  END IF;
END
$$;

CREATE FUNCTION outbox.activate(id uuid) RETURNS void LANGUAGE sql AS $$ SELECT outbox.set_active($1, true) $$;
CREATE FUNCTION outbox.deactivate(id uuid) RETURNS void LANGUAGE sql AS $$ SELECT outbox.set_active($1, false) $$;

CREATE FUNCTION outbox.rotate_secret(subscription_id uuid, new_secret text, overlap interval DEFAULT '24 hours') RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
  wanted  uuid := subscription_id;
  present text;
BEGIN
  SELECT s.secret INTO present FROM outbox.subscriptions s WHERE s.id = wanted FOR UPDATE;
  IF NOT FOUND THEN
    RAISE no_data_found USING MESSAGE = format('there is no subscription %s', wanted);
  ELSIF new_secret IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = 'new_secret is null; to stop signing, set the column secret to null';
  ELSIF new_secret = present THEN
    RAISE invalid_parameter_value USING MESSAGE = format('new_secret is the secret that subscription %s already has', wanted);
  ELSIF overlap IS NULL OR overlap < '0' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('overlap is %s; it may be 0, which ends the old secret at once, or longer', coalesce(overlap::text, 'null'));
  END IF;
  UPDATE outbox.subscriptions s SET secret = new_secret,
    previous_secret = CASE WHEN overlap > '0' THEN present END,
    previous_secret_expires_at = CASE WHEN overlap > '0' AND present IS NOT NULL THEN now() + overlap END
  WHERE s.id = wanted;
END
$$;

COMMENT ON FUNCTION outbox.rotate_secret IS 'Gives a subscription a new secret; for the overlap the old one signs as well.';

-- What events there are, for people and tools. Applications may publish others.
CREATE TABLE outbox.event_types (
  name        text NOT NULL,
  number      int,
  description text NOT NULL DEFAULT '',
  schema      jsonb,
  CONSTRAINT event_types_pkey PRIMARY KEY (name),
  CONSTRAINT event_types_number_is_unique UNIQUE (number),
  CONSTRAINT event_types_name_is_a_dotted_name CHECK (name ~ '^[!-)+-~]{1,255}$'),
  CONSTRAINT event_types_number_is_not_negative CHECK (number >= 0),
  CONSTRAINT event_types_description_is_at_most_10_kb CHECK (octet_length(description) <= 10240),
  -- JSON Schema (draft 2020-12, section 4.3): an object or a boolean.
  CONSTRAINT event_types_schema_is_an_object_or_boolean CHECK (jsonb_typeof(schema) IN ('object', 'boolean')),
  CONSTRAINT event_types_schema_is_at_most_1_mb CHECK (octet_length(schema::text) <= 1048576)
);

COMMENT ON TABLE outbox.event_types IS 'The events that applications publish. number is for those who know types by number; schema is the payload''s JSON Schema.';

-- ---------------------------------------------------------------------------------------------------
-- The relay's own: checkpoint, routing view, queue, attempts, dead letters.
-- ---------------------------------------------------------------------------------------------------

-- Where the relay stands. Everything at or before (lsn, index) is durably recorded.
CREATE TABLE outbox.checkpoint (
  slot_name         text        NOT NULL,
  lsn               pg_lsn      NOT NULL,
  index             bigint      NOT NULL DEFAULT 0,
  -- The end of the last transaction recorded whole: what Postgres may be told.
  confirmed_lsn     pg_lsn      NOT NULL,
  -- The commit time up to which everything is recorded.
  recorded_through  timestamptz NOT NULL,
  -- Taking over increments it; every record transaction requires its own epoch still to stand.
  epoch             int         NOT NULL DEFAULT 0,
  -- The number of the last record transaction of this epoch: tells whether a COMMIT that got no reply happened.
  batch             bigint      NOT NULL DEFAULT 0,
  -- Every transaction with a smaller id has ended, and what it published is recorded: a recovery begins here.
  recorded_xid      xid8        NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
  -- The tables and publications that the stream was opened with, by OID and row version. When they differ, something
  -- may be missing from the stream.
  catalog           text        NOT NULL DEFAULT '',
  system_identifier text        NOT NULL,
  timeline          int         NOT NULL,
  -- Events since then are the relay's: the slot was there. What had been published before is nobody's to deliver.
  begun_at          timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT checkpoint_pkey PRIMARY KEY (slot_name)
) WITH (fillfactor = 20);

-- Which relay each epoch belonged to. Epoch 0 is the setup that claimed the slot's name, before it made the slot.
CREATE TABLE outbox.epochs (
  slot_name  text        NOT NULL,
  epoch      int         NOT NULL,
  version    text        NOT NULL,
  host       text        NOT NULL,
  pid        int         NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT epochs_pkey PRIMARY KEY (slot_name, epoch)
);

-- The subscriptions as of the checkpoint's position: what a restarted relay begins with.
CREATE TABLE outbox.routing (
  subscription_id uuid    NOT NULL,
  tenant          text    NOT NULL,
  event_types     text[]  NOT NULL,
  filters         jsonb   NOT NULL,
  ordering        text    NOT NULL,
  is_active       boolean NOT NULL,
  revision        int     NOT NULL,
  CONSTRAINT routing_pkey PRIMARY KEY (subscription_id)
);

-- The queue: only what is not yet delivered. A row carries all that delivery needs, so it outlives its event.
-- A claim moves next_attempt_at to the end of the lease and names the owner.
CREATE TABLE outbox.deliveries (
  id              uuid        NOT NULL,
  subscription_id uuid        NOT NULL,
  event_id        uuid        NOT NULL,
  type            text        NOT NULL,
  payload         text        NOT NULL,
  key             text,
  tenant          text        NOT NULL,
  source          text,
  correlation_id  text,
  headers         text,
  emitted         boolean     NOT NULL,
  created_at      timestamptz NOT NULL,
  committed_at    timestamptz NOT NULL,
  commit_lsn      pg_lsn      NOT NULL,
  commit_index    bigint      NOT NULL,
  attempts        int         NOT NULL DEFAULT 0,
  -- Attempts since the delivery was made or last redelivered: what max_retries bounds.
  round           int         NOT NULL DEFAULT 0,
  -- 'infinity': held behind an earlier delivery of the same sequence.
  next_attempt_at timestamptz NOT NULL,
  -- Deliveries of a subscription with the same sequence go out one after the other; null: they may overtake.
  sequence        text,
  -- The request that it failed in together with others; they are tried again together.
  batch           uuid,
  lease_owner     text,
  last_attempt_at timestamptz,
  last_status     int,
  last_error      text,
  CONSTRAINT deliveries_pkey PRIMARY KEY (id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON outbox.deliveries (subscription_id, next_attempt_at);
CREATE INDEX deliveries_sequence ON outbox.deliveries (subscription_id, sequence, commit_lsn, commit_index)
  WHERE sequence IS NOT NULL;
CREATE INDEX deliveries_leased ON outbox.deliveries (lease_owner) WHERE lease_owner IS NOT NULL;
-- What a replay put there has no position of its own; only so much of it may wait at a time.
CREATE INDEX deliveries_replayed ON outbox.deliveries (subscription_id) WHERE commit_lsn = '0/0';

CREATE TABLE outbox.dead_letters (
  id              uuid        NOT NULL,
  subscription_id uuid        NOT NULL,
  event_id        uuid        NOT NULL,
  type            text        NOT NULL,
  payload         text        NOT NULL,
  key             text,
  tenant          text        NOT NULL,
  source          text,
  correlation_id  text,
  headers         text,
  emitted         boolean     NOT NULL,
  created_at      timestamptz NOT NULL,
  committed_at    timestamptz NOT NULL,
  commit_lsn      pg_lsn      NOT NULL,
  commit_index    bigint      NOT NULL,
  attempts        int         NOT NULL,
  last_attempt_at timestamptz,
  last_status     int,
  last_error      text,
  died_at         timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT dead_letters_pkey PRIMARY KEY (id)
) PARTITION BY RANGE (id); -- a delivery's id begins with its event's time
CREATE INDEX dead_letters_subscription ON outbox.dead_letters (subscription_id, died_at);
CREATE TABLE outbox.dead_letters_default PARTITION OF outbox.dead_letters DEFAULT;

-- What was recorded, counted by the minute of the events' created_at, in the transactions that recorded it: outbox.audit()
-- compares it with what the tables hold.
CREATE TABLE outbox.recorded (
  minute    timestamptz NOT NULL,
  events    bigint      NOT NULL DEFAULT 0,
  -- The sum of the last 48 bits of their ids.
  digest    numeric     NOT NULL DEFAULT 0,
  -- Deliveries that were made of them.
  matched   bigint      NOT NULL DEFAULT 0,
  CONSTRAINT recorded_pkey PRIMARY KEY (minute)
) WITH (fillfactor = 50);

-- Where the stream had a gap, and what was recovered from outbox.events.
CREATE TABLE outbox.recoveries (
  id           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
  slot_name    text        NOT NULL,
  code         text        NOT NULL,
  reason       text        NOT NULL,
  -- The gap lies between the old checkpoint and where the new slot begins.
  from_lsn     pg_lsn      NOT NULL,
  to_lsn       pg_lsn      NOT NULL,
  -- Events that were looked at, because they may lie in the gap, and deliveries that were queued.
  events       bigint      NOT NULL,
  deliveries   bigint      NOT NULL,
  recovered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT recoveries_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE outbox.recoveries IS 'Gaps in the stream (a lost slot, say) that were filled from outbox.events.';

-- Requests to send past events again, and how far the relay is with them. Written by outbox.replay().
CREATE TABLE outbox.replays (
  id              uuid        NOT NULL DEFAULT outbox.uuidv7(),
  number          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
  subscription_id uuid        NOT NULL,
  since           timestamptz NOT NULL,
  until           timestamptz,
  only_failed     boolean     NOT NULL DEFAULT false,
  backfill        boolean     NOT NULL DEFAULT false,
  state           text        NOT NULL DEFAULT 'waiting',
  requested_at    timestamptz NOT NULL DEFAULT now(),
  requested_lsn   pg_lsn      NOT NULL DEFAULT pg_current_wal_insert_lsn(),
  requested_xid   xid8        NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
  last_event_id   uuid,
  matched         bigint      NOT NULL DEFAULT 0,
  queued          bigint      NOT NULL DEFAULT 0,
  error           text,
  finished_at     timestamptz,
  CONSTRAINT replays_pkey PRIMARY KEY (id),
  CONSTRAINT replays_state_is_known CHECK (state IN ('waiting', 'running', 'done', 'failed')),
  CONSTRAINT replays_range_is_finite CHECK (isfinite(since) AND isfinite(until)),
  CONSTRAINT replays_since_is_before_until CHECK (since < until),
  CONSTRAINT replays_until_is_given_but_for_a_backfill CHECK (until IS NOT NULL OR backfill)
);
CREATE INDEX replays_unfinished ON outbox.replays (subscription_id, number) WHERE state IN ('waiting', 'running');

COMMENT ON TABLE outbox.replays IS 'Requests to send past events to a subscription again, and how far they are.';
COMMENT ON COLUMN outbox.replays.number IS 'Replays of one subscription run one after the other in this order.';
COMMENT ON COLUMN outbox.replays.since IS 'Events are chosen by their created_at, from since to before until.';
COMMENT ON COLUMN outbox.replays.until IS 'Null for a backfill that has not begun: it ends where live delivery began.';
COMMENT ON COLUMN outbox.replays.only_failed IS 'Only what is in outbox.dead_letters.';
COMMENT ON COLUMN outbox.replays.backfill IS 'Only what the subscription never got: asked for with backfill_from.';
COMMENT ON COLUMN outbox.replays.requested_lsn IS 'It begins when everything before is recorded, so that nothing is replayed while it is still under way.';
COMMENT ON COLUMN outbox.replays.requested_xid IS 'What transactions with smaller ids wrote was committed before.';
COMMENT ON COLUMN outbox.replays.last_event_id IS 'Events are taken in the order of their ids; those up to this one are done.';
COMMENT ON COLUMN outbox.replays.matched IS 'Events so far that the subscription takes.';
COMMENT ON COLUMN outbox.replays.queued IS 'Of those, the ones that were put into the queue; the others were waiting in it already, or a backfill left them out.';
COMMENT ON COLUMN outbox.replays.error IS 'Why it failed.';

-- One row an attempt, append only. It is narrow because every delivery pays for it: what was sent is put
-- together again from the event and the subscription's revision (outbox.calls). The delivery and event ids
-- grow with time as the rows do, so that a BRIN index finds them at no cost to the writer.
CREATE TABLE outbox.attempts (
  attempted_at    timestamptz NOT NULL,
  committed_at    timestamptz NOT NULL,
  delivery_id     uuid        NOT NULL,
  event_id        uuid        NOT NULL,
  subscription_id uuid        NOT NULL,
  revision        int         NOT NULL,
  epoch           int         NOT NULL,
  duration_us     int         NOT NULL,
  attempt         smallint    NOT NULL,
  status          smallint, -- null: no answer
  error           text,     -- null: succeeded
  response_body   text
) PARTITION BY RANGE (attempted_at);
CREATE INDEX attempts_subscription ON outbox.attempts (subscription_id, attempted_at);
CREATE INDEX attempts_ids ON outbox.attempts USING brin
  (delivery_id uuid_minmax_multi_ops, event_id uuid_minmax_multi_ops) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE outbox.attempts_default PARTITION OF outbox.attempts DEFAULT;

-- Statistics, rolled up as attempts are recorded. latency counts attempts by duration: element i (from 1)
-- holds those of at most 2^(i-1) milliseconds, and the last one the rest.
CREATE TABLE outbox.subscription_totals (
  subscription_id      uuid        NOT NULL,
  attempts             bigint      NOT NULL,
  succeeded            bigint      NOT NULL,
  failed               bigint      NOT NULL,
  delivered            bigint      NOT NULL,
  total_us             bigint      NOT NULL,
  latency              bigint[]    NOT NULL,
  -- Of failed: those without an answer in time.
  timeouts             bigint      NOT NULL DEFAULT 0,
  -- From the event's commit to its delivery, of delivered.
  lag_us               bigint      NOT NULL DEFAULT 0,
  lag                  bigint[]    NOT NULL DEFAULT array_fill(0::bigint, '{20}'),
  consecutive_failures bigint      NOT NULL,
  last_attempt_at      timestamptz NOT NULL,
  CONSTRAINT subscription_totals_pkey PRIMARY KEY (subscription_id)
) WITH (fillfactor = 50);

-- The totals as they were at some moments, of the subscriptions with attempts since the moment before: the difference
-- to the present ones is what happened since.
CREATE TABLE outbox.subscription_samples (
  sampled_at      timestamptz NOT NULL,
  subscription_id uuid        NOT NULL,
  attempts        bigint      NOT NULL,
  succeeded       bigint      NOT NULL,
  failed          bigint      NOT NULL,
  delivered       bigint      NOT NULL,
  timeouts        bigint      NOT NULL,
  total_us        bigint      NOT NULL,
  latency         bigint[]    NOT NULL,
  CONSTRAINT subscription_samples_pkey PRIMARY KEY (subscription_id, sampled_at)
) PARTITION BY RANGE (sampled_at);
CREATE TABLE outbox.subscription_samples_default PARTITION OF outbox.subscription_samples DEFAULT;

-- Where WAL and slot stood at some moments: what the forecast takes its rates from.
CREATE TABLE outbox.wal_samples (
  sampled_at    timestamptz NOT NULL,
  slot_name     text        NOT NULL,
  wal_lsn       pg_lsn      NOT NULL,
  confirmed_lsn pg_lsn,
  restart_lsn   pg_lsn,
  CONSTRAINT wal_samples_pkey PRIMARY KEY (slot_name, sampled_at)
) PARTITION BY RANGE (sampled_at);
CREATE TABLE outbox.wal_samples_default PARTITION OF outbox.wal_samples DEFAULT;

-- What is wrong, or was. At most one alert of a kind stands at a time for a subscription, or for the slot.
CREATE TABLE outbox.alerts (
  id              uuid        NOT NULL DEFAULT outbox.uuidv7(),
  alert           text        NOT NULL, -- no_activity, success_rate, consecutive_failures, timeouts, slot_…
  subscription_id uuid, -- null: the slot's
  tenant          text        NOT NULL DEFAULT '',
  message         text        NOT NULL,
  value           double precision,
  threshold       double precision,
  raised_at       timestamptz NOT NULL DEFAULT now(),
  resolved_at     timestamptz,
  CONSTRAINT alerts_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX alerts_standing ON outbox.alerts (alert, coalesce(subscription_id, '00000000-0000-0000-0000-000000000000'))
  WHERE resolved_at IS NULL;

COMMENT ON TABLE outbox.alerts IS 'What is wrong (resolved_at is null) or was: of subscriptions, and of the slot.';

-- Written out, because it runs for every subscription of every record transaction: as an expression it is inlined.
CREATE FUNCTION outbox.add_counts(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT ARRAY[
    a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5],
    a[6] + b[6], a[7] + b[7], a[8] + b[8], a[9] + b[9], a[10] + b[10],
    a[11] + b[11], a[12] + b[12], a[13] + b[13], a[14] + b[14], a[15] + b[15],
    a[16] + b[16], a[17] + b[17], a[18] + b[18], a[19] + b[19], a[20] + b[20]]
$$;

-- The upper bound, in milliseconds, of the histogram's element in which the given share is reached.
CREATE FUNCTION outbox.latency_quantile(latency bigint[], share double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT min(power(2, i - 1)) FROM (
    SELECT i, sum(n) OVER (ORDER BY i) AS reached, sum(n) OVER () AS total
    FROM unnest(latency) WITH ORDINALITY AS h(n, i)) AS cumulated
  WHERE total > 0 AND reached >= share * total
$$;

-- ---------------------------------------------------------------------------------------------------
-- Partitions: made ahead, dropped by retention (outbox.drop_partitions).
-- ---------------------------------------------------------------------------------------------------

-- Makes the daily partitions (UTC) from today to today + ahead and returns the names of the new ones.
-- Where the DEFAULT partition already holds rows of a day, that day stays there. It has its owner's rights, so that
-- the relay's role need not own anything; and whoever writes is not kept waiting behind it for long.
CREATE FUNCTION outbox.create_partitions(ahead interval DEFAULT '7 days') RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s'
AS $$
DECLARE
  day     timestamptz;
  parent  text;
  name    text;
  lower_  text;
  upper_  text;
BEGIN
  -- Two at a time would wait for each other's locks in turn.
  PERFORM pg_advisory_xact_lock(hashtext('outbox.partitions'));
  FOR day IN SELECT d AT TIME ZONE 'UTC' FROM generate_series(
      date_trunc('day', now() AT TIME ZONE 'UTC'), date_trunc('day', (now() + ahead) AT TIME ZONE 'UTC'), '1 day') AS d LOOP
    FOREACH parent IN ARRAY '{events,emitted_events,dead_letters,attempts,subscription_samples,wal_samples}'::text[] LOOP
      name := parent || to_char(day AT TIME ZONE 'UTC', '"_p"YYYYMMDD');
      CONTINUE WHEN to_regclass('outbox.' || name) IS NOT NULL;
      IF parent IN ('attempts', 'subscription_samples', 'wal_samples') THEN
        lower_ := quote_literal(day);
        upper_ := quote_literal(day + interval '24 hours');
      ELSE
        lower_ := quote_literal(outbox.uuid_floor(day));
        upper_ := quote_literal(outbox.uuid_floor(day + interval '24 hours'));
      END IF;
      BEGIN
        EXECUTE format('CREATE TABLE outbox.%I PARTITION OF outbox.%I FOR VALUES FROM (%s) TO (%s)', name, parent, lower_, upper_);
        RETURN NEXT name;
      EXCEPTION WHEN check_violation THEN
        RAISE WARNING 'outbox.% stays in the DEFAULT partition: it already holds rows of that day', name;
      END;
    END LOOP;
  END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION outbox.create_partitions(interval) FROM PUBLIC;

SELECT outbox.create_partitions();

-- ---------------------------------------------------------------------------------------------------
-- Reading and operating.
-- ---------------------------------------------------------------------------------------------------

-- One row a slot. lag_seconds is the age of the oldest outbox row made after everything recorded. It misses what
-- shows in lag_bytes only: rows of a transaction that began before the last recorded commit and is not recorded
-- itself, because rows do not carry their commit time, and events emitted as logical messages, which have no row.
CREATE VIEW outbox.replication_lag AS
SELECT c.slot_name,
       coalesce(s.active, false) AS active,
       coalesce(s.wal_status, 'lost') AS wal_status,
       (w.lsn - s.confirmed_flush_lsn)::bigint AS lag_bytes,
       (w.lsn - s.restart_lsn)::bigint AS retained_bytes,
       greatest(0, extract(epoch FROM clock_timestamp() - oldest.created_at))::double precision AS lag_seconds,
       c.lsn AS checkpoint_lsn,
       s.confirmed_flush_lsn AS confirmed_lsn,
       q.depth AS queue_depth,
       greatest(0, extract(epoch FROM clock_timestamp() - q.oldest))::double precision AS oldest_pending_seconds,
       s.safe_wal_size AS safe_bytes,
       (SELECT count(*) FROM outbox.dead_letters) AS dead_letters
FROM outbox.checkpoint c
LEFT JOIN pg_replication_slots s ON s.slot_name = c.slot_name
CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) AS w(lsn)
CROSS JOIN (SELECT count(*), min(committed_at) FROM outbox.deliveries) AS q(depth, oldest)
LEFT JOIN LATERAL (
  SELECT e.created_at FROM outbox.events e
  WHERE e.id >= outbox.uuid_floor(c.recorded_through) AND e.created_at > c.recorded_through AND isfinite(e.created_at)
  ORDER BY e.id LIMIT 1) AS oldest ON true;

COMMENT ON VIEW outbox.replication_lag IS 'How far the relay is behind: one row a replication slot.';

-- Values of headers whose names suggest a credential are hidden.
CREATE FUNCTION outbox.redact_headers(headers jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT coalesce(jsonb_object_agg(key,
           CASE WHEN key ~* '(auth|cookie|credential|key|pass|secret|session|signature|token)' THEN '"[redacted]"' ELSE value END), '{}')
  FROM jsonb_each(headers)
$$;

CREATE FUNCTION outbox.rfc3339(at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- Percent-encodes the UTF-8 of every character that is not in the given class of a regular expression.
CREATE FUNCTION outbox.percent_encode(value text, keep text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE WHEN value ~ ('^[' || keep || ']*$') THEN value ELSE (
    SELECT string_agg(CASE WHEN c ~ ('[' || keep || ']') THEN c
             ELSE regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') END, '' ORDER BY n)
    FROM regexp_split_to_table(value, '') WITH ORDINALITY AS t(c, n)) END
$$;

-- The attributes of an event as CloudEvents 1.0.2; those that it doesn't have are left out.
CREATE FUNCTION outbox.cloudevent(delivery_id uuid, e outbox.emitted_events, committed_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object(
    'specversion', '1.0', 'id', delivery_id,
    'source', coalesce(outbox.percent_encode(regexp_replace((e).source, '%(?![0-9A-Fa-f]{2})', '%25', 'g'),
      'A-Za-z0-9._~:/?#@!$&''()*+,;=%-'), 'walhook'), 'type', (e).type,
    'time', outbox.rfc3339(committed_at), 'subject', (e).key, 'datacontenttype', 'application/json',
    'correlationid', (e).correlation_id, 'tenant', nullif((e).tenant, ''),
    'traceparent', CASE WHEN jsonb_typeof((e).headers -> 'traceparent') = 'string' THEN (e).headers ->> 'traceparent' END,
    'tracestate', CASE WHEN jsonb_typeof((e).headers -> 'traceparent') = 'string'
                        AND jsonb_typeof((e).headers -> 'tracestate') = 'string' THEN (e).headers ->> 'tracestate' END))
$$;

-- The body of a request, of a batch the element that this delivery is.
CREATE FUNCTION outbox.sent_payload(format text, version int, delivery_id uuid, e outbox.emitted_events, committed_at timestamptz, attempt int)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT CASE
    WHEN (e).type IS NULL THEN NULL -- the event is no longer kept
    WHEN format IN ('raw', 'cloudevents-binary') THEN (e).payload
    WHEN format = 'standard' THEN jsonb_build_object('type', (e).type, 'timestamp', outbox.rfc3339(committed_at), 'data', (e).payload)
    WHEN format = 'cloudevents' THEN outbox.cloudevent(delivery_id, e, committed_at) || jsonb_build_object('data', (e).payload)
    ELSE jsonb_build_object('event_type', (e).type, 'event_data', (e).payload, 'webhook_id', delivery_id,
           'timestamp', outbox.rfc3339(committed_at), 'attempt', attempt)
      || CASE WHEN version = 2 THEN jsonb_build_object('version', 2, 'event_id', (e).id, 'key', (e).key, 'tenant', (e).tenant,
           'source', (e).source, 'correlation_id', (e).correlation_id, 'created_at', outbox.rfc3339((e).created_at)) ELSE '{}' END END
$$;

-- The headers that a signature scheme adds, with or without a secret, but for the signature itself, which is not kept.
CREATE FUNCTION outbox.signature_headers(signature text, signed boolean, delivery_id uuid, type text, attempted_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT CASE
      WHEN signature IN ('standard', 'standard-ed25519') THEN jsonb_build_object('webhook-id', delivery_id, 'webhook-timestamp', seconds)
      WHEN signature = 'github' THEN jsonb_build_object('X-GitHub-Event', type, 'X-GitHub-Delivery', delivery_id)
      WHEN signature = 'shopify' THEN jsonb_build_object('X-Shopify-Topic', type, 'X-Shopify-Webhook-Id', delivery_id,
        'X-Shopify-Shop-Domain', 'walhook', 'X-Shopify-API-Version', '1')
      WHEN signature = 'slack' THEN jsonb_build_object('X-Slack-Request-Timestamp', seconds)
      ELSE '{}' END
    || CASE WHEN NOT signed THEN '{}' ELSE CASE signature
      WHEN 'sha256' THEN jsonb_build_object('X-Webhook-Signature', 'sha256=[redacted]')
      WHEN 'standard' THEN jsonb_build_object('webhook-signature', 'v1,[redacted]')
      WHEN 'standard-ed25519' THEN jsonb_build_object('webhook-signature', 'v1a,[redacted]')
      WHEN 'github' THEN jsonb_build_object('X-Hub-Signature-256', 'sha256=[redacted]')
      WHEN 'stripe' THEN jsonb_build_object('Stripe-Signature', 't=' || seconds || ',v1=[redacted]')
      WHEN 'shopify' THEN jsonb_build_object('X-Shopify-Hmac-Sha256', '[redacted]')
      WHEN 'slack' THEN jsonb_build_object('X-Slack-Signature', 'v0=[redacted]')
      ELSE '{}' END END
  FROM (SELECT floor(extract(epoch FROM attempted_at))::bigint::text) AS t(seconds)
$$;

-- The headers that a format has: its content type, and the attributes of CloudEvents' binary mode (HTTP binding,
-- section 3.1.3).
CREATE FUNCTION outbox.format_headers(format text, batch_size int, delivery_id uuid, e outbox.emitted_events, committed_at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT jsonb_build_object('Content-Type', CASE
      WHEN format = 'cloudevents' AND batch_size > 1 THEN 'application/cloudevents-batch+json'
      WHEN format = 'cloudevents' THEN 'application/cloudevents+json'
      ELSE 'application/json' END)
    || CASE WHEN format = 'cloudevents-binary' THEN (
         SELECT coalesce(jsonb_object_agg('ce-' || key, outbox.percent_encode(value, '!#$&-~')), '{}')
         FROM jsonb_each_text(outbox.cloudevent(delivery_id, e, committed_at) - 'datacontenttype')) ELSE '{}' END
$$;

-- One row an attempt, with the request as it was sent. Of a batch each delivery has its row, with the element that it
-- was; the id of the batch as a whole is not kept, nor is any signature.
CREATE VIEW outbox.calls AS
SELECT a.delivery_id, a.event_id, a.subscription_id, a.attempt,
       r.url,
       'POST'::text AS method,
       outbox.redact_headers(r.headers)
         || outbox.format_headers(r.payload_format, r.batch_size, a.delivery_id, e, a.committed_at)
         || jsonb_build_object('User-Agent', 'walhook/' || ep.version,
              'X-Webhook-Event', (e).type, 'X-Webhook-ID', a.delivery_id, 'X-Webhook-Attempt', a.attempt::text)
         || outbox.signature_headers(r.signature, r.signed, a.delivery_id, (e).type, a.attempted_at)
         || CASE WHEN r.batch_size = 1 AND jsonb_typeof((e).headers -> 'traceparent') = 'string' THEN
              jsonb_build_object('Traceparent', (e).headers -> 'traceparent')
              || CASE WHEN jsonb_typeof((e).headers -> 'tracestate') = 'string'
                   THEN jsonb_build_object('Tracestate', (e).headers -> 'tracestate') ELSE '{}' END
            ELSE '{}' END
         AS request_headers,
       outbox.sent_payload(r.payload_format, r.payload_version, a.delivery_id, e, a.committed_at, a.attempt) AS payload,
       a.status::int AS status, a.response_body, a.duration_us / 1000.0::double precision AS duration_ms, a.error, a.attempted_at
FROM outbox.attempts a
LEFT JOIN outbox.subscription_revisions r ON r.revision = a.revision
LEFT JOIN LATERAL (SELECT version FROM outbox.epochs ep WHERE ep.epoch = a.epoch ORDER BY started_at DESC LIMIT 1) ep ON true
LEFT JOIN LATERAL (
  SELECT ROW(v.*)::outbox.emitted_events AS e FROM (
    SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, NULL::uuid AS only_for FROM outbox.events WHERE id = a.event_id
    UNION ALL
    SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, only_for FROM outbox.emitted_events WHERE id = a.event_id) v
  LIMIT 1) AS event ON true;

COMMENT ON VIEW outbox.calls IS 'One row an attempt: what was sent where, and what came back.';

CREATE VIEW outbox.queue AS
SELECT d.id AS delivery_id, d.event_id, d.subscription_id, s.name AS subscription, d.type, d.key, d.tenant, d.attempts,
       CASE WHEN d.lease_owner IS NOT NULL AND d.next_attempt_at > now() THEN 'in flight'
            WHEN s.id IS NULL OR NOT s.is_active OR s.status <> 'valid' OR s.verification <> 'none' AND s.verified_at IS NULL THEN 'inactive'
            WHEN d.next_attempt_at = 'infinity' THEN 'held'
            ELSE 'waiting' END AS state,
       nullif(d.next_attempt_at, 'infinity') AS next_attempt_at, d.last_attempt_at, d.last_status, d.last_error, d.committed_at
FROM outbox.deliveries d
LEFT JOIN outbox.subscriptions s ON s.id = d.subscription_id;

COMMENT ON VIEW outbox.queue IS 'Deliveries that wait: for their next attempt, for the end of one in flight, held behind an earlier one, or for their subscription to be active, valid and verified.';

-- Queue and dead letters are counted once for all subscriptions, or for the one that is asked for: counted for each by
-- itself, a plan made while one subscription has nearly all of the queue would read the table for everybody. Nothing here
-- is volatile, so that quantiles are computed of the rows that are shown, not of all that were sorted.
CREATE VIEW outbox.subscription_stats AS
SELECT s.id AS subscription_id,
       coalesce(t.delivered, 0) + coalesce(q.pending, 0) + coalesce(dl.dead, 0) AS deliveries,
       coalesce(t.succeeded, 0) AS succeeded,
       coalesce(t.failed, 0) AS failed,
       coalesce(q.pending, 0) AS pending,
       coalesce(dl.dead, 0) AS dead,
       round(t.succeeded::numeric / nullif(t.attempts, 0), 4)::double precision AS success_rate,
       round(t.total_us::numeric / nullif(t.attempts, 0) / 1000, 3)::double precision AS mean_ms,
       outbox.latency_quantile(t.latency, 0.95) AS p95_ms,
       t.last_attempt_at,
       coalesce(t.consecutive_failures, 0) AS consecutive_failures,
       coalesce(t.timeouts, 0) AS timeouts,
       round(t.lag_us::numeric / nullif(t.delivered, 0) / 1000, 3)::double precision AS commit_to_delivery_mean_ms,
       outbox.latency_quantile(t.lag, 0.95) AS commit_to_delivery_p95_ms,
       greatest(0, extract(epoch FROM statement_timestamp() - q.oldest))::double precision AS oldest_pending_seconds,
       s.name,
       s.is_active,
       s.status,
       s.status_reason
FROM outbox.subscriptions s
LEFT JOIN outbox.subscription_totals t ON t.subscription_id = s.id
LEFT JOIN (SELECT d.subscription_id, count(*), min(d.committed_at) FROM outbox.deliveries d GROUP BY d.subscription_id)
  AS q(subscription_id, pending, oldest) ON q.subscription_id = s.id
LEFT JOIN (SELECT d.subscription_id, count(*) FROM outbox.dead_letters d GROUP BY d.subscription_id)
  AS dl(subscription_id, dead) ON dl.subscription_id = s.id;

COMMENT ON VIEW outbox.subscription_stats IS 'Attempts and their results, one row a subscription; success_rate is from 0 to 1.';

-- Sends a delivery again, with the same id: a dead letter, one that waits (a lease that has run out counts for
-- nothing), or one that succeeded and whose event is still kept. Attempts go on counting; retries begin anew.
-- When two ask at the same time, the second waits for the first and finds its row where there was none before.
-- It takes SELECT on outbox.subscriptions, and rights to read and write the tables below.
CREATE FUNCTION outbox.redeliver(delivery_id uuid) RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
  wanted uuid := delivery_id;
  past   record;
BEGIN
  UPDATE outbox.deliveries d SET next_attempt_at = now(), round = 0, lease_owner = NULL
  WHERE d.id = wanted AND (d.lease_owner IS NULL OR d.next_attempt_at <= now()) AND d.next_attempt_at <> 'infinity';
  IF NOT FOUND AND EXISTS (SELECT FROM outbox.deliveries d WHERE d.id = wanted) THEN
    PERFORM outbox.refuse_redelivery(wanted);
  ELSIF NOT FOUND THEN
    WITH dead AS (DELETE FROM outbox.dead_letters d WHERE d.id = wanted RETURNING d.*)
    INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id,
      headers, emitted, created_at, committed_at, commit_lsn, commit_index, attempts, next_attempt_at, last_attempt_at, last_status, last_error)
    SELECT id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id,
      headers, emitted, created_at, committed_at, commit_lsn, commit_index, attempts, now(), last_attempt_at, last_status, last_error
    FROM dead
    ON CONFLICT (id) DO UPDATE SET id = excluded.id;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM outbox.deliveries d WHERE d.id = wanted) THEN
      SELECT a.event_id, a.subscription_id, a.committed_at, a.attempted_at, a.status, a.attempt INTO past
      FROM outbox.attempts a WHERE a.delivery_id = wanted ORDER BY a.attempt DESC LIMIT 1;
      IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = format('there is no delivery %s: outbox.calls, outbox.queue and outbox.dead_letters list what there is', wanted);
      END IF;
      INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, key, tenant, source, correlation_id,
        headers, emitted, created_at, committed_at, commit_lsn, commit_index, attempts, next_attempt_at, last_attempt_at, last_status)
      SELECT wanted, past.subscription_id, e.id, e.type, e.payload::text, e.key, e.tenant, e.source, e.correlation_id,
        e.headers::text, e.emitted, e.created_at, past.committed_at, '0/0', 0, past.attempt, now(), past.attempted_at, past.status
      FROM (SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, false AS emitted
              FROM outbox.events WHERE id = past.event_id
            UNION ALL
            SELECT id, type, payload, key, tenant, source, correlation_id, headers, created_at, true
              FROM outbox.emitted_events WHERE id = past.event_id) e
      ON CONFLICT (id) DO UPDATE SET id = excluded.id;
      IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = format('the event %s of delivery %s is no longer kept', past.event_id, wanted);
      END IF;
    END IF;
  END IF;
  SELECT d.subscription_id INTO past FROM outbox.deliveries d
  WHERE d.id = wanted AND NOT EXISTS (SELECT FROM outbox.subscriptions s WHERE s.id = d.subscription_id);
  IF FOUND THEN -- undoes what was done above
    RAISE no_data_found USING MESSAGE = format('the subscription %s of delivery %s was deleted: there is nowhere to send it', past.subscription_id, wanted);
  END IF;
  PERFORM pg_notify('walhook', 'queue');
  RETURN wanted;
END
$$;

COMMENT ON FUNCTION outbox.redeliver IS 'Sends a delivery again under the same id, now.';

-- Says why a delivery in the queue cannot be sent now.
CREATE FUNCTION outbox.refuse_redelivery(wanted uuid) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
  earlier uuid;
BEGIN
  SELECT first.id INTO earlier
  FROM outbox.deliveries d
  CROSS JOIN LATERAL (
    SELECT f.id FROM outbox.deliveries f
    WHERE f.subscription_id = d.subscription_id AND f.sequence = d.sequence
    ORDER BY f.commit_lsn, f.commit_index LIMIT 1) AS first
  WHERE d.id = wanted AND d.next_attempt_at = 'infinity' AND first.id <> wanted;
  IF FOUND THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('delivery %s is held behind delivery %s, which must go first: redeliver that one', wanted, earlier);
  END IF;
  RAISE object_in_use USING MESSAGE = format('delivery %s is being attempted right now', wanted);
END
$$;

-- Sends a made-up event to one subscription, which nobody else gets: at once, and once. Whether it is active is all
-- that counts; its event types and filters don't.
CREATE FUNCTION outbox.send_test(subscription_id uuid, event_type text DEFAULT 'webhook.test', test_data jsonb DEFAULT '{"test": true}')
RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
  wanted       uuid := subscription_id;
  subscription outbox.subscriptions;
  event        uuid := outbox.uuidv7();
  delivery     uuid := outbox.delivery_id(event, subscription_id);
  data         jsonb := coalesce(test_data, 'null');
BEGIN
  SELECT s.* INTO subscription FROM outbox.subscriptions s WHERE s.id = wanted;
  IF NOT FOUND THEN
    RAISE no_data_found USING MESSAGE = format('there is no subscription %s', wanted);
  ELSIF NOT subscription.is_active THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('subscription %s is not active: run outbox.activate(%L) first', wanted, wanted);
  ELSIF subscription.status <> 'valid' THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('subscription %s is invalid, mend it first: %s', wanted, subscription.status_reason);
  ELSIF subscription.verification <> 'none' AND subscription.verified_at IS NULL THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('the receiver of subscription %s has not agreed yet: %s', wanted, coalesce(subscription.verification_error, 'it has not been asked'));
  ELSIF event_type IS NULL OR event_type !~ '^[!-)+-~]{1,255}$' THEN
    RAISE check_violation USING MESSAGE = format('event type %L is not a dotted name of 1 to 255 printable ASCII characters without spaces and *', left(event_type, 300));
  ELSIF octet_length(data::text) > 10485760 THEN
    RAISE check_violation USING MESSAGE = 'test_data has more than 10 MB (10485760 bytes) of JSON text';
  END IF;
  INSERT INTO outbox.emitted_events (id, type, payload, tenant, source, only_for)
  VALUES (event, event_type, data, subscription.tenant, 'walhook', wanted);
  -- A delivery whose rounds are used up fails for good at its first failure.
  INSERT INTO outbox.deliveries (id, subscription_id, event_id, type, payload, tenant, source, headers, emitted,
    created_at, committed_at, commit_lsn, commit_index, round, next_attempt_at)
  VALUES (delivery, wanted, event, event_type, data::text, subscription.tenant, 'walhook', '{}', true,
    now(), now(), '0/0', 0, 10, now());
  PERFORM pg_notify('walhook', 'queue');
  RETURN delivery;
END
$$;

COMMENT ON FUNCTION outbox.send_test IS 'Sends a made-up event to one subscription, without retries, and returns the delivery''s id.';

-- Asks the relay to send past events again. The subscription's event types and filters decide as they are now. Its
-- row is touched, which locks it and lets the checkpoint move past the request even when nothing else happens.
-- It takes SELECT and UPDATE on outbox.subscriptions, and INSERT and SELECT on outbox.replays.
CREATE FUNCTION outbox.replay(subscription_id uuid, since timestamptz, until timestamptz DEFAULT now(), only_failed boolean DEFAULT false)
RETURNS uuid
LANGUAGE plpgsql
AS $$
DECLARE
  wanted uuid := subscription_id;
  ends   timestamptz := coalesce(until, now());
  replay uuid;
BEGIN
  IF since IS NULL OR NOT isfinite(since) OR NOT isfinite(ends) THEN
    RAISE invalid_parameter_value USING MESSAGE = format('since is %s and until is %s; both must be moments in time', coalesce(since::text, 'null'), ends);
  ELSIF since > now() OR ends > now() + interval '1 minute' THEN -- clocks differ a little
    RAISE invalid_parameter_value USING MESSAGE = format('%s lies in the future: only what has happened can be replayed', greatest(since, ends));
  ELSIF since >= ends THEN
    RAISE invalid_parameter_value USING MESSAGE = format('since (%s) must be before until (%s)', since, ends);
  END IF;
  UPDATE outbox.subscriptions s SET name = s.name WHERE s.id = wanted;
  IF NOT FOUND THEN
    RAISE no_data_found USING MESSAGE = format('there is no subscription %s', wanted);
  END IF;
  INSERT INTO outbox.replays (subscription_id, since, until, only_failed)
  VALUES (wanted, since, ends, coalesce(only_failed, false)) RETURNING id INTO replay;
  PERFORM pg_notify('walhook', 'replay');
  RETURN replay;
END
$$;

COMMENT ON FUNCTION outbox.replay IS 'Sends events of the past to a subscription again, or only those that failed; outbox.replays shows how far it is.';

CREATE FUNCTION outbox.cancel_replay(id uuid) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
  wanted uuid := id;
  ended  text;
BEGIN
  UPDATE outbox.replays r SET state = 'failed', error = 'cancelled', finished_at = now()
  WHERE r.id = wanted AND r.state IN ('waiting', 'running');
  IF NOT FOUND THEN
    SELECT r.state INTO ended FROM outbox.replays r WHERE r.id = wanted;
    IF NOT FOUND THEN
      RAISE no_data_found USING MESSAGE = format('there is no replay %s: outbox.replays lists them', wanted);
    END IF;
    RAISE object_not_in_prerequisite_state USING MESSAGE = format('replay %s is over, its state is %s', wanted, ended);
  END IF;
END
$$;

COMMENT ON FUNCTION outbox.cancel_replay IS 'Ends a replay. What it has put into the queue stays there.';
