-- Time ranges, and small helpers of the views that answer questions (the other files here).
--
--     FROM table_between('packets', '2026-11-24 12:00', '2026-11-24 13:00')
--     FROM hosts_between(now() - INTERVAL 1 HOUR, NULL)
--
-- `since` is inside the range, `until` is not; NULL leaves that side open. Any constant expression will do, now() too.
-- Every answer is a macro <name>_between(since, until), because a condition on an aggregated view cannot reach the
-- scan below it; the view <name> is the same over the whole lake, except where its comment says otherwise.

-- Segments are filed by the hour of their rows' time, so conditions on date and hour leave the others unopened: they
-- are evaluated from the file names when the query is planned. These four forms are cheap and fold when a side is open.
CREATE OR REPLACE MACRO _from(date, hour, since) AS
    (since IS NULL OR date >= since::DATE) AND (since IS NULL OR date > since::DATE OR hour >= hour(since::TIMESTAMP));
CREATE OR REPLACE MACRO _to(date, hour, until) AS
    (until IS NULL OR date <= until::DATE) AND (until IS NULL OR date < until::DATE OR hour <= hour(until::TIMESTAMP));

-- The value where `rank` is highest, rows with NULL in either passed over; of equal rank the largest value, since an
-- engine's own choice among them depends on the order in which it reads. `arg_max` alone is for ranks that differ,
-- such as the parts of a flow.
CREATE OR REPLACE MACRO _at_highest(value, rank) AS
    arg_max(value, (rank, value)) FILTER (value IS NOT NULL AND rank IS NOT NULL);

-- 443/tcp; a protocol number where there is no name. Numbers: IANA protocol numbers.
CREATE OR REPLACE MACRO _transport(proto) AS
    CASE proto WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 132 THEN 'sctp' WHEN 33 THEN 'dccp' WHEN 136 THEN 'udplite'
         WHEN 1 THEN 'icmp' WHEN 58 THEN 'icmpv6' ELSE proto::VARCHAR END;

-- Groups (RFC 5771, RFC 4291) and the limited broadcast: nobody answers from such an address.
CREATE OR REPLACE MACRO _is_group(ip) AS
    regexp_matches(ip, '^(?:22[4-9]|23[0-9])\.|^255\.255\.255\.255$|^ff[0-9a-f]{2}:');

-- Applications whose server_name is the name asked about, and not a name of the server.
CREATE OR REPLACE MACRO _asks_names(app) AS coalesce(app IN ('dns', 'mdns', 'llmnr', 'nbns'), false);
