-- What is served where. Source: flows that were answered; the server is `dst` of a flow.

-- One row per address, port and application. Flows too short to tell the application count for the one that most of
-- the port's bytes belong to.
CREATE OR REPLACE MACRO services_between(since := NULL, until := NULL) AS TABLE
WITH pairs AS (
    SELECT dst_ip AS ip, dst_port AS port, proto, app, src_ip, count(*) AS flows,
           sum(src_bytes) AS received, sum(dst_bytes) AS sent, min(ts) AS first_seen, max(end_ts) AS last_seen,
           _at_highest(CASE WHEN NOT _asks_names(app) THEN server_name END, ts) AS server_name
    FROM connections_between(since, until)
    WHERE dst_port IS NOT NULL AND outcome IN ('established', 'answered', 'reset') AND NOT _is_group(dst_ip)
    GROUP BY ALL),
known AS (SELECT ip, port, proto, app, sum(sent + received) AS bytes FROM pairs WHERE app IS NOT NULL GROUP BY ALL),
main AS (SELECT ip, port, proto, _at_highest(app, bytes) AS main FROM known GROUP BY ALL)
SELECT ip, port || '/' || _transport(proto) || coalesce(' ' || coalesce(app, main), '') AS service, port, proto,
       coalesce(app, main) AS app, count(DISTINCT src_ip) AS clients, sum(flows)::BIGINT AS flows,
       sum(sent + received)::BIGINT AS bytes, sum(sent)::BIGINT AS bytes_sent, sum(received)::BIGINT AS bytes_received,
       coalesce(list_sort(list(DISTINCT server_name) FILTER (server_name IS NOT NULL))[:10], []) AS server_names,
       min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM pairs LEFT JOIN main USING (ip, port, proto) GROUP BY ip, port, proto, coalesce(app, main);

-- What is served that was not before? Services first seen in the range, by default in the last 24 hours of the lake's
-- time, compared with everything before. A port counts as new when nobody was answered on it, an application when
-- the port was known for others: `known_as` lists those. `watched_h` is how many hours the lake had looked when
-- it came.
CREATE OR REPLACE MACRO new_services_between(since := NULL, until := NULL) AS TABLE
WITH range AS (
    SELECT coalesce(since::TIMESTAMP, max(end_ts) - INTERVAL 24 HOUR) AS begins, min(ts) AS oldest
    FROM table_between('flows', NULL, until)),
seen AS MATERIALIZED (
    SELECT *, first_seen >= begins AS new FROM services_between(NULL, until), range),
before AS (SELECT ip, port, proto, list(app ORDER BY app) AS apps FROM seen WHERE NOT new GROUP BY ALL)
SELECT seen.first_seen, ip, service, port, proto, app, clients, flows, bytes, server_names,
       coalesce(list_filter(before.apps, lambda a: a IS NOT NULL), []) AS known_as,
       round((epoch_us(seen.first_seen) - epoch_us(oldest)) / 3.6e9, 1) AS watched_h
FROM seen LEFT JOIN before USING (ip, port, proto)
WHERE new AND (before.ip IS NULL OR len(known_as) > 0) ORDER BY seen.first_seen DESC, ip, port, app;
