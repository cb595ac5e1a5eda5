"""A result of `engine bench` as one HTML page: plots and every figure. It asks nothing of the network."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go

from benchmarks.compare import OURS, figures, number, skips

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .2rem .6rem; border-top: 1px solid #d8dee5; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } .skipped { color: #8a4b00; }
"""
_COLORS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#e8a200", "#0b7285", "#c2255c", "#495057", "#74b816", "#868e96")


def render(result: dict[str, Any]) -> str:
    """The whole page."""
    sections = result["sections"]
    plots = [plot for plot in (_stages(sections), _offline(sections), _live(sections), _peers(sections)) if plot]
    parts = []
    for number_, plot in enumerate(plots):
        plot.update_layout(
            template="plotly_white", height=380, margin={"l": 160, "r": 20, "t": 50, "b": 50}, colorway=_COLORS,
            legend={"orientation": "h", "y": -0.2}, font={"family": "system-ui, sans-serif"},
        )  # fmt: skip
        parts.append(plot.to_html(
            full_html=False, include_plotlyjs=number_ == 0, config={"displaylogo": False, "showSendToCloud": False}
        ))  # fmt: skip
    tables = "".join(_table(name, part) for name, part in sections.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>PacketLake benchmark</title><style>{_STYLE}</style>"
        f"<h1>PacketLake benchmark</h1>{_about(result)}{''.join(parts)}{tables}</html>\n"
    )


def _about(result: dict[str, Any]) -> str:
    machine, commit = result["machine"], result["commit"]
    rows = [
        ("when", result["created"] + (", short form" if result["short"] else "")),
        (
            "machine",
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB, Linux {machine['kernel']}",
        ),
        ("load", f"{result['load_before']:.1f} before, {result['load_after']:.1f} after"),
        ("commit", f"{commit['id'] or 'installed package'}{', with changes' if commit['changed'] else ''}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
    ]
    rows += [
        (name, f"{about['packets']:,} packets, {about['mean_bytes']:.0f} bytes on average: {about['what']}")
        for name, about in result["inputs"].items()
    ]
    return f"<table>{''.join(f'<tr><th>{escape(a)}<td>{escape(b)}' for a, b in rows)}</table>"


def _stages(sections: dict[str, Any]) -> Any:
    inputs = {name: row["stages"] for name, row in _measured(sections.get("stages", {})).items()}
    if not inputs:
        return None
    names = list(dict.fromkeys(stage for row in inputs.values() for stage in row if stage != "total"))
    plot = go.Figure()
    for stage in names:
        values = [max(0.0, row[stage]["median"]) if stage in row else 0.0 for row in inputs.values()]
        plot.add_bar(name=escape(stage), y=list(map(escape, inputs)), x=values, orientation="h")
    return plot.update_layout(barmode="stack", title="CPU by stage, ns a packet (engine replay, raw frames kept)")


def _offline(sections: dict[str, Any]) -> Any:
    inputs = _measured(sections.get("offline", {}))
    plot = go.Figure()
    for mode in ("frames off", "frames full"):
        rows = {name: row[mode]["packets_per_cpu_s"] for name, row in inputs.items() if mode in row}
        if rows:
            plot.add_bar(
                name=mode, x=list(map(escape, rows)), y=[f["median"] for f in rows.values()],
                error_y={"type": "data", "array": [f["max"] - f["median"] for f in rows.values()],
                         "arrayminus": [f["median"] - f["min"] for f in rows.values()]},
            )  # fmt: skip
    return (
        plot.update_layout(title="engine replay: packets a CPU second, smallest to largest run") if plot.data else None
    )


def _live(sections: dict[str, Any]) -> Any:
    plot = go.Figure()
    for name, row in _measured(sections.get("live", {})).items():
        steps = sorted((step["pps"], 100 * step["loss"]) for step in row.get("steps", ()))
        if steps:
            plot.add_scatter(name=escape(name), x=[s[0] for s in steps], y=[s[1] for s in steps], mode="markers+lines")
    if not plot.data:
        return None
    plot.update_xaxes(title="packets a second on the wire").update_yaxes(title="% not in the lake")
    return plot.update_layout(title="engine run over a veth pair: loss by rate")


def _peers(sections: dict[str, Any]) -> Any:
    plot = go.Figure()
    for name, rows in _measured(sections.get("peers", {})).items():
        done = {peer: row for peer, row in rows.items() if isinstance(row, dict) and "packets_per_cpu_s" in row}
        labels = [escape(f"{peer}: {row['does']}") for peer, row in done.items()]
        values = [row["packets_per_cpu_s"]["median"] for row in done.values()]
        for what, rate in rows.get(OURS, {}).items():
            labels.append(escape(f"PacketLake: {what}"))
            values.append(rate)
        if done:
            plot.add_bar(name=escape(name), y=labels, x=values, orientation="h")
    if not plot.data:
        return None
    plot.update_xaxes(type="log").update_yaxes(automargin=True)
    return plot.update_layout(title="Packets a CPU second, ours and others (logarithmic)")


def _measured(section: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a section that were measured."""
    return {name: row for name, row in section.items() if isinstance(row, dict) and "skipped" not in row}


def _table(name: str, part: dict[str, Any]) -> str:
    rows = []
    for label, f in figures(part):
        values = "".join(f"<td class=n>{number(f[key])}" for key in ("median", "min", "max", "runs"))
        rows.append(f"<tr><td>{escape(label)}{values}<td>{escape(f['unit'])}")
    skipped = "".join(f"<p class=skipped>{escape(label)} skipped: {escape(why)}" for label, why in skips(part))
    head = "<tr><th>figure<th class=n>median<th class=n>smallest<th class=n>largest<th class=n>runs<th>unit"
    return f"<h2>{escape(name)}</h2>{skipped}<table>{head}{''.join(rows)}</table>"
