"""How forests are laid out for `engine.kernels.forest`: what the kernel freezes and model files rely on."""

FEATURES = ("wirelen", "payload_len", "entropy", "src_port", "dst_port", "protocol", "ttl", "tcp_flags")
F_WIRELEN, F_PAYLOAD_LEN, F_ENTROPY, F_SRC_PORT, F_DST_PORT, F_PROTOCOL, F_TTL, F_TCP_FLAGS = range(8)

# A tree is a list of steps, children before parents: each decides one inner node for all rows of a block.
# fmt: off
(
    Q_KIND,       # which of its children are leaves
    Q_FEATURE,
    Q_THRESHOLD,  # a row goes right when its feature is above
    Q_TO,         # slot of the outcome: for each row, the leaf below this node that the row falls into
    Q_LEFT,       # a leaf's number, or the slot where the inner node on the left left its outcome
    Q_RIGHT,
    N_STEP,
) = range(7)
# fmt: on
LEAF_LEAF, LEAF_NODE, NODE_LEAF, NODE_NODE = range(4)  # kinds: left and right child

BLOCK = 1024  # rows that a step decides: its loops are long, and what they touch stays in the first-level cache
SLOTS = 16  # outcomes that wait for their parents at once; a tree of n leaves needs log2(n) + 1
CELLS = 1024  # of the table that turns scores into anomalies
GRAIN = 1 << 14  # anomalies are multiples of 1 / GRAIN: what lies below is noise, and would not compress
