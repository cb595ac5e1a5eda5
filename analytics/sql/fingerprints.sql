-- Which certificates and which TLS programs are seldom? Malware brings its own TLS library and its own certificate:
-- what a single host has, where others share theirs, is worth a look. Rarest first.

-- One row per server certificate (TLS 1.2 and before: later ones are encrypted). `hosts` met it, `servers` showed it.
CREATE OR REPLACE MACRO rare_certificates_between(since := NULL, until := NULL) AS TABLE
SELECT count(DISTINCT src_ip) AS hosts, count(DISTINCT dst_ip) AS servers, count(DISTINCT flow_id) AS flows,
       _at_highest(cert_subject, ts) AS subject, _at_highest(cert_issuer, ts) AS issuer,
       coalesce(any_value(cert_subject) = any_value(cert_issuer), false) AS self_signed,
       any_value(cert_not_after) AS not_after, coalesce(any_value(cert_not_after) < max(ts), false) AS expired,
       coalesce(list_sort(list(DISTINCT sni) FILTER (sni IS NOT NULL))[:10], []) AS server_names,
       list_sort(list(DISTINCT src_ip))[:10] AS clients, list_sort(list(DISTINCT dst_ip))[:10] AS addresses,
       cert_sha256, min(ts) AS first_seen, max(ts) AS last_seen
FROM table_between('tls', since, until) WHERE cert_sha256 IS NOT NULL
GROUP BY cert_sha256 ORDER BY hosts, flows, cert_sha256;

-- One row per client fingerprint (JA4, FoxIO); over QUIC it begins with q.
CREATE OR REPLACE MACRO rare_ja4_between(since := NULL, until := NULL) AS TABLE
WITH hellos AS (
    SELECT ja4, src_ip, dst_ip, sni, flow_id, ts FROM table_between('tls', since, until)
    UNION ALL SELECT ja4, src_ip, dst_ip, sni, flow_id, ts FROM table_between('quic', since, until))
SELECT ja4, count(DISTINCT src_ip) AS hosts, count(DISTINCT flow_id) AS flows, count(DISTINCT dst_ip) AS servers,
       list_sort(list(DISTINCT src_ip))[:10] AS clients,
       coalesce(list_sort(list(DISTINCT sni) FILTER (sni IS NOT NULL))[:10], []) AS server_names,
       min(ts) AS first_seen, max(ts) AS last_seen
FROM hellos WHERE ja4 IS NOT NULL GROUP BY ja4 ORDER BY hosts, flows, ja4;
