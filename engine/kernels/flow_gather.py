"""Ended flow records as columns."""

import numpy as np

from engine import flow_row as r
from engine.constants import PROTO_TCP
from engine.jit import helper, kernel
from engine.kernels.address import KIND_IPV4, KIND_IPV6, KIND_MAC, find_entry


@helper
def _outcome(bits, rest):
    """What became of the flow, as far as this part knows; see docs/data-dictionary.md."""
    if rest >> r.REST_PROTO & 0xFF == PROTO_TCP:
        established = bits & r.STATE_ACKED or (bits & r.STATE_ANSWERED and bits & (r.STATE_SYN | r.STATE_SYN_ACK) == 0)
        if established:
            return r.RESET if bits & (r.STATE_RST_CLIENT | r.STATE_RST_SERVER) else r.ESTABLISHED
        if bits & r.STATE_SYN_ACK:
            return r.HALF_OPEN
        if bits & (r.STATE_RST_SERVER | r.STATE_UNREACHABLE):
            return r.REFUSED
        return r.ANSWERED if bits & r.STATE_ANSWERED else r.UNANSWERED
    if bits & r.STATE_ANSWERED:
        return r.ANSWERED
    return r.REFUSED if bits & r.STATE_UNREACHABLE else r.UNANSWERED


@kernel
def gather(records, slots, count, first, out, floats, heads, head_offsets):
    """Copy `count` records into columns, from row `first` on.

    Args:
        records: int64[slots, N_WORDS]. slots: int32[>= count].
        out: int64[N_OUT, rows], written; MISSING is NULL.
        floats: float32[4, rows], written: mean gap and entropy of each direction; NaN is NULL.
        heads: uint8[2, rows * HEAD_BYTES], head_offsets: int32[2, rows + 1], written; column 0 is 0.
    """
    for n in range(first, first + count):
        slot = slots[n - first]
        bits, rest = records[slot, r.R_STATE], records[slot, r.R_REST]
        client_b = bits & r.STATE_CLIENT_B != 0
        tcp = rest >> r.REST_PROTO & 0xFF == PROTO_TCP
        client, server = r.N_COMMON, r.N_COMMON + r.N_DIRECTION
        if client_b:
            client, server = server, client
        last = records[slot, client + r.D_LAST]
        if records[slot, server + r.D_PACKETS] and (
            records[slot, client + r.D_PACKETS] == 0 or records[slot, server + r.D_LAST] > last
        ):
            last = records[slot, server + r.D_LAST]
        out[r.O_TS, n] = records[slot, r.R_START] // 1000
        out[r.O_END_TS, n] = last // 1000
        out[r.O_FLOW_ID, n] = records[slot, r.R_FLOW_ID]
        out[r.O_PART, n] = records[slot, r.R_PART]
        vlan = rest >> r.REST_VLAN & 0x1FFF
        out[r.O_VLAN, n] = r.MISSING if vlan == r.NO_VLAN else vlan
        out[r.O_VERSION, n] = 6 if rest >> r.REST_V6 & 1 else 4
        a, b = rest & 0xFFFF, rest >> r.REST_PORT_B & 0xFFFF
        ports = bits & r.STATE_PORTS
        out[r.O_SRC_PORT, n] = (b if client_b else a) if ports else r.MISSING
        out[r.O_DST_PORT, n] = (a if client_b else b) if ports else r.MISSING
        out[r.O_PROTO, n] = rest >> r.REST_PROTO & 0xFF
        icmp = bits & r.STATE_ICMP
        out[r.O_ICMP_TYPE, n] = bits >> r.STATE_ICMP_TYPE & 0xFF if icmp else r.MISSING
        out[r.O_ICMP_CODE, n] = bits >> (r.STATE_ICMP_TYPE + 8) & 0xFF if icmp else r.MISSING
        encap = bits >> r.STATE_ENCAP & 0xF
        out[r.O_ENCAP, n] = encap - 1 if encap else r.MISSING
        rtt = records[slot, r.R_RTT_NS]
        out[r.O_RTT, n] = rtt // 1000 if rtt != r.MISSING else r.MISSING
        out[r.O_OUTCOME, n] = _outcome(bits, rest)
        reason = (bits >> r.STATE_ENDED & 0xF) - 1
        out[r.O_REASON, n] = reason
        app, name = bits >> r.STATE_APP, records[slot, r.R_NAME]
        if reason == r.END_ACTIVE:  # the flow went on: what has been recognised since, before it was cut
            living = records[slot, r.R_ISN]
            if records[living, r.R_FLOW_ID] == records[slot, r.R_FLOW_ID]:
                cut = records[slot, r.R_SYN_NS]
                if app == 0 and records[living, r.R_APP_SINCE] < cut:
                    app = records[living, r.R_STATE] >> r.STATE_APP
                if name == 0 and records[living, r.R_NAME_SINCE] < cut:
                    name = records[living, r.R_NAME]
        out[r.O_APP, n] = app
        out[r.O_NAME, n] = name
        out[r.O_SOURCE, n] = rest >> r.REST_SOURCE & 0xFF
        _direction(records, slot, client, n, tcp, out, r.O_SRC, floats, 0)
        _direction(records, slot, server, n, tcp, out, r.O_DST, floats, 2)
        _head(records, slot, client, n, heads, head_offsets, 0)
        _head(records, slot, server, n, heads, head_offsets, 1)


@helper
def _direction(records, slot, d, n, tcp, out, at, floats, f):
    packets = records[slot, d + r.D_PACKETS]
    out[at + r.OD_PACKETS, n] = packets
    out[at + r.OD_BYTES, n] = records[slot, d + r.D_BYTES]
    out[at + r.OD_PAYLOAD, n] = records[slot, d + r.D_PAYLOAD]
    out[at + r.OD_FLAGS, n] = records[slot, d + r.D_FLAGS] & 0xFF if tcp else r.MISSING
    out[at + r.OD_RETRANSMITS, n] = records[slot, d + r.D_FLAGS] >> 8 if tcp else r.MISSING
    sizes, gaps = records[slot, d + r.D_SIZES], records[slot, d + r.D_GAPS]
    out[at + r.OD_SIZE_MIN, n] = sizes >> 32 & 0xFFFFFFFF if packets else r.MISSING
    out[at + r.OD_SIZE_MAX, n] = sizes & 0xFFFFFFFF if packets else r.MISSING
    out[at + r.OD_GAP_MIN, n] = gaps >> 32 & 0xFFFFFFFF if packets > 1 else r.MISSING
    out[at + r.OD_GAP_MAX, n] = gaps & 0xFFFFFFFF if packets > 1 else r.MISSING
    floats[f, n] = np.nan
    floats[f + 1, n] = np.nan
    if packets > 1:
        floats[f, n] = max(records[slot, d + r.D_LAST] - records[slot, d + r.D_FIRST], 0) / 1000.0 / (packets - 1)
    measured = records[slot, d + r.D_COUNTS] >> 16
    if measured:
        floats[f + 1, n] = records[slot, d + r.D_ENTROPY] / 1048576.0 / measured


@helper
def _head(records, slot, d, n, heads, head_offsets, side):
    at = head_offsets[side, n]
    for i in range(records[slot, d + r.D_COUNTS] & 0xFF):
        heads[side, at] = records[slot, d + r.D_HEAD + (i >> 3)] >> (8 * (i & 7)) & 0xFF
        at += 1
    head_offsets[side, n + 1] = at


@kernel
def index_flow_ips(records, slots, count, first, indexes, generation, keys, tags, found, entries, kinds, n):
    """Number the client's and the server's address of each record: rows 0 and 1 of int32[4, rows], from `first` on.

    The rest as in `address.index_ips`; n[0] goes on from what it is."""
    for i in range(first, first + count):
        slot = slots[i - first]
        kind = KIND_IPV6 if records[slot, r.R_REST] >> r.REST_V6 & 1 else KIND_IPV4
        a = find_entry(
            np.uint64(records[slot, r.R_A_HI]), np.uint64(records[slot, r.R_A_LO]), kind,
            generation, keys, tags, found, entries, kinds, n,
        )  # fmt: skip
        b = find_entry(
            np.uint64(records[slot, r.R_B_HI]), np.uint64(records[slot, r.R_B_LO]), kind,
            generation, keys, tags, found, entries, kinds, n,
        )  # fmt: skip
        client_b = records[slot, r.R_STATE] & r.STATE_CLIENT_B != 0
        indexes[0, i] = b if client_b else a
        indexes[1, i] = a if client_b else b


@kernel
def index_flow_macs(records, slots, count, first, indexes, generation, keys, tags, found, entries, kinds, n):
    """As `index_flow_ips`, for the senders' MAC addresses in rows 2 and 3; -1 where there is none."""
    for i in range(first, first + count):
        slot = slots[i - first]
        client_b = 1 if records[slot, r.R_STATE] & r.STATE_CLIENT_B else 0
        for side in range(2):
            mac = records[slot, r.N_COMMON + (side ^ client_b) * r.N_DIRECTION + r.D_MAC]
            indexes[2 + side, i] = -1
            if mac != r.MISSING:
                indexes[2 + side, i] = find_entry(
                    np.uint64(0), np.uint64(mac), KIND_MAC, generation, keys, tags, found, entries, kinds, n
                )
