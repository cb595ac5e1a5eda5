"""Plotly settings shared by every graph. Figures are drawn in the browser (assets/30-chart.js)."""

from typing import Any, Final

# No mode bar: its "Share chart" would send the figure to the vendor's cloud. Nothing leaves this machine.
CONFIG: Final[dict[str, Any]] = {
    "displayModeBar": False,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "doubleClick": False,
    "responsive": True,
    "topojsonURL": "/assets/topojson/",  # the world map; else it would be fetched from outside
}

# Without a figure a graph paints default axes until the first answer is there.
EMPTY: Final[dict[str, Any]] = {
    "data": [],
    "layout": {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
    },
}
