"""PacketLake's capture engine: from the wire to Parquet. Importing this package imports nothing heavy."""

__version__ = "0.1.0"
