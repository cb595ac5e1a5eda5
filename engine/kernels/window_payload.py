"""What payloads and ARP add to the windows: volume, requests that end, refused log-ins, content, claims."""

import numpy as np

from engine import packets as k
from engine.constants import PROTO_TCP
from engine.jit import be32, be64, helper, u8
from engine.kernels.window_layout import (
    A_IP,
    A_LAST,
    A_MAC,
    B_HEAD,
    B_PAYLOAD,
    B_SERVED,
    B_SYN,
    C_DNS_ENTROPY,
    C_DNS_LABELS,
    E_ASKED,
    E_IP,
    E_MAC,
    E_RIVAL,
    E_TARGET,
    E_TS,
    ENTROPY_UNIT,
    F_BITS,
    F_SSH,
    F_WORD,
    H_COUNTERS,
    LABEL_BYTES,
    LABELS_PER_S,
    P_COUNTERS,
    P_RAW_PORT,
    P_SSH_PORT,
    PORT_ARP,
    Q_DOWN,
    Q_ECHO_BYTES,
    Q_ECHO_CHANGES,
    Q_ECHO_N,
    Q_RAW_ENTROPY,
    Q_RAW_N,
    Q_RAW_UP,
    Q_SSH,
    Q_SSH_MORE,
    Q_UP,
    S_ARPS,
    S_CLOCK,
    S_EVICTED,
    S_HALF,
    S_OVERRUN,
    SSH_PROMPTS,
    T_FAILED,
    T_FAILED_OLD,
    T_LAST_LO,
)  # fmt: skip
from engine.kernels.window_rows import add_distinct, target_row, touch_pair
from engine.kernels.window_tables import claim, mix, note


@helper
def read_payload(arena, start, end, payload, slot, pair, from_client, proto, app, ssh, icmp, port, entropy,
             flows, pairs, pair_list, state):  # fmt: skip
    """What the payload adds to the pair: volume, requests that end, SSH's replies, ICMP's content."""
    bits = flows[slot, F_BITS]
    q = P_COUNTERS
    if proto == PROTO_TCP:
        if from_client:
            bits |= B_PAYLOAD
            if end - start >= 4 and be32(arena, end - 4) == 0x0D0A0D0A:
                bits |= B_HEAD
        else:
            bits |= B_SERVED
        flows[slot, F_BITS] = bits
        if app == ssh and app != 0:
            _ssh(arena, start, end, payload, slot, pair, from_client, port, flows, pairs, pair_list, state)
        elif app == 0 and from_client and bits & B_SYN and payload >= 256:
            touch_pair(pair, pairs, pair_list, state)
            pairs[pair, q + Q_RAW_UP] += payload
            pairs[pair, P_RAW_PORT] = proto << 16 | port
            if entropy >= 0:
                pairs[pair, q + Q_RAW_ENTROPY] += np.int64(entropy * ENTROPY_UNIT)
                pairs[pair, q + Q_RAW_N] += 1
    elif icmp >= 0:
        if from_client and (icmp == 8 or icmp == 128):
            touch_pair(pair, pairs, pair_list, state)
            pairs[pair, q + Q_ECHO_N] += 1
            pairs[pair, q + Q_ECHO_BYTES] += payload
            if end - start >= 32:
                # Beyond the 16 bytes in which ping keeps its time: the same in every ping of a run.
                word = be64(arena, start + 24) ^ payload
                if flows[slot, F_WORD] != 0 and flows[slot, F_WORD] != word:
                    pairs[pair, q + Q_ECHO_CHANGES] += 1
                flows[slot, F_WORD] = word
        return
    pairs[pair, q + (Q_UP if from_client else Q_DOWN)] += payload


@helper
def note_label(arena, start, end, src, hosts):
    """Entropy of the first label of the name that a DNS query asks for, bits per character (RFC 1035 4.1.2)."""
    at = H_COUNTERS
    if end - start < 17 or u8(arena, start + 2) & 0x80 or hosts[src, at + C_DNS_LABELS] >= LABELS_PER_S:
        return
    first = start + 13
    n = min(u8(arena, start + 12), LABEL_BYTES, end - first)
    if n < 1:
        return
    total = 0.0
    for i in range(n):
        same = 0.0
        for j in range(i):
            same += 1.0 if u8(arena, first + j) == u8(arena, first + i) else 0.0
        total += (same + 1.0) * np.log2(same + 1.0) - (same * np.log2(same) if same > 0.0 else 0.0)
    hosts[src, at + C_DNS_LABELS] += 1
    hosts[src, at + C_DNS_ENTROPY] += np.int64(max(0.0, np.log2(n) - total / n) * ENTROPY_UNIT)


# F_SSH: length of a refusal << 16 | replies after the keys << 8 | 1 the client has spoken since | 2 keys | 4 over.
@helper
def _ssh(arena, start, end, payload, slot, pair, from_client, port, flows, pairs, pair_list, state):
    """Count refused log-ins: after the client's NEWKEYS and the accepted service, replies as long as the first one.

    A success has another length, and so has what follows it. Source: RFC 4252 5.1, RFC 4253 7.3.
    """
    word = flows[slot, F_SSH]
    if word & 4:
        return
    if from_client:
        if word & 2 == 0 and end - start >= 16 and be64(arena, start) >> 16 == 0x0000000C0A15:
            word |= 2
        elif word & 2:
            word |= 1
        flows[slot, F_SSH] = word
        return
    if word & 3 != 3:
        return
    replies = (word >> 8 & 0xFF) + 1
    length = word >> 16
    word &= ~1
    if replies == 2:
        length = payload
    elif replies > 2:
        if payload != length or payload > 256:
            flows[slot, F_SSH] = word | 4
            return
        touch_pair(pair, pairs, pair_list, state)
        pairs[pair, P_COUNTERS + Q_SSH] += 1
        pairs[pair, P_COUNTERS + Q_SSH_MORE] += 1 if replies > 2 + SSH_PROMPTS else 0
        pairs[pair, P_SSH_PORT] = PROTO_TCP << 16 | port
    flows[slot, F_SSH] = length << 16 | min(replies, 255) << 8 | (word & 0xFF)


@helper
def note_arp(
    i, has_mac, short, address, source, arp_tags, arps, events, target_tags, targets, target_list, seen, seeds, state,
):  # fmt: skip
    """A request asks for a target; request and reply claim an address, which a rival may have (RFC 826)."""
    ip, wanted = address[k.A_ARP_SRC, i], address[k.A_ARP_DST, i]
    if ip == 0:
        return
    salt = np.uint64(source * 2) << np.uint64(33)
    h, hw = mix(salt, ip, seeds), mix(salt, wanted, seeds)
    epoch = (state[S_HALF] >> 1) // 60
    is_request = short[k.S_ARP_OP, i] == 1
    if is_request and ip != wanted:
        target, th = target_row(
            h, 0, np.int64(ip), source << 1, PORT_ARP, target_tags, targets, target_list, seeds, state
        )
        add_distinct(targets, target, T_FAILED, T_FAILED_OLD, note(seen, mix(th, hw, seeds), epoch))
        targets[target, T_LAST_LO] = np.int64(wanted)
    if not has_mac:  # another link type than Ethernet: nobody knows who claims it
        return
    row, new, evicted = claim(arp_tags, h, (state[S_HALF] >> 1))
    mac = np.int64(address[k.A_SRC_MAC, i])
    if new:
        state[S_EVICTED] += 1 if evicted else 0
        arps[row, A_IP], arps[row, A_MAC], arps[row, A_LAST] = np.int64(ip), mac, state[S_CLOCK]
    elif arps[row, A_MAC] == mac:
        arps[row, A_LAST] = state[S_CLOCK]
    elif ip != wanted:  # an address that moves is announced to itself
        n = state[S_ARPS]
        if n < events.shape[0]:
            events[n, E_IP], events[n, E_MAC], events[n, E_RIVAL] = np.int64(ip), arps[row, A_MAC], mac
            events[n, E_TARGET], events[n, E_ASKED], events[n, E_TS] = (
                np.int64(wanted),
                arps[row, A_LAST],
                state[S_CLOCK],
            )
            state[S_ARPS] += 1
        else:
            state[S_OVERRUN] += 1
