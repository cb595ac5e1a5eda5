"""The table `alert_events`: every change of an incident, and every word of an operator about one.

Rows are only ever added, by the engine and by whoever works with alerts, at the same time and without a lock. The view
`alerts` is the newest state of each incident.
"""

from __future__ import annotations

from typing import Final

from engine.schema import Column

SEVERITIES: Final = ("low", "medium", "high", "critical")
ENGINE: Final = "engine"  # as an actor
OPERATORS: Final = "operator"  # the `sensor=` directory of what people write: readers of mutes look only there
STATES: Final = ("opened", "updated", "closed", "manual")  # events that hold the whole incident
EVENT_MEANINGS: Final = (
    ("opened", "The engine saw the first finding of an incident"),
    ("updated", "More findings; the row holds the incident as it is now"),
    ("closed", "No finding came within the cooldown, or the run ended"),
    ("suppressed", "Findings that did not become incidents, by a suppression or a mute: `count` of them"),
    ("acknowledged", "Somebody deals with the incident, or has"),
    ("reopened", "Taken back: nobody does"),
    ("note", "A remark, in `note`"),
    ("muted", "Findings of `kind`, from `src_ip`, to `dst_ip` (networks; NULL is any) make no incidents until `until`"),
    ("unmuted", "A mute of the same kind, source and destination ends"),
    ("manual", "Somebody entered an incident"),
)

_EVERY: Final = "engine, or as given for a manual alert"
# fmt: off
ALERT_EVENTS: Final[tuple[Column, ...]] = (
    Column("ts", "timestamp", "UTC", "When it happened: by the packets' clock for events of the engine, else the machine's", "engine, operator"),
    Column("incident_id", "text", "", "The incident, a name that no other has, in any run or sensor; NULL for mutes and suppressions", "engine, operator", nullable=True),
    Column("event", "text", "", "opened, updated, closed, acknowledged and so on, see below", "engine, operator"),
    Column("actor", "text", "", "`engine`, or the user who did it", "engine, operator"),
    Column("revision", "int64", "", "Counts the incident's states: the largest is the newest; NULL for what operators say of it", "engine", nullable=True),
    Column("kind", "text", "", "What it is: port_scan, syn_flood, signature and so on", _EVERY, nullable=True),
    Column("severity", "text", "", "low, medium, high or critical: the highest seen", _EVERY, nullable=True),
    Column("confidence", "float32", "", "0 to 1: the highest seen", "detector", nullable=True),
    Column("why", "text", "", "The reason in one sentence with numbers, of the newest finding", "detector", nullable=True),
    Column("src_ip", "text", "", "Who does it; NULL where many would stand. A network for mutes", "detector", nullable=True),
    Column("dst_ip", "text", "", "To whom; NULL where many would stand. A network for mutes", "detector", nullable=True),
    Column("dst_port", "int64", "", "Port, when it was the same in all findings", "detector", nullable=True),
    Column("proto", "int64", "", "Protocol number, when it was the same in all findings", "detector", nullable=True),
    Column("domain", "text", "", "Domain, when it was the same in all findings", "detector", nullable=True),
    Column("source", "text", "", "Interface, or savefile path, of the first finding", "capture", nullable=True),
    Column("first_seen", "timestamp", "UTC", "When it began", "detector", nullable=True),
    Column("last_seen", "timestamp", "UTC", "Newest finding", "detector", nullable=True),
    Column("count", "int64", "", "Observations that it stands for", "detector", nullable=True),
    Column("evidence", "text", "", "JSON: the newest numbers by name; under `first` what differed at the beginning, under `peak` what was larger, under `all` different texts", "detector", nullable=True),
    Column("flow_ids", "int64s", "", "Some of its flows, first and newest", "detector", nullable=True),
    Column("packets", "int64s", "", "frame_no of some of its packets within `source`, first and newest", "detector", nullable=True),
    Column("note", "text", "", "What an operator remarked", "operator", nullable=True),
    Column("until", "timestamp", "UTC", "When a mute ends; NULL: when it is taken back", "operator", nullable=True),
)
# fmt: on


def rules_of(sensor: str) -> str:
    """The `sensor` of incidents that rules over the lake found, so that neither side closes the other's."""
    return f"{sensor[:58]}.rules"
