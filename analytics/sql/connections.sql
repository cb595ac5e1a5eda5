-- What talked to what. Source: `flows`, whose client is who sent first (or the SYN).

-- One row per flow: parts that the active timeout cut are added up. Keys and the first bytes are those of the first
-- part, outcome and end reason those of the last. With a range: the parts that began in it.
-- Means over parts are weighted by packets, so they are near, not equal, to the mean over all packets.
CREATE OR REPLACE MACRO connections_between(since := NULL, until := NULL) AS TABLE
SELECT min(ts) AS ts, max(end_ts) AS end_ts, flow_id, count(*) AS parts, any_value(community_id) AS community_id,
       any_value(source) AS source, any_value(vlan) AS vlan, any_value(ip_version) AS ip_version,
       any_value(src_ip) AS src_ip, any_value(dst_ip) AS dst_ip,
       any_value(src_port) AS src_port, any_value(dst_port) AS dst_port, any_value(proto) AS proto,
       any_value(icmp_type) AS icmp_type, any_value(icmp_code) AS icmp_code, any_value(encap) AS encap,
       arg_max(src_mac, part) AS src_mac, arg_max(dst_mac, part) AS dst_mac,
       sum(src_packets)::BIGINT AS src_packets, sum(src_bytes)::BIGINT AS src_bytes,
       sum(src_payload)::BIGINT AS src_payload, bit_or(src_tcp_flags) AS src_tcp_flags,
       sum(src_retransmits)::BIGINT AS src_retransmits,
       min(src_size_min) AS src_size_min, max(src_size_max) AS src_size_max,
       min(src_gap_min) AS src_gap_min, (sum(src_gap_mean * src_packets)
           / sum(src_packets) FILTER (src_gap_mean IS NOT NULL))::FLOAT AS src_gap_mean, max(src_gap_max) AS src_gap_max,
       (sum(src_entropy * src_packets) / sum(src_packets) FILTER (src_entropy IS NOT NULL))::FLOAT AS src_entropy,
       arg_min(src_head, part) AS src_head,
       sum(dst_packets)::BIGINT AS dst_packets, sum(dst_bytes)::BIGINT AS dst_bytes,
       sum(dst_payload)::BIGINT AS dst_payload, bit_or(dst_tcp_flags) AS dst_tcp_flags,
       sum(dst_retransmits)::BIGINT AS dst_retransmits,
       min(dst_size_min) AS dst_size_min, max(dst_size_max) AS dst_size_max,
       min(dst_gap_min) AS dst_gap_min, (sum(dst_gap_mean * dst_packets)
           / sum(dst_packets) FILTER (dst_gap_mean IS NOT NULL))::FLOAT AS dst_gap_mean, max(dst_gap_max) AS dst_gap_max,
       (sum(dst_entropy * dst_packets) / sum(dst_packets) FILTER (dst_entropy IS NOT NULL))::FLOAT AS dst_entropy,
       arg_min(dst_head, part) AS dst_head,
       sum(src_packets + dst_packets)::BIGINT AS packets, sum(src_bytes + dst_bytes)::BIGINT AS bytes,
       (epoch_us(max(end_ts)) - epoch_us(min(ts))) / 1000000 AS duration_s,
       min(rtt_us) AS rtt_us, arg_max(outcome, part) AS outcome, arg_max(end_reason, part) AS end_reason,
       arg_max(app, part) AS app, arg_max(server_name, part) AS server_name, arg_max(encrypted, part) AS encrypted,
       sensor
FROM table_between('flows', since, until)
GROUP BY flow_id, sensor;

-- Who exchanged most? One row per pair of hosts, whoever began; largest first.
CREATE OR REPLACE MACRO top_conversations_between(since := NULL, until := NULL) AS TABLE
WITH by_app AS (
    SELECT least(src_ip, dst_ip) AS a_ip, greatest(src_ip, dst_ip) AS b_ip, app, count(*) AS flows,
           sum(CASE WHEN src_ip <= dst_ip THEN src_bytes ELSE dst_bytes END) AS a_bytes,
           sum(CASE WHEN src_ip <= dst_ip THEN dst_bytes ELSE src_bytes END) AS b_bytes,
           sum(packets) AS packets, min(ts) AS first_seen, max(end_ts) AS last_seen
    FROM connections_between(since, until) GROUP BY ALL)
SELECT a_ip, b_ip, sum(a_bytes + b_bytes)::BIGINT AS bytes, sum(a_bytes)::BIGINT AS a_bytes,
       sum(b_bytes)::BIGINT AS b_bytes, sum(packets)::BIGINT AS packets, sum(flows)::BIGINT AS flows,
       coalesce(list(app ORDER BY a_bytes + b_bytes DESC, app) FILTER (app IS NOT NULL), []) AS apps,
       min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM by_app GROUP BY a_ip, b_ip ORDER BY bytes DESC, a_ip, b_ip;

-- What does not work, and who scans? One row per client, server and port with at least one failure; most first.
-- A reset counts when the connection was accepted and then reset before the server sent any data: a reset later on is
-- how many programs hang up. `targets` is how many servers this client failed to reach on this port (a scan of hosts
-- when large), `target_ports` how many ports it failed to reach on this server (a scan of ports). Groups and broadcast
-- are left out: they are never answered.
CREATE OR REPLACE MACRO failed_connections_between(since := NULL, until := NULL) AS TABLE
WITH attempts AS (
    SELECT src_ip, dst_ip, dst_port, proto,
           count(*) FILTER (outcome = 'refused') AS refused, count(*) FILTER (outcome = 'unanswered') AS unanswered,
           count(*) FILTER (outcome = 'half-open') AS half_open,
           count(*) FILTER (outcome = 'reset' AND dst_payload = 0) AS reset, count(*) AS attempts,
           min(ts) AS first_seen, max(ts) AS last_seen
    FROM connections_between(since, until) GROUP BY ALL),
failures AS (
    SELECT *, refused + unanswered + half_open + reset AS failed FROM attempts WHERE failed > 0 AND NOT _is_group(dst_ip))
SELECT src_ip, dst_ip, dst_port, proto, failed, refused, unanswered, half_open, reset, attempts - failed AS succeeded,
       count(*) OVER (PARTITION BY src_ip, proto, dst_port) AS targets,
       count(*) OVER (PARTITION BY src_ip, proto, dst_ip) AS target_ports, first_seen, last_seen
FROM failures ORDER BY failed DESC, src_ip, dst_ip, dst_port;

-- What has been open for long? Tunnels, remote shells, streams; longest first. `open`: it went on when its last part
-- was written. An end reason of 'stop' or 'evicted' means that it was cut by us.
CREATE OR REPLACE MACRO long_connections_between(since := NULL, until := NULL) AS TABLE
SELECT duration_s, ts, end_ts, src_ip, src_port, dst_ip, dst_port, proto, app, server_name, bytes, src_bytes, dst_bytes,
       packets, parts, outcome, end_reason, end_reason = 'active' AS open, flow_id
FROM connections_between(since, until) ORDER BY duration_s DESC, ts, flow_id;
