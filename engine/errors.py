"""The few ways the environment can fail, named by what the operator must do.

A bad packet is data, never an exception: see the `status` column in `engine.packets`.
Every message is one line that says what failed, the value, and the next step; `engine.cli.main` prints it
and exits with code 2.
"""


class EngineError(Exception):
    """Base of everything the operator can act on."""


class ConfigError(EngineError):
    """An option, configuration value, BPF filter or SQL text is wrong: change it."""


class CaptureError(EngineError):
    """An interface cannot be opened or read: check its name, the rights, the driver."""


class CorruptFile(EngineError):
    """A savefile is foreign or damaged at its head: nothing can be read from this point on."""


class TruncatedFile(CorruptFile):
    """A savefile ends inside a record: all whole frames before were delivered."""


class StoreError(EngineError):
    """The lake cannot be read or written: check the directory, rights and free space."""
