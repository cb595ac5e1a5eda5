-- Who carries data in names? One row per domain, the one with the most data first.
--
-- A tunnel puts its upload into the labels left of a domain that it owns, and fetches its download as TXT or NULL
-- records, so every name is new, long and random. `capacity` is about how many bytes the names can have carried: for each
-- distinct name the length of its labels left of the domain, times the entropy of their characters (Shannon), / 8.
-- Ordinary domains have few names, tunnels thousands; content networks and telemetry lie between, with short names.
-- The domain is the last two labels, three where the last is a country's and the one before a kind (co.uk): near
-- enough to the public suffix list without one. Multicast names and reverse zones (arpa) are left out.
CREATE OR REPLACE MACRO _domain_labels(labels) AS
    CASE WHEN len(labels) > 2 AND length(labels[-1]) = 2
              AND labels[-2] IN ('co', 'com', 'net', 'org', 'gov', 'gob', 'edu', 'ac', 'or', 'ne', 'go', 'mil', 'nom')
         THEN 3 ELSE 2 END;

CREATE OR REPLACE MACRO dns_tunnels_between(since := NULL, until := NULL) AS TABLE
WITH asked AS (
    SELECT string_split(lower(query), '.') AS labels, count(*) AS queries,
           count(*) FILTER (qtype IN ('TXT', 'NULL')) AS txt, count(*) FILTER (rcode = 'NXDOMAIN') AS nxdomain,
           sum(request_bytes) AS request_bytes, sum(response_bytes) AS response_bytes,
           list(DISTINCT src_ip) AS clients, min(ts) AS first_seen, max(ts) AS last_seen
    FROM table_between('dns', since, until)
    WHERE query IS NOT NULL AND coalesce(dst_port, 53) NOT IN (5353, 5355) AND coalesce(src_port, 0) <> 5353
    GROUP BY lower(query)),
cut AS (
    SELECT * EXCLUDE (labels), array_to_string(labels[len(labels) - _domain_labels(labels) + 1:], '.') AS domain,
           array_to_string(labels[1:(len(labels) - _domain_labels(labels))], '.') AS host
    FROM asked WHERE len(labels) >= 2 AND labels[-1] <> 'arpa'),
names AS (SELECT *, coalesce(list_aggregate(string_split(host, ''), 'entropy'), 0) AS entropy FROM cut WHERE host <> '')
SELECT domain, round(sum(length(host) * entropy / 8))::BIGINT AS capacity, count(*) AS names,
       sum(queries)::BIGINT AS queries, round(avg(length(host)), 1) AS mean_length, max(length(host)) AS max_length,
       round(avg(entropy), 2) AS entropy, round(sum(txt) / sum(queries), 3) AS txt_null_share,
       round(sum(nxdomain) / sum(queries), 3) AS nxdomain_share,
       sum(request_bytes)::BIGINT AS request_bytes, sum(response_bytes)::BIGINT AS response_bytes,
       len(list_distinct(flatten(list(clients)))) AS clients, min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM names GROUP BY domain ORDER BY capacity DESC, domain;
