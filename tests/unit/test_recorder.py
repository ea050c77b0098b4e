from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.recorder import Fenced, FlightRecorder, Slot


def test_a_rescuer_reads_what_the_owner_knew(tmp_path: Path) -> None:
    owner = FlightRecorder.create(tmp_path / "1.flight", 1, [11, 12, 13, 14])
    owner.commit(0, 1000)
    owner.record(0, Slot.ACCEPTED, 250, "queued as 7", at_ms=2000, parts=2)
    owner.commit(1, 1000)
    owner.record(2, Slot.REFUSED, 550, "no such user", at_ms=3000)
    rescuer = FlightRecorder.rescue(tmp_path / "1.flight")
    assert rescuer is not None
    found = [(e.message_id, e.slot, e.code, e.parts, e.at_ms, e.text) for e in rescuer.entries()]
    assert found == [
        (11, Slot.ACCEPTED, 250, 2, 2000, "queued as 7"),
        (12, Slot.COMMITTED, 0, 0, 1000, ""),
        (13, Slot.REFUSED, 550, 0, 3000, "no such user"),
        (14, Slot.UNTOUCHED, 0, 0, 0, ""),
    ]
    rescuer.close(remove=False)
    owner.close(remove=True)
    assert not (tmp_path / "1.flight").exists()


def test_a_living_owner_keeps_its_lock_and_a_fence_stops_it(tmp_path: Path) -> None:
    owner = FlightRecorder.create(tmp_path / "1.flight", 1, [11, 12])
    owner.commit(0, 1000)
    rescuer = FlightRecorder.rescue(tmp_path / "1.flight")
    assert rescuer is not None
    assert not rescuer.owner_is_dead()
    rescuer.raise_fence()
    with pytest.raises(Fenced):
        owner.commit(1, 1000)
    assert [entry.slot for entry in rescuer.entries()] == [Slot.COMMITTED, Slot.UNTOUCHED]
    rescuer.close(remove=False)
    owner.close(remove=True)


WORKER = """
import signal, sys
from pathlib import Path
from workers.recorder import FlightRecorder, Slot
owner = FlightRecorder.create(Path(sys.argv[1]), 9, [1, 2, 3])
owner.commit(0, 1000)
owner.record(0, Slot.ACCEPTED, 250, "ok", at_ms=2000)
owner.commit(1, 1000)
print("ready", flush=True)
signal.pause()
"""


def test_sigkill_loses_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "9.flight"
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, cwd=root)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    before = FlightRecorder.rescue(path)
    assert before is not None
    assert not before.owner_is_dead()
    before.close(remove=False)
    child.kill()
    child.wait()
    child.stdout.close()
    rescuer = FlightRecorder.rescue(path)
    assert rescuer is not None
    assert rescuer.owner_is_dead()
    assert [entry.slot for entry in rescuer.entries()] == [Slot.ACCEPTED, Slot.COMMITTED, Slot.UNTOUCHED]
    rescuer.close(remove=True)


def test_a_file_that_was_never_in_use_is_no_recorder(tmp_path: Path) -> None:
    assert FlightRecorder.rescue(tmp_path / "none.flight") is None
    for content in (b"", b"\0" * 200, b"CARILLN1" + b"\0" * 60):
        (tmp_path / "odd.flight").write_bytes(content)
        found = FlightRecorder.rescue(tmp_path / "odd.flight")
        assert found is None or list(found.entries()) == []
