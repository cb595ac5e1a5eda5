"""How the windows lie in memory: words of the state, of hosts, pairs, targets, flows and rings."""

# Words of the state, int64[N_STATE].
(
    S_CLOCK,  # ns
    S_BEHIND,  # packets in a row that were far older than the clock
    S_HALF,  # the running half second, MISSING before the first packet
    S_HEAD, S_TAIL,  # attempts that wait: entries S_TAIL to S_HEAD - 1 of the ring, modulo its size
    S_SLOW_HEAD, S_SLOW_TAIL,
    S_HOSTS, S_PAIRS, S_TARGETS, S_ARPS,  # rows touched in this tick (ARP: events)
    S_ID,  # of the newest row
    S_EVICTED,  # rows that made room for others
    S_OVERRUN,  # attempts judged early, events and touches not noted
    S_TICK,  # number of the running tick, never reset
    S_PACKETS,
    N_STATE,
) = range(17)  # fmt: skip

# --- hosts, int64[rows, N_HOST]: identity, then N_COUNTERS words for each of three levels --------------------------
H_HI, H_LO, H_META, H_ID, H_SECOND, H_FIRST, H_LISTED, H_HASH, H_COUNTERS = range(9)
(
    C_OUT_PACKETS, C_OUT_BYTES, C_OUT_PAYLOAD, C_OUT_SYN, C_OUT_UDP, C_OUT_ENTROPY, C_OUT_ENTROPY_N, C_OUT_ERRORS,
    C_IN_PACKETS, C_IN_BYTES, C_IN_PAYLOAD, C_IN_SYN, C_IN_UDP, C_IN_ECHO, C_IN_STRAY, C_IN_DNS,
    C_OUT_SYN_ACK, C_IN_DONE, C_ATTEMPTS, C_ANSWERED, C_REFUSED, C_UNANSWERED, C_PEERS, C_PORTS,
    C_NEW_PEERS, C_IN_ATTEMPTS, C_IN_UDP_FLOWS, C_IN_FAILED, C_IN_PEERS, C_OUT_RST, C_TOP_PORT, C_TOP_VOTES,
    C_DNS_LABELS, C_DNS_ENTROPY,  # first labels of names that it asked for, and the sum of their entropies
    N_COUNTERS,
) = range(35)  # fmt: skip
LEVELS = 3
LEVEL_S = (1, 5, 60)
N_HOST = H_COUNTERS + LEVELS * N_COUNTERS + 2  # whole cache lines

# --- pairs, int64[rows, N_PAIR]: identity, then N_PAIR_COUNTERS words of this minute and as many of the last ----------
(
    P_C_HI, P_C_LO, P_S_HI, P_S_LO, P_META, P_ID, P_EPOCH, P_LISTED,
    P_C_HASH, P_S_HASH, P_FIRST, P_PORT, P_SLOW_PORT, P_SSH_PORT, P_RAW_PORT, P_LAST,
    P_START_PORT, P_STARTS, P_GAP_SUM, P_GAP_SQUARES, P_COUNTERS,  # connections begun, ms and ms**2 between them
) = range(21)  # fmt: skip
(
    Q_PORTS, Q_FAILED, Q_ANSWERED, Q_REFUSED, Q_SYN, Q_UDP, Q_FIN, Q_XMAS, Q_NULL, Q_ECHO,
    Q_SLOW, Q_SSH, Q_UP, Q_DOWN, Q_PACKETS_UP, Q_PACKETS_DOWN, Q_BYTES_UP, Q_BYTES_DOWN,
    Q_RAW_UP, Q_RAW_ENTROPY, Q_RAW_N, Q_ECHO_CHANGES, Q_ECHO_N, Q_ECHO_BYTES,
    Q_SSH_MORE, Q_STARTS, N_PAIR_COUNTERS,
) = range(27)  # fmt: skip
N_PAIR = P_COUNTERS + 2 * N_PAIR_COUNTERS

# --- targets, int64[rows, N_TARGET]: what one host asks of many ----------------------------------------------------
(
    T_HI, T_LO, T_META, T_PORT, T_ID, T_EPOCH, T_LISTED, T_FIRST,
    T_FAILED, T_TRIED, T_FAILED_OLD, T_TRIED_OLD, T_LAST_HI, T_LAST_LO, N_TARGET,
) = range(15)  # fmt: skip

# --- flows, int64[slots of the flow table, N_TRACK] ----------------------------------------------------------------
F_FLOW, F_BITS, F_CLIENT, F_PAIR, F_PAIR_ID, F_WAITS, F_SSH, F_WORD, N_TRACK = range(9)
B_SYN, B_SYN_ACK, B_DONE, B_ANSWERED, B_CLOSED, B_HEAD, B_PAYLOAD, B_SERVED, B_WAITS = (1 << n for n in range(9))
B_TYPE = 16  # what kind of attempt, 4 bits
PROBE_NONE, PROBE_SYN, PROBE_UDP, PROBE_FIN, PROBE_XMAS, PROBE_NULL, PROBE_ECHO = range(7)

# --- rings, int64[power of two, N_WAIT] ----------------------------------------------------------------------------
W_TS, W_FLOW, W_SLOT, W_STATE, W_PAIR, W_PAIR_ID, W_PORT, W_TYPE, N_WAIT = range(9)
WAITING, SETTLED = range(2)
# --- ARP, int64[rows, N_ARP] and events int64[events, N_ARP_EVENT] -------------------------------------------------
A_IP, A_MAC, A_LAST, N_ARP = range(4)
E_IP, E_MAC, E_RIVAL, E_TARGET, E_ASKED, E_TS, N_ARP_EVENT = range(7)

PORT_ARP = 256 << 16  # stands for protocol and port of ARP requests
MISSING = -(1 << 63)
DONE, TICK, RESET = range(3)
SECOND_NS = 1_000_000_000
TICK_NS = SECOND_NS // 2
GRACE_NS = SECOND_NS  # for an answer
SLOW_NS = 5 * SECOND_NS  # for a request to be completed
DETAIL_PER_S = 4096  # attempts at one host in a second that are followed to their outcome
LONG_GAP_MS = 3_600_000  # what comes after an hour is a new series
STALE_NS = 30 * SECOND_NS  # what waited for so long was not seen to its end: the clock jumped
LATEST_NS = 1 << 62
FAR_NS = 60 * SECOND_NS
BEHIND_MAX = 4096
ENTROPY_UNIT = 1024.0
LABEL_BYTES = 32  # of a name's first label that its entropy is made of
LABELS_PER_S = 200  # of a host: more names than that are a sample
SSH_PROMPTS = 3  # passwords that OpenSSH's client asks its user for in a session (NumberOfPasswordPrompts)
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
