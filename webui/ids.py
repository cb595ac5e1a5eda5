"""Every id of the page, so that callbacks, layout, scripts and tests mean the same element."""

from typing import Final

TICK: Final = "tick"
SNAPSHOT: Final = "snapshot"
RANGE: Final = "range"
PAINTED: Final = "painted"
TIMELINE: Final = "timeline"

LIVE: Final = "live"
THEME: Final = "theme"
ZONE: Final = "zone"
BANNER: Final = "banner"
CAPTURE_STATE: Final = "capture-state"
CAPTURE_DETAIL: Final = "capture-detail"
KPIS: Final = ("kpi-pps", "kpi-bps", "kpi-packets", "kpi-bytes", "kpi-drops", "kpi-undecodable")
TIMELINE_EMPTY: Final = "timeline-empty"
TIMELINE_LEGEND: Final = "timeline-legend"
MIX: Final = "mix"
TALKERS: Final = "talkers"
COUNTRIES: Final = "countries"
RECENT: Final = "recent"
