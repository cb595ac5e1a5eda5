-- Addresses as text, in SQL: `src_ip <<= '10.0.0.0/8'`, `in_net(src_ip, '2001:db8::/32')`, `ORDER BY ip_key(src_ip)`.
-- Pure SQL on purpose: no inet extension exists for every DuckDB we run on, and a Python function would cost a call
-- per row. A constant network folds to one constant regular expression when the query is planned, which DuckDB matches
-- against each entry of a Parquet dictionary, so about once per distinct address and not once per row.
-- `list_transform([value], lambda name: ...)[1]` is SQL's way to name a value: a macro repeats its arguments' text,
-- and without names the plan grows with every nesting. NULL in, NULL out. Host bits of a network are ignored.

-- 32 hex digits of an IPv6 address that has no dotted tail: '::' becomes the groups it stands for (an address has
-- seven colons), four zeros are put before each group, and the last four digits of each are kept.
CREATE OR REPLACE MACRO _hex6_plain(x) AS regexp_replace(
    replace(':' || replace(x, '::', ':' || repeat('0:', 8 - length(x) + length(replace(x, ':', '')))), ':', ':0000'),
    ':[0-9a-f]*?([0-9a-f]{4})\b', '\1', 'g');

-- 8 hex digits of an IPv4 address. TRY_CAST: this is also evaluated for text that is none.
CREATE OR REPLACE MACRO _hex4(x) AS format('{:02x}{:02x}{:02x}{:02x}',
    TRY_CAST(split_part(x, '.', 1) AS UTINYINT), TRY_CAST(split_part(x, '.', 2) AS UTINYINT),
    TRY_CAST(split_part(x, '.', 3) AS UTINYINT), TRY_CAST(split_part(x, '.', 4) AS UTINYINT));

-- 32 hex digits of an IPv6 address, also as ::ffff:192.0.2.1; meaningless for other text.
CREATE OR REPLACE MACRO _hex6(x) AS
    CASE WHEN contains(x, '.')
         THEN _hex6_plain(lower(regexp_extract(x, '^(.*:)[^:]*$', 1)) || '0:0')[1:24] || _hex4(regexp_extract(x, '[^:]*$'))
         ELSE _hex6_plain(lower(x)) END;

CREATE OR REPLACE MACRO _is_v4(x) AS regexp_full_match(x,
    '(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])');

-- Groups, at most one '::', perhaps a dotted tail; and they make exactly 128 bits.
CREATE OR REPLACE MACRO _is_v6(x) AS
    contains(x, ':') AND length(_hex6(x)) = 32 AND regexp_full_match(x,
    '(?i)(?:(?:[0-9a-f]{1,4}:)*[0-9a-f]{1,4})?(?:::(?:(?:[0-9a-f]{1,4}:)*[0-9a-f]{1,4})?)?(?::?[0-9]+(?:\.[0-9]+){3})?');

-- Text that sorts as addresses do, IPv4 before IPv6; NULL for text that is no address.
CREATE OR REPLACE MACRO ip_key(x) AS
    CASE WHEN _is_v4(x) THEN '4' || _hex4(x) WHEN _is_v6(x) THEN '6' || _hex6(x) END;

-- The regular expression of the addresses in an IPv4 network {octets, bits}: whole octets, then the alternatives
-- the prefix leaves of the next one (/12 of 172.16 -> 16|17|...|31), then anything.
CREATE OR REPLACE MACRO _pattern4(net) AS array_to_string(list_concat(
    net.octets[1 : net.bits // 8],
    CASE WHEN net.bits % 8 > 0 THEN [list_transform(
        [{first: TRY_CAST(net.octets[net.bits // 8 + 1] AS BIGINT), width: 1 << (8 - net.bits % 8)}],
        lambda o: '(?:' || array_to_string(range(o.first // o.width * o.width, (o.first // o.width + 1) * o.width), '|') || ')'
    )[1]] ELSE [] END,
    array_resize([]::VARCHAR[], 4 - (net.bits + 7) // 8, '[0-9]{1,3}')), '\.');

-- The same for an IPv6 network {hex, bits}, over the 32 digits.
CREATE OR REPLACE MACRO _pattern6(net) AS net.hex[1 : net.bits // 4] ||
    CASE WHEN net.bits % 4 > 0 THEN list_transform(
        [{first: instr('0123456789abcdef', net.hex[net.bits // 4 + 1]) - 1, width: 1 << (4 - net.bits % 4)}],
        lambda d: '[' || substr('0123456789abcdef', d.first // d.width * d.width + 1, d.width) || ']')[1] ELSE '' END ||
    '[0-9a-f]*';

CREATE OR REPLACE MACRO _not_a_net(net) AS
    error('''' || net || ''' is not a network; write an address and a prefix length, as in 10.0.0.0/8 or 2001:db8::/32');

-- What an address must look like to be in the network, both families; NULL when the text is no network. No error()
-- in here: it would keep DuckDB from folding this to a constant.
CREATE OR REPLACE MACRO _net_pattern(net) AS list_transform([{
        text: net,
        address: split_part(net, '/', 1),
        bits: CASE WHEN contains(net, '/') THEN TRY_CAST(regexp_extract(net, '^[^/]*/([0-9]{1,3})$', 1) AS INTEGER)
                   WHEN contains(net, ':') THEN 128 ELSE 32 END
    }], lambda n:
        CASE WHEN _is_v4(n.address) AND n.bits <= 32 THEN _pattern4({octets: string_split(n.address, '.'), bits: n.bits})
             WHEN _is_v6(n.address) AND n.bits <= 128 THEN _pattern6({hex: _hex6(n.address), bits: n.bits})
             END)[1];

-- This form and no other: with the error in a branch of its own, all of it folds. An IPv4 address is no match for the
-- digits of an IPv6 network, so it is compared as '-'.
CREATE OR REPLACE MACRO in_net(x, net) AS
    CASE WHEN net IS NULL THEN NULL
         WHEN _net_pattern(net) IS NULL THEN _not_a_net(net)
         ELSE regexp_full_match(
             CASE WHEN contains(net, ':') THEN CASE WHEN contains(x, ':') THEN _hex6(x) WHEN x IS NOT NULL THEN '-' END
                  ELSE x END,
             _net_pattern(net)) END;

CREATE OR REPLACE MACRO "<<="(x, net) AS in_net(x, net);
