-- Anomalies over time, without a look at any packet. Source: `model_stats`, a row for each minute and source.

-- Lower bounds of the bins of `model_stats.bins` (engine/model_row.py).
CREATE OR REPLACE MACRO _anomaly_bounds() AS
    [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0]::DOUBLE[];

-- What would a threshold have raised? How many packets were that unusual, in how many minutes, beside the share that
-- the model expects: what it learned from had it by definition.
CREATE OR REPLACE MACRO _anomaly_thresholds(since, until, all_sensors, sensors) AS TABLE
WITH bins AS (
    SELECT ts, bin, list_extract(bins, bin) AS n
    FROM table_between('model_stats', since, until), (SELECT unnest(range(1, len(_anomaly_bounds()) + 1)) AS bin)
    WHERE bin <= len(bins) AND (all_sensors OR list_contains(sensors, sensor))),
minutes AS (SELECT ts, bin, sum(n) AS n FROM bins GROUP BY ALL),
counted AS (SELECT bin, sum(n) AS n FROM minutes GROUP BY bin),
highest AS (SELECT ts, max(bin) AS bin FROM minutes WHERE n > 0 GROUP BY ts),
reached AS (SELECT bin, count(*) AS minutes FROM highest GROUP BY bin),
summed AS (
    SELECT bin, (sum(n) OVER (ORDER BY bin DESC))::BIGINT AS packets, sum(n) OVER () AS scored,
           (coalesce(sum(minutes) OVER (ORDER BY bin DESC), 0))::BIGINT AS minutes, sum(minutes) OVER () AS span
    FROM counted LEFT JOIN reached USING (bin))
SELECT list_extract(_anomaly_bounds(), bin) AS threshold, packets, packets / nullif(scored, 0) AS share,
       1 - list_extract(_anomaly_bounds(), bin) AS usual_share, minutes,
       round(packets * 60 / nullif(span, 0), 1) AS packets_per_hour
FROM summed ORDER BY threshold;
CREATE OR REPLACE MACRO anomaly_threshold_between(since := NULL, until := NULL) AS TABLE
FROM _anomaly_thresholds(since, until, true, ['']);

-- How unusual was traffic, minute by minute? Quantiles are lower bounds of bins. `top_frame_no` of `top_source` is the
-- most unusual packet.
CREATE OR REPLACE MACRO anomaly_minutes_between(since := NULL, until := NULL) AS TABLE
WITH stats AS (FROM table_between('model_stats', since, until)),
bins AS (
    SELECT sensor, ts, bin, list_extract(bins, bin) AS n
    FROM stats, (SELECT unnest(range(1, len(_anomaly_bounds()) + 1)) AS bin) WHERE bin <= len(bins)),
summed AS (SELECT sensor, ts, bin, sum(n) AS n FROM bins GROUP BY ALL),
ranked AS (
    SELECT sensor, ts, bin, sum(n) OVER (PARTITION BY sensor, ts ORDER BY bin) AS below,
           sum(n) OVER (PARTITION BY sensor, ts) AS n
    FROM summed),
quantiles AS (
    SELECT sensor, ts, list_extract(_anomaly_bounds(), min(bin) FILTER (below >= 0.5 * n)) AS p50,
           list_extract(_anomaly_bounds(), min(bin) FILTER (below >= 0.9 * n)) AS p90,
           list_extract(_anomaly_bounds(), min(bin) FILTER (below >= 0.99 * n)) AS p99
    FROM ranked WHERE n > 0 GROUP BY ALL),
minutes AS (
    SELECT sensor, ts, sum(scored)::BIGINT AS scored, sum(above)::BIGINT AS above, max(threshold) AS threshold,
           max(top_anomaly) AS top_anomaly, _at_highest(source, top_anomaly) AS top_source,
           _at_highest(CASE WHEN top_anomaly IS NOT NULL THEN top_frame_no END, (top_anomaly, source)) AS top_frame_no, sum(not_learned)::BIGINT AS not_learned,
           max(model) AS model, max(psi) AS psi, _at_highest(worst_feature, worst_psi) AS worst_feature,
           max(worst_psi) AS worst_psi
    FROM stats GROUP BY ALL)
SELECT ts, sensor, scored, p50, p90, p99, top_anomaly, top_source, top_frame_no, above, threshold, not_learned, model,
       psi, worst_feature, worst_psi
FROM minutes LEFT JOIN quantiles USING (sensor, ts) ORDER BY ts, sensor;
