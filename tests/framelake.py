"""Lakes with raw frames, made by the engine's own stages: source, decoder, frame ring, columns, writer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.capture.savefile import SavefileSource
from engine.capture.source import ReadResult
from engine.config import FramesConfig, LakeConfig
from engine.errors import EngineError
from engine.frames import FrameRing
from engine.packets import L_TS, FrameBatch
from engine.writer import TableWriter, init_lake, run_name
from tests.builders import decoder


class FrameLake:
    """A lake that is being written. `take` is what the publish thread does with a batch."""

    def __init__(self, path: Path, config: FramesConfig | None = None, sensor: str = "s1") -> None:
        init_lake(path)
        self.path = path
        run = run_name()
        lake_config = LakeConfig(sensor=sensor)
        self.failures: list[str] = []
        self.ring = FrameRing(path, config or FramesConfig(), sensor, run, lambda e: self.failures.append(str(e)))
        self._packets = TableWriter(path, "packets", lake_config, run)
        self._addresses = TableWriter(path, "addresses", lake_config, run)
        self._frame_no: dict[str, int] = {}

    def take(self, frames: FrameBatch) -> int:
        """Store, decode and append a batch; returns the frames that the ring took."""
        work, rows, columns = decoder()
        number = self._frame_no.setdefault(frames.source, 1)
        frames.first_frame_no = number
        self._frame_no[frames.source] = number + frames.count
        batch = work.decode(frames, rows)
        stored = self.ring.store(frames, batch)
        if batch.count:
            self._packets.append(columns.to_arrow(batch))
            self._addresses.append(columns.new_addresses(int(batch.long[L_TS, 0])))
        return stored

    def publish(self) -> None:
        self._packets.publish()
        self._addresses.publish()

    def replay(self, files: Iterable[Path | str]) -> None:
        """Whole savefiles; `source` is the path as given. What cannot be read is left out."""
        batch = FrameBatch()
        for file in files:
            source = SavefileSource(str(file))
            try:
                source.open()
                result = ReadResult.MORE
                while result is not ReadResult.END:
                    batch.clear()
                    result = source.read(batch)
                    batch.source = source.name
                    self.take(batch)
            except EngineError:
                pass
            finally:
                source.close()
        self.publish()

    def close(self) -> None:
        self.publish()
        self.ring.close()
