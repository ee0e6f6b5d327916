-- Alerts: what is wrong with subscriptions and with the slot, judged by any relay every now and then.

-- Where alerts that ended long ago are found to be removed.
CREATE INDEX alerts_resolved ON outbox.alerts (resolved_at);

COMMENT ON COLUMN outbox.alerts.alert IS 'Of a subscription: no_activity, success_rate, consecutive_failures, timeouts, subscription_invalid, subscription_gone. Of the slot: slot_lag, slot_inactive, slot_at_risk, slot_recovered, relay_halted.';
COMMENT ON COLUMN outbox.alerts.subscription_id IS 'Null: the alert is the slot''s.';
COMMENT ON COLUMN outbox.alerts.value IS 'What was measured when it was raised: seconds (no_activity, slot_lag, slot_inactive, slot_at_risk), percent (success_rate), attempts (consecutive_failures, timeouts), the id of a row of outbox.recoveries (slot_recovered).';
COMMENT ON COLUMN outbox.alerts.threshold IS 'What the value was compared with, in the same unit.';

-- Judges everything once, in one statement whatever the number of subscriptions: writes down what begins and what ends,
-- publishes an event for each and returns them. It takes SELECT on what it judges, SELECT, INSERT, UPDATE and DELETE on
-- outbox.alerts, and INSERT on outbox.events. A threshold of 0 turns its alert off. findings is what the caller found about
-- the slot, an array of {alert, raise, keep, value, threshold, message}.
-- Queries are not compiled (jit): that would take longer than what they do.
-- An alert is raised when raise holds and ends when keep does not: between them lies what keeps it from flapping.
CREATE FUNCTION outbox.check_alerts(
  slot text, no_activity interval, success_rate int, consecutive_failures bigint, timeouts bigint, findings jsonb
) RETURNS TABLE (alert text, state text, subscription_id uuid, subscription text, tenant text, message text,
  value double precision, threshold double precision, raised_at timestamptz, resolved_at timestamptz)
LANGUAGE plpgsql SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM outbox.alerts WHERE resolved_at < now() - interval '30 days';
  RETURN QUERY
  WITH watched AS MATERIALIZED (
    SELECT s.id, s.tenant, s.is_active AND s.status = 'valid' AS works, s.is_active AND s.status = 'invalid' AS invalid, s.is_active AS active,
           -- Only the relay says why one is inactive: when its receiver answered 410.
           NOT s.is_active AND s.status = 'valid' AS gone,
           -- Whoever wants to hear only of the relay itself hears nothing while all is well.
           cardinality(s.event_types) > 0
             AND NOT EXISTS (SELECT FROM unnest(s.event_types) AS t WHERE t NOT LIKE 'walhook.%') AS quiet,
           greatest(t.last_attempt_at, s.created_at, s.updated_at) AS since, t.last_attempt_at,
           coalesce(t.consecutive_failures, 0) AS streak,
           coalesce(a.attempts, 0) AS attempts, 100.0 * a.succeeded / nullif(a.attempts, 0) AS percent, coalesce(a.timeouts, 0) AS late
    FROM outbox.subscriptions s
    LEFT JOIN outbox.subscription_totals t ON t.subscription_id = s.id
    LEFT JOIN outbox.subscription_activity(interval '1 hour') a ON a.subscription_id = s.id
    WHERE s.is_active OR s.status_reason IS NOT NULL
  ), recovery AS (
    SELECT r.id, r.code, r.events, r.deliveries FROM outbox.recoveries r
    WHERE r.slot_name = slot AND r.recovered_at > now() - interval '1 hour' ORDER BY r.id DESC LIMIT 1
  ), judged AS (
    SELECT 'no_activity' AS alert, w.id AS subscription_id, w.tenant, true AS raise, true AS keep,
           extract(epoch FROM now() - w.since)::double precision AS value, extract(epoch FROM check_alerts.no_activity)::double precision AS threshold,
           format(CASE WHEN w.since = w.last_attempt_at THEN 'no attempt since %s' ELSE 'no attempt since it was made or changed at %s' END,
             outbox.rfc3339(w.since)) AS message
    FROM watched w
    WHERE check_alerts.no_activity > '0' AND w.works AND NOT w.quiet AND w.since < now() - check_alerts.no_activity AND isfinite(w.since)
    UNION ALL
    SELECT 'success_rate', w.id, w.tenant, w.percent < check_alerts.success_rate, true,
           round(w.percent, 1)::double precision, check_alerts.success_rate,
           format('%s %% of %s attempts of the last hour succeeded, fewer than %s %%', round(w.percent, 1), w.attempts, check_alerts.success_rate)
    FROM watched w
    WHERE check_alerts.success_rate > 0 AND w.active AND w.attempts >= 10 AND w.percent < least(check_alerts.success_rate + 2, 100)
    UNION ALL
    SELECT 'consecutive_failures', w.id, w.tenant, true, true, w.streak, check_alerts.consecutive_failures,
           format('%s attempts in a row failed', w.streak)
    FROM watched w
    WHERE check_alerts.consecutive_failures > 0 AND w.active AND w.streak > check_alerts.consecutive_failures
    UNION ALL
    SELECT 'timeouts', w.id, w.tenant, true, true, w.late, check_alerts.timeouts,
           format('%s attempts of the last hour had no answer in time', w.late)
    FROM watched w
    WHERE check_alerts.timeouts > 0 AND w.active AND w.late > check_alerts.timeouts
    UNION ALL
    SELECT 'subscription_invalid', w.id, w.tenant, true, true, NULL, NULL, 'it is invalid and gets nothing until it is mended: status_reason says why'
    FROM watched w WHERE w.invalid
    UNION ALL
    SELECT 'subscription_gone', w.id, w.tenant, true, true, NULL, NULL, 'its receiver answered 410 Gone: it is deactivated'
    FROM watched w WHERE w.gone
    UNION ALL
    SELECT f.alert, NULL, '', f.raise, f.keep, f.value, f.threshold, f.message
    FROM jsonb_to_recordset(findings) AS f(alert text, raise boolean, keep boolean, value double precision, threshold double precision, message text)
    UNION ALL
    -- Each recovery is told of once, also when the one before is: that one ends first.
    SELECT 'slot_recovered', NULL, '',
           NOT EXISTS (SELECT FROM outbox.alerts a WHERE a.alert = 'slot_recovered' AND a.value >= r.id),
           EXISTS (SELECT FROM outbox.alerts a WHERE a.alert = 'slot_recovered' AND a.value >= r.id), r.id, NULL,
           format('the stream had a gap (%s), which was filled from outbox.events: %s events looked at, %s deliveries queued', r.code, r.events, r.deliveries)
    FROM recovery r
  ), raised AS (
    INSERT INTO outbox.alerts AS a (alert, subscription_id, tenant, message, value, threshold)
    SELECT j.alert, j.subscription_id, j.tenant, j.message, j.value, j.threshold
    FROM judged j
    LEFT JOIN outbox.alerts standing ON standing.resolved_at IS NULL AND standing.alert = j.alert
      AND coalesce(standing.subscription_id, '00000000-0000-0000-0000-000000000000') = coalesce(j.subscription_id, '00000000-0000-0000-0000-000000000000')
    WHERE j.raise AND standing.id IS NULL
    ON CONFLICT DO NOTHING
    RETURNING a.*
  ), resolved AS (
    UPDATE outbox.alerts a SET resolved_at = now()
    FROM outbox.alerts standing
    LEFT JOIN judged j ON j.keep AND standing.alert = j.alert
      AND coalesce(standing.subscription_id, '00000000-0000-0000-0000-000000000000') = coalesce(j.subscription_id, '00000000-0000-0000-0000-000000000000')
    WHERE a.id = standing.id AND standing.resolved_at IS NULL AND j.alert IS NULL
    RETURNING a.*
  ), changed AS (
    SELECT c.*, s.name FROM (SELECT 'raised' AS state, raised.* FROM raised UNION ALL SELECT 'resolved', resolved.* FROM resolved) AS c
    LEFT JOIN outbox.subscriptions s ON s.id = c.subscription_id
  ), told AS ( -- as outbox.publish() would, but at once
    INSERT INTO outbox.events (type, payload, key, tenant, source)
    SELECT 'walhook.alert.' || c.alert, jsonb_build_object('alert', c.alert, 'state', c.state, 'subscription_id', c.subscription_id,
             'subscription', c.name, 'message', c.message, 'value', c.value, 'threshold', c.threshold,
             'raised_at', outbox.rfc3339(c.raised_at), 'resolved_at', outbox.rfc3339(c.resolved_at)), c.subscription_id::text, c.tenant, 'walhook'
    FROM changed c
  )
  SELECT c.alert, c.state, c.subscription_id, c.name, c.tenant, c.message, c.value, c.threshold, c.raised_at, c.resolved_at
  FROM changed c ORDER BY c.state, c.alert, c.subscription_id;
END
$$;

COMMENT ON FUNCTION outbox.check_alerts IS 'One look at what is wrong: the relay calls it every alerts.interval.';
