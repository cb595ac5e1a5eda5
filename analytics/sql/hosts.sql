-- Who is who: one row per address, with everything the lake knows about it.
--
-- `mac` is only given for private and link-local addresses: frames of a remote host carry the router's. Behind a router
-- even those do, so one mac with many addresses is a router. If an address had several, the latest. `dhcp_name` is what
-- the client called itself that last got this address, or else the one with this mac. `names` are DNS names that
-- resolved to it, `server_names` what clients called it (SNI, Host), both most used first and at most 20; `roles` are
-- the served ports with most bytes, at most 10; `ja4s` its own TLS programs, at most 10. `clients` were answered by it,
-- `servers` answered it, `failed` counts its connections that nobody accepted.
-- Addresses that only ever stood in ARP or in a tunnel's outer header have no flows: zeros.
CREATE OR REPLACE MACRO hosts_between(since := NULL, until := NULL) AS TABLE
WITH pairs AS MATERIALIZED (
    SELECT src_ip, dst_ip, outcome IN ('established', 'answered', 'reset') AS answered, count(*) AS flows,
           sum(src_bytes) AS src_bytes, sum(dst_bytes) AS dst_bytes,
           sum(src_packets) AS src_packets, sum(dst_packets) AS dst_packets,
           min(ts) AS first_seen, max(end_ts) AS last_seen,
           _at_highest(src_mac, end_ts) AS src_mac, _at_highest(dst_mac, end_ts) AS dst_mac
    FROM connections_between(since, until) GROUP BY ALL),
sides AS (
    SELECT src_ip AS ip, dst_ip AS peer, true AS client, answered, flows, src_bytes AS sent, dst_bytes AS received,
           src_packets + dst_packets AS packets, first_seen, last_seen, src_mac AS mac FROM pairs
    UNION ALL
    SELECT dst_ip, src_ip, false, answered, flows, dst_bytes, src_bytes, src_packets + dst_packets, first_seen,
           CASE WHEN dst_packets > 0 THEN last_seen END, dst_mac FROM pairs),
totals AS (
    SELECT ip, min(first_seen) AS first_seen, max(last_seen) AS last_seen, _at_highest(mac, last_seen) AS mac,
           count(DISTINCT peer) FILTER (answered AND NOT client) AS clients,
           count(DISTINCT peer) FILTER (answered AND client) AS servers,
           sum(flows) AS flows, sum(flows) FILTER (client AND NOT answered) AS failed,
           sum(sent) AS sent, sum(received) AS received, sum(packets) AS packets
    FROM sides GROUP BY ip),
listed AS (
    SELECT ip, min(first_seen) AS first_seen FROM addresses
    WHERE (since IS NULL OR first_seen >= since::TIMESTAMP) AND (until IS NULL OR first_seen < until::TIMESTAMP)
      AND _from(date, hour, since) AND _to(date, hour, until)
    GROUP BY ip),
located AS (
    SELECT ip, unnest(_geo(ip)), least(t.first_seen, l.first_seen) AS first_seen,
           coalesce(t.last_seen, t.first_seen, l.first_seen) AS last_seen, mac, clients, servers, flows, failed, sent,
           received, packets
    FROM totals AS t FULL JOIN listed AS l USING (ip)),
served AS (SELECT ip, list(service ORDER BY bytes DESC, service)[:10] AS roles FROM services_between(since, until) GROUP BY ip),
addressed AS (
    SELECT ip, list(name ORDER BY n DESC, name)[:20] AS names
    FROM (SELECT dst_ip AS ip, server_name AS name, count(*) AS n FROM table_between('flows', since, until)
          WHERE server_name IS NOT NULL AND NOT _asks_names(app) GROUP BY ALL)
    GROUP BY ip),
resolved AS (  -- 5353 is mDNS, where a host tells its own name
    SELECT ip, (list(name ORDER BY n DESC, name) FILTER (NOT multicast))[:20] AS names,
           _at_highest(CASE WHEN multicast THEN name END, told) AS mdns_name
    FROM (SELECT ip, name, multicast, count(*) AS n, max(ts) AS told
          FROM (SELECT unnest(answers) AS ip, lower(query) AS name, ts,
                       coalesce(dst_port = 5353 OR src_port = 5353, false) AS multicast
                FROM table_between('dns', since, until) WHERE qtype IN ('A', 'AAAA') AND query IS NOT NULL)
          GROUP BY ALL)
    GROUP BY ip),
dhcp_client AS (  -- the name stands in what the client sends, the address mostly in the answer
    SELECT coalesce(lower(client_mac), client_id) AS client, coalesce(assigned_ip, requested_ip, client_ip) AS ip,
           host_name AS name, message_type IN ('ACK', 'REPLY', 'REQUEST', 'RENEW', 'INFORM') AS final, ts
    FROM table_between('dhcp', since, until)),
leased AS (SELECT ip, _at_highest(client, ts) AS client FROM dhcp_client WHERE final AND ip IS NOT NULL GROUP BY ip),
named AS (SELECT client, _at_highest(name, ts) AS name FROM dhcp_client WHERE client IS NOT NULL GROUP BY client),
hello AS (
    SELECT ip, list(ja4 ORDER BY n DESC, ja4)[:10] AS ja4s
    FROM (SELECT src_ip AS ip, ja4, count(*) AS n
          FROM (SELECT src_ip, ja4 FROM table_between('tls', since, until)
                UNION ALL SELECT src_ip, ja4 FROM table_between('quic', since, until))
          WHERE ja4 IS NOT NULL GROUP BY ALL)
    GROUP BY ip),
described AS (SELECT * REPLACE (CASE WHEN scope IN ('private', 'link_local') THEN mac END AS mac) FROM located)
SELECT d.ip, scope, d.first_seen, d.last_seen, d.mac, coalesce(by_lease.name, by_mac.name) AS dhcp_name, mdns_name,
       coalesce(resolved.names, []) AS names, coalesce(addressed.names, []) AS server_names,
       country, city, asn, as_org, coalesce(roles, []) AS roles,
       coalesce(clients, 0) AS clients, coalesce(servers, 0) AS servers, coalesce(sent, 0)::BIGINT AS bytes_sent,
       coalesce(received, 0)::BIGINT AS bytes_received, coalesce(packets, 0)::BIGINT AS packets,
       coalesce(flows, 0)::BIGINT AS flows, coalesce(failed, 0)::BIGINT AS failed, coalesce(ja4s, []) AS ja4s
FROM described AS d
LEFT JOIN served USING (ip) LEFT JOIN addressed USING (ip) LEFT JOIN resolved USING (ip) LEFT JOIN leased USING (ip)
LEFT JOIN hello USING (ip) LEFT JOIN named AS by_lease ON by_lease.client = leased.client
LEFT JOIN named AS by_mac ON by_mac.client = d.mac;

-- Who was not here before? Addresses first seen in the range, by default in the last 24 hours of the lake's time, and
-- at no time before; newest first. `watched_h` is how many hours the lake had looked when it came: few say little.
CREATE OR REPLACE MACRO new_hosts_between(since := NULL, until := NULL) AS TABLE
WITH seen AS (
    SELECT src_ip AS ip, ts, end_ts, src_bytes AS sent, dst_bytes AS received, src_mac AS mac
    FROM table_between('flows', NULL, until)
    UNION ALL
    SELECT dst_ip, ts, CASE WHEN dst_packets > 0 THEN end_ts END, dst_bytes, src_bytes, dst_mac
    FROM table_between('flows', NULL, until)
    UNION ALL
    SELECT ip, first_seen, NULL, 0, 0, NULL FROM addresses
    WHERE (until IS NULL OR first_seen < until::TIMESTAMP) AND _to(date, hour, until)),
hosts AS MATERIALIZED (
    SELECT ip, min(ts) AS first_seen, coalesce(max(end_ts), max(ts)) AS last_seen, sum(sent)::BIGINT AS bytes_sent,
           sum(received)::BIGINT AS bytes_received, _at_highest(mac, end_ts) AS mac
    FROM seen GROUP BY ip),
range AS (
    SELECT coalesce(since::TIMESTAMP, max(last_seen) - INTERVAL 24 HOUR) AS begins, min(first_seen) AS oldest FROM hosts),
located AS (SELECT *, unnest(_geo(ip)) FROM hosts, range WHERE first_seen >= begins)
SELECT first_seen, ip, scope, last_seen, CASE WHEN scope IN ('private', 'link_local') THEN mac END AS mac,
       country, city, asn, as_org, bytes_sent, bytes_received, round((epoch_us(first_seen) - epoch_us(oldest)) / 3.6e9, 1) AS watched_h
FROM located ORDER BY first_seen DESC, ip;

-- Where do the bytes go? One row per country, most bytes first; `sent` went there, `received` came from there. Public
-- addresses only; NULL when the GeoIP database does not know the address, or there is none. A connection between two
-- countries counts in both.
CREATE OR REPLACE MACRO bytes_by_country_between(since := NULL, until := NULL) AS TABLE
WITH pairs AS MATERIALIZED (
    SELECT src_ip, dst_ip, count(*) AS flows, sum(src_bytes) AS src_bytes, sum(dst_bytes) AS dst_bytes
    FROM connections_between(since, until) GROUP BY ALL),
ends AS (
    SELECT ip, sum(flows) AS flows, sum(sent) AS sent, sum(received) AS received
    FROM (SELECT dst_ip AS ip, flows, src_bytes AS sent, dst_bytes AS received FROM pairs
          UNION ALL SELECT src_ip, flows, dst_bytes, src_bytes FROM pairs) GROUP BY ip),
located AS (SELECT *, unnest(_geo(ip)) FROM ends)
SELECT country, any_value(country_name) AS country_name, count(*) AS hosts, sum(flows)::BIGINT AS flows,
       sum(sent + received)::BIGINT AS bytes, sum(sent)::BIGINT AS sent, sum(received)::BIGINT AS received
FROM located WHERE scope = 'public' GROUP BY country ORDER BY bytes DESC, country;
