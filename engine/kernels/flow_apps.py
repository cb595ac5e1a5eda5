"""The application of a flow on the rows of its packets."""

import numpy as np

from engine.flow_row import R_APP_SINCE, R_NAME, R_NAME_SINCE, R_STATE, STATE_APP
from engine.jit import helper, kernel
from engine.packets import HAS_APP, HAS_NAME, I_NAME, IS_ENCRYPTED, S_APP

# Words before the batch's names: their number, the number of the batch.
N_NAMES, N_BATCH, N_HEAD = range(3)


@helper
def mark_row(i, slot, packet, short, int_, present, records, encrypted, names):
    """Write what is known of the flow at `slot` to row `i`, the packet of that number.

    Args:
        short, int_, present: as in PacketBatch; S_APP, I_NAME and their bits are written.
        encrypted: uint8[number of applications].
        names: int64[3, N_HEAD + names known]. Row 0: N_NAMES, N_BATCH, then the names of this batch in the order of
            their entries; rows 1 and 2: number of the batch in which a name was last seen, and its entry there.
    """
    app = records[slot, R_STATE] >> STATE_APP
    bits = np.uint32(0)
    if packet >= records[slot, R_APP_SINCE]:
        short[S_APP, i] = app
        bits |= np.uint32(HAS_APP | IS_ENCRYPTED if encrypted[app] else HAS_APP)
    name = records[slot, R_NAME]
    if name and packet >= records[slot, R_NAME_SINCE]:
        if names[1, name] != names[0, N_BATCH]:
            names[1, name] = names[0, N_BATCH]
            names[2, name] = names[0, N_NAMES]
            names[0, N_HEAD + names[0, N_NAMES]] = name
            names[0, N_NAMES] += 1
        int_[I_NAME, i] = names[2, name]
        bits |= np.uint32(HAS_NAME)
    present[i] |= bits


@kernel
def mark_rows(short, int_, present, slot_of, first, stop, packet, records, encrypted, names):
    """Mark rows `first` to stop - 1 after applications were recognised in them; `packet` is the number of row 0."""
    for i in range(first, stop):
        slot = slot_of[i]
        if slot >= 0 and records[slot, R_STATE] >> STATE_APP:
            mark_row(i, np.int64(slot), packet + i, short, int_, present, records, encrypted, names)
