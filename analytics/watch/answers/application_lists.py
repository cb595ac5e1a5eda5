"""What the pages about applications count: for each table its series over time, its key figures and its lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CLIENTS: Final = "count(DISTINCT src_ip) AS clients"
_SIZE: Final = "sum(coalesce(content_length, 0))::BIGINT"
_NAMES: Final = "approx_count_distinct(lower(sni))"
_QUANTILES: Final = {f"latency_p{p}_us": f"quantile_cont(latency_us, {p / 100})::BIGINT" for p in (50, 95, 99)}
WARN_DAYS: Final = 30  # a certificate that ends so soon is worth a word


@dataclass(frozen=True, slots=True)
class Counted:
    """The values of an expression, the most frequent first; `more` are further columns, `where` restricts the rows."""

    expression: str
    name: str
    more: str = ""
    where: str = ""
    order: str = "count DESC"


@dataclass(frozen=True, slots=True)
class Application:
    """`series`: condition of each, in the order of the stack; every row is in just one. `columns`: of its rows."""

    columns: str
    series: dict[str, str]
    totals: dict[str, str]
    lists: dict[str, Counted]
    latency: bool = False


_CERTIFICATES: Final = Counted(
    "cert_sha256", "sha256",
    "any_value(cert_subject) AS subject, any_value(cert_issuer) AS issuer, any_value(cert_not_before) AS not_before, "
    "any_value(cert_not_after) AS not_after, bool_or(cert_self_signed) AS self_signed, "
    "count(DISTINCT dst_ip) AS servers, count(DISTINCT src_ip) AS clients, max(ts) AS last_seen, "
    f"any_value(cert_not_after) < max(ts) + INTERVAL {WARN_DAYS} DAY AS ends_soon",
    order="(ends_soon OR self_signed) DESC, not_after",
)  # fmt: skip

APPLICATIONS: Final[dict[str, Application]] = {
    "dns": Application(
        columns="query, qtype, rcode, answers, latency_us",
        series={
            "Answered": "rcode = 'NOERROR'", "NXDOMAIN": "rcode = 'NXDOMAIN'",
            "Error": "rcode NOT IN ('NOERROR', 'NXDOMAIN')", "No answer": "rcode IS NULL",
        },
        totals={
            "count": "count(*)", "answered": "count(*) FILTER (answered)", "unanswered": "count(*) FILTER (NOT answered)",
            "nxdomain": "count(*) FILTER (rcode = 'NXDOMAIN')", "errors": "count(*) FILTER (rcode <> 'NOERROR')",
            "names": "approx_count_distinct(lower(query))", "clients": "count(DISTINCT src_ip)",
            "servers": "count(DISTINCT dst_ip)", **_QUANTILES,
        },
        lists={
            "names": Counted("lower(query)", "name", _CLIENTS),
            "failing": Counted("lower(query)", "name", _CLIENTS, where="rcode <> 'NOERROR'"),
            "rcodes": Counted("coalesce(rcode, 'none')", "rcode"),
            "types": Counted("qtype", "qtype"),
            "servers": Counted("dst_ip", "server", "quantile_cont(latency_us, 0.5)::BIGINT AS p50_us"),
            "clients": Counted("src_ip", "client", "approx_count_distinct(lower(query)) AS names"),
        },
        latency=True,
    ),
    "tls": Application(
        columns="sni, version, cipher, alpn, ja3, ja4, ja4s, resumed, alert, cert_subject, cert_issuer, cert_not_after, "
        "cert_self_signed, cert_sha256",
        series={
            "TLS 1.3": "alert IS NULL AND version = 'TLS 1.3'", "TLS 1.2": "alert IS NULL AND version = 'TLS 1.2'",
            "Other version": "alert IS NULL AND (version IS NULL OR version NOT IN ('TLS 1.3', 'TLS 1.2'))",
            "Alert": "alert IS NOT NULL",
        },
        totals={
            "count": "count(*)", "names": _NAMES, "clients": "count(DISTINCT src_ip)",
            "servers": "count(DISTINCT dst_ip)", "resumed": "count(*) FILTER (resumed)", "alerts": "count(alert)",
            "old": "count(*) FILTER (version IN ('TLS 1.1', 'TLS 1.0', 'SSL 3.0', 'SSL 2.0', 'DTLS 1.0'))",
            "certificates": "count(DISTINCT cert_sha256)",
            "self_signed": "count(DISTINCT cert_sha256) FILTER (cert_self_signed)",
            "expired": "count(DISTINCT cert_sha256) FILTER (cert_not_after < ts)",
            "ends_soon": f"count(DISTINCT cert_sha256) FILTER (cert_not_after < ts + INTERVAL {WARN_DAYS} DAY)",
            "questionable": "count(DISTINCT cert_sha256) FILTER (cert_self_signed OR "
            f"cert_not_after < ts + INTERVAL {WARN_DAYS} DAY)",
            "fingerprints": "count(DISTINCT ja4)",
        },
        lists={
            "names": Counted("lower(sni)", "name", _CLIENTS),
            "versions": Counted("version", "version"),
            "ciphers": Counted("cipher", "cipher"),
            "ja4": Counted("ja4", "ja4", _CLIENTS),
            "ja3": Counted("ja3", "ja3", _CLIENTS),
            "ja4s": Counted("ja4s", "ja4s", "count(DISTINCT dst_ip) AS servers"),
            "alpn": Counted("alpn", "alpn"),
            "certificates": _CERTIFICATES,
            "servers": Counted("dst_ip", "server", _CLIENTS),
        },
    ),
    "http": Application(
        columns="method, host, path, status, content_type, content_length, user_agent, server, latency_us",
        series={
            "2xx": "status BETWEEN 200 AND 299", "3xx": "status BETWEEN 300 AND 399",
            "4xx": "status BETWEEN 400 AND 499", "5xx": "status BETWEEN 500 AND 599",
            "Other": "status < 200 OR status > 599", "No response": "status IS NULL",
        },
        totals={
            "count": "count(*)", "hosts": "count(DISTINCT lower(host))", "clients": "count(DISTINCT src_ip)",
            "servers": "count(DISTINCT dst_ip)", "errors": "count(*) FILTER (status >= 400)",
            "failed": "count(*) FILTER (status >= 500)", "bytes": f"coalesce({_SIZE}, 0)",
            "with_credentials": "count(*) FILTER (has_credentials)", "agents": "count(DISTINCT user_agent)", **_QUANTILES,
        },
        lists={
            "hosts": Counted("lower(host)", "host", f"{_CLIENTS}, {_SIZE} AS bytes"),
            "paths": Counted("path", "path", _CLIENTS),
            "statuses": Counted("status", "status"),
            "methods": Counted("method", "method"),
            "agents": Counted("user_agent", "user_agent", _CLIENTS),
            "software": Counted("server", "server", "count(DISTINCT dst_ip) AS servers"),
            "types": Counted("content_type", "content_type", f"{_SIZE} AS bytes"),
            "servers": Counted("dst_ip", "server", "quantile_cont(latency_us, 0.5)::BIGINT AS p50_us"),
            "clients": Counted("src_ip", "client", f"{_SIZE} AS bytes"),
        },
        latency=True,
    ),
    "quic": Application(
        columns="sni, version, cipher, alpn, ja3, ja4, user_agent, resumed, early_data",
        series={
            "Full handshake": "resumed IS NOT TRUE AND early_data IS NOT TRUE",
            "Resumed": "resumed AND early_data IS NOT TRUE", "Early data": "early_data",
        },
        totals={
            "count": "count(*)", "names": _NAMES, "clients": "count(DISTINCT src_ip)",
            "servers": "count(DISTINCT dst_ip)", "resumed": "count(*) FILTER (resumed)",
            "early_data": "count(*) FILTER (early_data)", "unnamed": "count(*) FILTER (sni IS NULL)",
            "fingerprints": "count(DISTINCT ja4)",
        },
        lists={
            "names": Counted("lower(sni)", "name", _CLIENTS),
            "versions": Counted("version", "version"),
            "ciphers": Counted("cipher", "cipher"),
            "alpn": Counted("alpn", "alpn"),
            "ja4": Counted("ja4", "ja4", _CLIENTS),
            "ja3": Counted("ja3", "ja3", _CLIENTS),
            "agents": Counted("user_agent", "user_agent", _CLIENTS),
            "servers": Counted("dst_ip", "server", _CLIENTS),
        },
    ),
}  # fmt: skip
