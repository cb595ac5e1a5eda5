-- Alerts: the newest state of each incident, with what operators said of it. Source: alert_events.
-- nullif(since, since) is NULL that depends on a parameter: a macro is planned when it is created up to the first one.

-- What happened? Incidents that overlap the range. The newest state is written at or after `last_seen`, so segments
-- before the range hold none of it; what people say may be of any time. `status` is theirs alone: open until somebody
-- acknowledges, and again when that is taken back. Whether it still goes on is `active`.
CREATE OR REPLACE MACRO alerts_between(since := NULL, until := NULL) AS TABLE
WITH states AS (
    SELECT * FROM table_between('alert_events', since, nullif(since, since))
    WHERE event IN ('opened', 'updated', 'closed', 'manual')
    QUALIFY row_number() OVER (PARTITION BY incident_id ORDER BY revision DESC, event = 'closed' DESC, ts DESC, sensor) = 1),
marks AS (
    SELECT incident_id,
           _at_highest(CASE WHEN event <> 'note' THEN event END, ts) AS mark,
           _at_highest(CASE WHEN event = 'acknowledged' THEN actor END, ts) AS by_whom,
           max(ts) FILTER (event = 'acknowledged') AS marked,
           _at_highest(note, ts) AS note, count(note) AS notes
    FROM table_between('alert_events', nullif(since, since), nullif(since, since))
    WHERE sensor = 'operator' AND event IN ('acknowledged', 'reopened', 'note') GROUP BY incident_id)
SELECT states.incident_id, first_seen, last_seen, kind, severity, src_ip, dst_ip, "count", why, evidence, confidence,
       CASE WHEN mark = 'acknowledged' THEN 'acknowledged' ELSE 'open' END AS status,
       event IN ('opened', 'updated') AS active,
       CASE WHEN mark = 'acknowledged' THEN by_whom END AS acknowledged_by,
       CASE WHEN mark = 'acknowledged' THEN marked END AS acknowledged_at,
       marks.note, coalesce(notes, 0)::BIGINT AS notes, dst_port, proto, domain, source, sensor, flow_ids, packets,
       actor AS reported_by
FROM states LEFT JOIN marks USING (incident_id)
WHERE (since IS NULL OR last_seen >= since::TIMESTAMP) AND (until IS NULL OR first_seen < until::TIMESTAMP)
ORDER BY first_seen DESC, states.incident_id;

-- What is muted? The newest word on each kind, source and destination, by the range of when it was said; those that
-- were taken back are left out, those whose time is over have `active` false.
CREATE OR REPLACE MACRO mutes_between(since := NULL, until := NULL) AS TABLE
WITH words AS (
    SELECT * FROM table_between('alert_events', since, until) AS said WHERE sensor = 'operator' AND event IN ('muted', 'unmuted')
    QUALIFY row_number() OVER (PARTITION BY kind, src_ip, dst_ip ORDER BY ts DESC, event, said.until DESC, actor, note) = 1)
SELECT kind, src_ip, dst_ip, ts AS muted_at, words.until AS muted_until, actor AS muted_by, note,
       words.until IS NULL OR words.until > now()::TIMESTAMP AS active
FROM words WHERE event = 'muted' ORDER BY ts DESC, kind, src_ip, dst_ip;
