"""The columns of the views that answer questions: their one definition, with type and meaning."""

from __future__ import annotations

from typing import Final, NamedTuple

from engine.flow_row import FLOWS
from engine.schema import SQL_TYPES

QUESTIONS: Final = {
    "connections": "What talked to what? Flows with their parts added up",
    "hosts": "Who is who?",
    "services": "What is served where?",
    "top_conversations": "Who exchanged most?",
    "long_connections": "What has been open for long?",
    "failed_connections": "What does not work, and who scans?",
    "beacons": "Who calls home, at regular times?",
    "dns_tunnels": "Who carries data in names?",
    "rare_certificates": "Which certificates does hardly anyone meet?",
    "rare_ja4": "Which TLS programs does hardly anyone have?",
    "new_hosts": "Who was not here before?",
    "new_services": "What is served that was not before?",
    "bytes_by_country": "Where do the bytes go?",
    "alerts": "What happened that somebody should look at?",
    "mutes": "What does nobody want to hear of?",
    "anomaly_minutes": "How unusual was traffic, minute by minute?",
    "anomaly_threshold": "What would a threshold on anomalies have raised?",
    "fleet": "How is each sensor?",
}


class QuestionColumn(NamedTuple):
    """A column of a view: its SQL type as DuckDB names it."""

    name: str
    type: str
    meaning: str


_SPAN: Final = """
first_seen TIMESTAMP First packet
last_seen TIMESTAMP Last packet
"""
_ENDPOINTS: Final = """
src_ip VARCHAR The client
dst_ip VARCHAR The server
dst_port INTEGER The server's port
proto SMALLINT Protocol number
"""
_PLACE: Final = """
country VARCHAR ISO 3166 code (GeoIP)
city VARCHAR City (GeoIP)
asn BIGINT Autonomous system (GeoIP, when the database has it)
as_org VARCHAR Its organisation
"""
_TEXTS: Final = {
    "hosts": f"""
ip VARCHAR The address
scope VARCHAR public, private, link_local, multicast and so on
{_SPAN}
mac VARCHAR The latest Ethernet address its frames came from; private and link-local addresses only
dhcp_name VARCHAR What it called itself in DHCP
mdns_name VARCHAR What it calls itself in multicast DNS
names VARCHAR[] DNS names that resolved to it, most frequent first, at most 20
server_names VARCHAR[] What clients called it (SNI, Host), most frequent first, at most 20
{_PLACE}
roles VARCHAR[] What it serves, as in "443/tcp tls", most bytes first, at most 10
clients BIGINT Hosts that it answered
servers BIGINT Hosts that answered it
bytes_sent BIGINT Bytes on the wire that it sent
bytes_received BIGINT Bytes on the wire that were sent to it
packets BIGINT Packets, both directions
flows BIGINT Flows, in either role
failed BIGINT Flows that it began and nobody accepted
ja4s VARCHAR[] Fingerprints of its TLS and QUIC programs, most frequent first, at most 10
""",
    "services": f"""
ip VARCHAR The server
service VARCHAR Port, transport and application: 443/tcp tls
port INTEGER Its port
proto SMALLINT Protocol number
app VARCHAR Application protocol by content; NULL when no flow of the port told it
clients BIGINT Hosts that were answered
flows BIGINT Flows
bytes BIGINT Bytes on the wire, both directions
bytes_sent BIGINT Sent by the server
bytes_received BIGINT Sent to the server
server_names VARCHAR[] What clients called it, at most 10, in alphabetical order
{_SPAN}
""",
    "top_conversations": f"""
a_ip VARCHAR One host; who began does not matter
b_ip VARCHAR The other
bytes BIGINT Bytes on the wire, both directions
a_bytes BIGINT Sent by a
b_bytes BIGINT Sent by b
packets BIGINT Packets, both directions
flows BIGINT Flows
apps VARCHAR[] Applications, most bytes first
{_SPAN}
""",
    "long_connections": """
duration_s DOUBLE From its first to its last packet
ts TIMESTAMP First packet
end_ts TIMESTAMP Last packet
src_ip VARCHAR The client
src_port INTEGER The client's port
dst_ip VARCHAR The server
dst_port INTEGER The server's port
proto SMALLINT Protocol number
app VARCHAR Application protocol
server_name VARCHAR The server as the client named it
bytes BIGINT Bytes on the wire, both directions
src_bytes BIGINT Sent by the client
dst_bytes BIGINT Sent by the server
packets BIGINT Packets, both directions
parts BIGINT Rows of `flows` that were added up
outcome VARCHAR As in `flows`, of the last part
end_reason VARCHAR As in `flows`, of the last part
open BOOLEAN It went on when its last part was written
flow_id BIGINT Joins flows, packets and application tables
""",
    "failed_connections": f"""
{_ENDPOINTS}
failed BIGINT The next four added up
refused BIGINT A reset or an ICMP error was the answer
unanswered BIGINT Nothing came back
half_open BIGINT The server accepted, the client never completed the handshake
reset BIGINT Accepted, then reset before the server sent any data
succeeded BIGINT All other flows of the same client, server and port
targets BIGINT Servers that this client failed to reach on this port: large for a scan of hosts
target_ports BIGINT Ports that this client failed to reach on this server: large for a scan of ports
first_seen TIMESTAMP First attempt
last_seen TIMESTAMP Last attempt
""",
    "beacons": f"""
score DOUBLE 0 random, 1 a clock that always sends the same; see the formula above
{_ENDPOINTS}
app VARCHAR Application protocol of the newest
server_name VARCHAR The server as the client named it, newest
flows BIGINT Connections
beats BIGINT Those that began at least a second after the one before
interval_s DOUBLE Median time between beats
interval_mad_s DOUBLE Median absolute deviation of it
interval_score DOUBLE How regular the times are, 0 to 1
size DOUBLE Median of the bytes that the client sent
size_mad DOUBLE Median absolute deviation of it
size_score DOUBLE How equal the sizes are, 0 to 1
coverage DOUBLE How much of the time from first to last the beats fill; 1 without gaps
bytes BIGINT Bytes on the wire, both directions
first_seen TIMESTAMP Start of the first
last_seen TIMESTAMP Start of the last
""",
    "dns_tunnels": """
domain VARCHAR The last two labels, or three below a country's second level
capacity BIGINT Bytes that the distinct names can have carried, about
names BIGINT Distinct names
queries BIGINT Queries
mean_length DOUBLE Mean length of what stands left of the domain, over the names
max_length BIGINT The longest
entropy DOUBLE Bits per character of what stands left of the domain, mean over the names
txt_null_share DOUBLE Share of queries for TXT and NULL records
nxdomain_share DOUBLE Share of queries whose name does not exist
request_bytes BIGINT Queries, DNS messages alone
response_bytes BIGINT Answers, DNS messages alone
clients BIGINT Hosts that asked
first_seen TIMESTAMP First query
last_seen TIMESTAMP Last query
""",
    "rare_certificates": """
hosts BIGINT Clients that met it
servers BIGINT Addresses that showed it
flows BIGINT Connections
subject VARCHAR Whom it is for
issuer VARCHAR Who signed it
self_signed BOOLEAN Both are the same
not_after TIMESTAMP Valid until
expired BOOLEAN It was shown after that
server_names VARCHAR[] Names asked for, at most 10
clients VARCHAR[] Clients, at most 10
addresses VARCHAR[] Servers, at most 10
cert_sha256 VARCHAR SHA-256 of the certificate
first_seen TIMESTAMP First shown
last_seen TIMESTAMP Last shown
""",
    "rare_ja4": """
ja4 VARCHAR Fingerprint of the client; t TLS, q QUIC, d DTLS
hosts BIGINT Hosts that have it
flows BIGINT Connections
servers BIGINT Servers it was shown to
clients VARCHAR[] Hosts, at most 10
server_names VARCHAR[] Names asked for, at most 10
first_seen TIMESTAMP First shown
last_seen TIMESTAMP Last shown
""",
    "new_hosts": f"""
first_seen TIMESTAMP First packet, or its first row in `addresses`
ip VARCHAR The address
scope VARCHAR public, private, link_local, multicast and so on
last_seen TIMESTAMP Last packet
mac VARCHAR The latest Ethernet address its frames came from; private and link-local addresses only
{_PLACE}
bytes_sent BIGINT Bytes on the wire that it sent
bytes_received BIGINT Bytes on the wire that were sent to it
watched_h DOUBLE Hours that the lake had been watching when it came
""",
    "new_services": """
first_seen TIMESTAMP First packet
ip VARCHAR The server
service VARCHAR Port, transport and application
port INTEGER Its port
proto SMALLINT Protocol number
app VARCHAR Application protocol by content
clients BIGINT Hosts that were answered
flows BIGINT Flows
bytes BIGINT Bytes on the wire, both directions
server_names VARCHAR[] What clients called it, at most 10
known_as VARCHAR[] Applications that the port was known for before; empty when the port is new
watched_h DOUBLE Hours that the lake had been watching when it came
""",
    "bytes_by_country": """
country VARCHAR ISO 3166 code; NULL when the GeoIP database does not know it, or there is none
country_name VARCHAR Its name
hosts BIGINT Addresses there
flows BIGINT Flows with an end there
bytes BIGINT Bytes on the wire, both directions
sent BIGINT Sent there
received BIGINT Came from there
""",
    "alerts": """
incident_id VARCHAR Name of the incident, for `engine alerts show`
first_seen TIMESTAMP When it began
last_seen TIMESTAMP Its newest finding
kind VARCHAR What it is: port_scan, syn_flood, signature and so on
severity VARCHAR low, medium, high or critical: the highest seen
src_ip VARCHAR Who does it; NULL where many would stand
dst_ip VARCHAR To whom; NULL where many would stand
count BIGINT Observations that it stands for
why VARCHAR The reason in one sentence with numbers
evidence VARCHAR JSON: newest numbers by name; `first`: of the beginning, `peak`: larger ones, `all`: different texts
confidence FLOAT 0 to 1
status VARCHAR open until somebody acknowledged it, then acknowledged
active BOOLEAN It still goes on
acknowledged_by VARCHAR The user who did
acknowledged_at TIMESTAMP When
note VARCHAR The newest remark
notes BIGINT How many remarks there are; all of them are in `alert_events`
dst_port BIGINT Port, when it was always the same
proto BIGINT Protocol number, when it was always the same
domain VARCHAR Domain, when it was always the same
source VARCHAR Interface, or savefile path
sensor VARCHAR The sensor that saw it; operator for those that somebody entered
flow_ids BIGINT[] Some of its flows
packets BIGINT[] frame_no of some of its packets within `source`
reported_by VARCHAR `engine`, or the user who entered it
""",
    "mutes": """
kind VARCHAR Incidents of this kind; NULL: of all
src_ip VARCHAR From this address or network; NULL: from all
dst_ip VARCHAR To this address or network; NULL: to all
muted_at TIMESTAMP Since when
muted_until TIMESTAMP Until when; NULL: until it is taken back
muted_by VARCHAR The user who did it
note VARCHAR Why
active BOOLEAN It still holds
""",
    "anomaly_minutes": """
ts TIMESTAMP Start of the minute
sensor VARCHAR The sensor that saw it
scored BIGINT Packets that a model gave an anomaly
p50 DOUBLE Half of them are below the bin that begins here
p90 DOUBLE Nine tenths are
p99 DOUBLE All but a hundredth are
top_anomaly FLOAT The largest
top_source VARCHAR Interface or savefile of the packet that had it
top_frame_no BIGINT Its frame_no there
above BIGINT Packets from the threshold on
threshold FLOAT `[scoring] threshold`
not_learned BIGINT Packets kept out of training, because an incident above low was open
model BIGINT Version of the model
psi FLOAT Stability index: below 0.1 traffic is what it learned, above 0.25 it is not
worst_feature VARCHAR The feature that changed most
worst_psi FLOAT Its index
""",
    "anomaly_threshold": """
threshold DOUBLE An anomaly
packets BIGINT Packets that had it or more
share DOUBLE Of all scored packets
usual_share DOUBLE What the model expects: so many of the packets that it learned from
minutes BIGINT Minutes that had such a packet
packets_per_hour DOUBLE Per hour in which packets were scored
""",
    "fleet": """
sensor VARCHAR Its name
last_counted TIMESTAMP End of its newest row of `capture_stats`, by its own clock
packets_per_s DOUBLE Frames received a second, in its last minute
received BIGINT Frames in the range; by default the last day
lost BIGINT Of them without a row, and those lost by the card
lost_share DOUBLE lost / received
version VARCHAR Of the program, when it ships
last_seen TIMESTAMP When it last told of its shipping, by the store's clock
lag_s DOUBLE Age of the oldest rows that were on their way then
clock_s DOUBLE How far its clock is ahead of the store's, to a second or so
waiting_bytes BIGINT What waited in its spool
not_shipped BIGINT Rows that its spool had to give up, ever
problem VARCHAR Why it could not ship
""",
}


def _columns(text: str) -> tuple[QuestionColumn, ...]:
    return tuple(QuestionColumn(*line.split(" ", 2)) for line in text.splitlines() if line)


def _connections() -> tuple[QuestionColumn, ...]:
    """Those of `flows` that can be added up, and how many were."""
    changed = {
        "ts": QuestionColumn("ts", "TIMESTAMP", "First packet"),
        "end_ts": QuestionColumn("end_ts", "TIMESTAMP", "Last packet"),
        "part": QuestionColumn("parts", "BIGINT", "Rows of `flows` that were added up"),
        "duration_s": QuestionColumn("duration_s", "DOUBLE", "From its first to its last packet"),
    }
    columns = [
        changed.get(c.name) or QuestionColumn(c.name, SQL_TYPES[c.type], c.meaning)
        for c in FLOWS
        if not c.name.endswith("size_mean")
    ]
    return (*columns, QuestionColumn("sensor", "VARCHAR", "The sensor that saw it"))


COLUMNS: Final = {name: _columns(_TEXTS[name]) if name in _TEXTS else _connections() for name in QUESTIONS}
