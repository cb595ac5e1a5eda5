"""The scratch record of one frame: what the per-protocol helpers write and `decode.decode_frames` stores into columns.

A helper takes `(buf, p, end, f)`: uint8 bytes, first byte of its header, one past the last captured byte, and the
record `f` (int64[N_FIELDS]). It checks the length before every read, sets fields and their HAS_ bits, and returns
where the next header starts. One small array instead of forty column arrays keeps helpers simple and calls cheap;
it never leaves the first-level cache.
"""

# fmt: off
(
    PRESENT, STATUS, ETHERTYPE, VLAN, VLAN_INNER, SRC_MAC, DST_MAC,
    IP_VERSION, SRC_HI, SRC_LO, DST_HI, DST_LO, PROTO, TTL,
    IP_END,        # one past the last byte of the IP packet as its header claims
    LATER_FRAGMENT,  # 1 when the transport header is in another frame
    FRAGMENT_ID,   # identification of a fragment, 32 bits as signed
    WIRE_END,      # one past the last byte of the frame on the wire
    SRC_PORT, DST_PORT, TCP_FLAGS, TCP_SEQ, TCP_ACK, TCP_WINDOW, ICMP_TYPE, ICMP_CODE,
    PAYLOAD, PAYLOAD_LEN,  # first byte; length by the headers
    ARP_OP, ARP_SRC, ARP_DST,
    UPPER,         # the protocol of the header at UPPER_AT: PROTO, or what follows AH
    UPPER_AT,
    DEPTH,
    N_FIELDS,
) = range(35)
# fmt: on

# What the link layer leads to: an EtherType where it has one, else these.
NOTHING = -1
MAX_DEPTH = 24  # stacked headers followed in one frame
MAX_EXTENSIONS = 128  # IPv6 extension headers followed in one packet
