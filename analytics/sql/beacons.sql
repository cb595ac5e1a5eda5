-- Who calls home? Pairs of client and service that meet at regular times with equal sizes.
--
-- The idea is RITA's (Active Countermeasures): a program that reports to its master does so by a timer, so the times
-- between its connections, and what it sends, vary little around their medians. RITA scores dispersion and skewness of
-- both, and how evenly they fill the day; the formula here is our own and uses dispersion alone, since jitter is often
-- one-sided and a range may be shorter than a day.
--
--   beat      a connection that begins a second or more after the one before: a burst is one beat
--   interval_score = 1 - (MAD / median of the times between beats) / 0.694, at least 0
--             0.694 is that quotient for connections at random times (exponential intervals: MAD 0.4812, median
--             0.6931), so random is 0 and a clock is 1; a clock with +-20 % of jitter gives 0.86
--   size_score     = 1 - MAD / median of the bytes that the client sent, at least 0
--   score          = interval_score * (0.5 + 0.5 * size_score): a timer is necessary, equal sizes make it sure
--
-- MAD is the median absolute deviation: half the beats may be outliers (a laptop asleep) without effect. `coverage` is
-- how much of the time from first to last the beats fill: 1 without gaps, little for a page that reloads while somebody
-- reads it. Updates, NTP, monitoring and mail clients beat too: read server_name and app. One long connection that beats
-- inside is not found.
CREATE OR REPLACE MACRO beacons_between(since := NULL, until := NULL) AS TABLE
WITH groups AS (
    SELECT src_ip, dst_ip, dst_port, proto, count(*) AS flows, list(epoch_us(ts) / 1e6 ORDER BY ts) AS times,
           median(src_bytes) AS size, mad(src_bytes) AS size_mad, sum(bytes)::BIGINT AS bytes,
           _at_highest(app, ts) AS app, _at_highest(server_name, ts) AS server_name, min(ts) AS first_seen, max(ts) AS last_seen
    FROM connections_between(since, until) GROUP BY src_ip, dst_ip, dst_port, proto HAVING count(*) >= 10),
gaps AS (
    SELECT * EXCLUDE (times), list_filter(list_transform(range(1, len(times)), lambda i: list_extract(times, i + 1) - list_extract(times, i)),
                                          lambda gap: gap >= 1) AS gaps
    FROM groups),
measured AS (
    SELECT *, len(gaps) + 1 AS beats, list_aggregate(gaps, 'median') AS interval_s,
           list_aggregate(gaps, 'mad') AS interval_mad_s
    FROM gaps WHERE len(gaps) >= 9),
scored AS (
    SELECT *, greatest(0, 1 - interval_mad_s / interval_s / 0.694) AS interval_score,
           CASE WHEN size > 0 THEN greatest(0, 1 - size_mad / size) ELSE 0 END AS size_score
    FROM measured)
SELECT round(interval_score * (0.5 + 0.5 * size_score), 3) AS score, src_ip, dst_ip, dst_port, proto, app, server_name,
       flows, beats, round(interval_s, 3) AS interval_s, round(interval_mad_s, 3) AS interval_mad_s,
       round(interval_score, 3) AS interval_score, size, size_mad, round(size_score, 3) AS size_score,
       round(least(1, interval_s * (beats - 1) / ((epoch_us(last_seen) - epoch_us(first_seen)) / 1e6)), 3) AS coverage, bytes, first_seen, last_seen
FROM scored ORDER BY score DESC, beats DESC, src_ip, dst_ip, dst_port;
