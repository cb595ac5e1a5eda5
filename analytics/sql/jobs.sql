-- What `engine job` asks beside the public questions: days added up, for those who keep them longer than the lake.

-- One row per day, sensor, protocol and application. Source: packets.
CREATE OR REPLACE MACRO daily_traffic_between(since := NULL, until := NULL) AS TABLE
SELECT ts::DATE AS day, sensor, ip_version, proto, app, count(*) AS packets, sum(wirelen)::BIGINT AS bytes,
       coalesce(sum(payload_len), 0)::BIGINT AS payload, count(*) FILTER (is_fragment) AS fragments,
       count(*) FILTER (status NOT IN ('ok', 'not_ip')) AS undecodable
FROM table_between('packets', since, until) GROUP BY ALL ORDER BY day, sensor, packets DESC, ip_version, proto, app;

-- One row per day, sensor, client, server and port. Source: flows; a connection counts on the day on which it began.
CREATE OR REPLACE MACRO daily_conversations_between(since := NULL, until := NULL) AS TABLE
SELECT ts::DATE AS day, sensor, src_ip, dst_ip, dst_port, proto, app, count(*) AS connections,
       count(*) FILTER (outcome IN ('refused', 'unanswered', 'half-open')) AS failed,
       sum(src_bytes)::BIGINT AS src_bytes, sum(dst_bytes)::BIGINT AS dst_bytes, sum(packets)::BIGINT AS packets,
       min(ts) AS first_seen, max(end_ts) AS last_seen
FROM connections_between(since, until) GROUP BY ALL ORDER BY day, sensor, src_ip, dst_ip, dst_port, proto, app;
