"""Sigma's log sources and field names as tables and columns of the lake.

Names: Sigma's taxonomy (https://sigmahq.io/docs/basics/log-sources.html, its appendix on fields), Sysmon's names in
`network_connection` and `dns_query`, Zeek's logs, and the usual ones of ECS. A name that is not here has no column, and
a rule that uses it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """An SQL expression, of the type text, number, bool, ip or texts (a list, of which any may match)."""

    sql: str
    type: str = "text"


@dataclass(frozen=True, slots=True)
class Source:
    """A log source: what is selected FROM, its fields, and the columns that a finding of it shows."""

    table: str
    shown: str
    fields: dict[str, Field] = field(hash=False)


def _fields(type_: str, **names: str) -> dict[str, Field]:
    """Names, separated by spaces, by the SQL they mean."""
    return {name: Field(sql, type_) for sql, text in names.items() for name in text.split()}


_PROTO: Final = (
    "CASE proto WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 58 THEN 'icmp6' WHEN 132 THEN 'sctp' "
    "ELSE proto::VARCHAR END"
)
_ENDS: Final = _fields(
    "ip",
    src_ip="src_ip SourceIp SourceAddress id.orig_h source.ip c-ip client_ip",
    dst_ip="dst_ip DestinationIp DestAddress id.resp_h destination.ip s-ip",
) | _fields(
    "number",
    src_port="src_port SourcePort id.orig_p source.port",
    dst_port="dst_port DestinationPort DestPort id.resp_p destination.port s-port",
)

CONNECTIONS: Final = Source(
    "connections",
    "proto, app, outcome, packets, src_bytes, dst_bytes, duration_s, server_name AS domain, source",
    _ENDS
    | {name: Field(_PROTO) for name in ("protocol", "Protocol", "proto", "network.transport")}
    | _fields(
        "text", app="network.protocol", community_id="community_id network.community_id",
        server_name="DestinationHostname dst_host destination.domain", src_mac="src_mac orig_l2_addr source.mac",
        dst_mac="dst_mac resp_l2_addr destination.mac", outcome="outcome",
    )
    | {"service": Field("CASE app WHEN 'tls' THEN 'ssl' ELSE app END")}  # as Zeek calls it
    | _fields(
        "number", duration_s="duration", src_payload="orig_bytes", dst_payload="resp_bytes",
        src_packets="orig_pkts source.packets", dst_packets="resp_pkts destination.packets",
        src_bytes="source.bytes", dst_bytes="destination.bytes", bytes="network.bytes", packets="network.packets",
        vlan="vlan network.vlan.id",
    ),
)  # fmt: skip

DNS: Final = Source(
    "dns",
    "query, query AS domain, qtype, rcode, array_to_string(answers[1:5], ' ') AS answers",
    _ENDS
    | _fields(
        "text", query="query QueryName dns.question.name", qtype="record_type qtype_name dns.question.type",
        rcode="rcode_name response_code dns.response_code",
    )
    | _fields("texts", answers="answer answers QueryResults dns.answers.data dns.resolved_ip")
    | {"question_length": Field("length(query)", "number"), "dns.answers.ttl": Field("ttl_min", "number")}
    | _fields("bool", authoritative="AA", truncated="TC", recursion_desired="RD", recursion_available="RA"),
)  # fmt: skip

_URL: Final = "CASE WHEN path LIKE '%://%' THEN path ELSE 'http://' || coalesce(host, '') || coalesce(path, '') END"
_STEM: Final = "split_part(path, '?', 1)"
HTTP: Final = Source(
    "http",
    "method, host, host AS domain, path, user_agent, status",
    _ENDS
    | _fields(
        "text", method="cs-method method http.request.method", host="cs-host host r-dns url.domain destination.domain",
        user_agent="c-useragent cs-user-agent user_agent user_agent.original", path="cs-uri cs-uri-query uri",
        referer="cs-referer cs-referrer referrer http.request.referrer", version="cs-version version http.version",
        content_type="resp_mime_types content_type", server="server", auth_scheme="auth_scheme",
    )
    | {
        "c-uri": Field(_URL), "url.original": Field(_URL), "url.full": Field(_URL),
        "cs-uri-stem": Field(_STEM), "c-uri-stem": Field(_STEM), "url.path": Field(_STEM),
        "c-uri-query": Field("nullif(substr(path, instr(path, '?') + 1), path)"),
        "url.query": Field("nullif(substr(path, instr(path, '?') + 1), path)"),
        "c-uri-extension": Field(rf"regexp_extract({_STEM}, '\.([^./]*)$', 1)"),
        "cs-uri-extension": Field(rf"regexp_extract({_STEM}, '\.([^./]*)$', 1)"),
    }
    | _fields(
        "number", status="sc-status status status_code http.response.status_code",
        request_bytes="request_body_len http.request.body.bytes",
        content_length="response_body_len http.response.body.bytes",
    ),
)  # fmt: skip

TLS: Final = Source(
    "tls",
    "sni, sni AS domain, version, ja3, ja4, cert_issuer, cert_subject",
    _ENDS
    | _fields(
        "text", sni="server_name sni tls.client.server_name", ja3="ja3 tls.client.ja3", ja3s="ja3s tls.server.ja3s",
        ja4="ja4", ja4s="ja4s",
        alpn="next_protocol tls.next_protocol",
        cert_subject="subject certificate.subject tls.server.subject",
        cert_issuer="issuer certificate.issuer tls.server.issuer", cert_sha256="cert_sha256 tls.server.hash.sha256",
    )
    | {"version": Field("replace(replace(version, 'TLS 1.', 'TLSv1'), 'SSL 3.0', 'SSLv3')")}  # as Zeek writes it
    | _fields("texts", cert_san="san.dns san_dns")
    | _fields("bool", resumed="resumed tls.resumed", cert_self_signed="cert_self_signed"),
)  # fmt: skip

CATEGORIES: Final = {
    "network": CONNECTIONS, "network_connection": CONNECTIONS, "firewall": CONNECTIONS, "netflow": CONNECTIONS,
    "dns": DNS, "dns_query": DNS, "proxy": HTTP, "webserver": HTTP, "tls": TLS,
}  # fmt: skip
ZEEK: Final = {"conn": CONNECTIONS, "dns": DNS, "http": HTTP, "ssl": TLS, "x509": TLS}


def source_of(category: str | None, product: str | None, service: str | None) -> Source | None:
    """The log source, or None when the lake has nothing like it."""
    if (product or "").lower() == "zeek":
        return ZEEK.get((service or "").lower()) if category is None or service else CATEGORIES.get(category.lower())
    if category is not None:
        return CATEGORIES.get(category.lower())
    return CATEGORIES.get(service.lower()) if service and product is None else None
