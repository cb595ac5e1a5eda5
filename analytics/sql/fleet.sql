-- How is each sensor? Source: `capture_stats`, and what a sensor that ships says of itself (`lake_fleet`, which
-- `analytics.store` gives each connection).

-- One row per sensor that captured in the range, by default the last day, or ships.
CREATE OR REPLACE MACRO fleet_between(since := NULL, until := NULL) AS TABLE
WITH told AS (
    SELECT unnest(from_json(lake_fleet(''), '[{"sensor": "VARCHAR", "version": "VARCHAR", "lag_s": "DOUBLE", "said": "DOUBLE",
        "written": "DOUBLE", "waiting_bytes": "BIGINT", "lost_rows": "BIGINT", "problem": "VARCHAR"}]'), recursive := true)),
stats AS (FROM table_between('capture_stats', coalesce(since, now()::TIMESTAMP - INTERVAL 1 DAY), until)),
ends AS (SELECT sensor, max(ts) AS last_counted FROM stats GROUP BY ALL),
counted AS (
    SELECT sensor, any_value(last_counted) AS last_counted, sum(received)::BIGINT AS received,
           sum(received - rows + interface_drops)::BIGINT AS lost,
           sum(received) FILTER (ts > last_counted - INTERVAL 1 MINUTE) / 60 AS packets_per_s
    FROM stats JOIN ends USING (sensor) GROUP BY ALL)
SELECT sensor, last_counted, round(packets_per_s, 1) AS packets_per_s, received, lost,
       lost / nullif(received, 0) AS lost_share, version,
       make_timestamp((written * 1000000)::BIGINT) AS last_seen, lag_s,
       round(said - written, 1) + 0 AS clock_s, waiting_bytes, lost_rows AS not_shipped, nullif(problem, '') AS problem
FROM counted FULL JOIN told USING (sensor) ORDER BY sensor;
