"""Training that can be stopped at any time and goes on from the last finished epoch."""

import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import orbax.checkpoint as ocp

Tree = Any


class OtherSettingsError(ValueError):
    """A folder holds a run with other settings than those asked for."""


def require_same(before: dict[str, Any], now: dict[str, Any], workdir: Path) -> None:
    """Refuses to go on with settings that a run did not begin with.

    Args:
      before: those it began with.
      now: those asked for.
      workdir: where it lives, for the message.

    Raises:
      OtherSettingsError: they differ.
    """
    differing = sorted(name for name in before | now if before.get(name) != now.get(name))
    if differing:
        changes = ", ".join(f"{name}={before.get(name)!r}" for name in differing)
        raise OtherSettingsError(
            f"{workdir} holds a run with other settings ({changes}); go on with those, name "
            "another --workdir, or start over with --noresume"
        )


class Checkpoints:
    """The newest epoch of a run, in a folder of its own; each is written whole or not at all.

    Orbax writes an epoch beside the previous one and renames it when it is complete, so that a
    process killed at any moment leaves the previous epoch behind.
    """

    def __init__(self, workdir: Path, *, fresh: bool = False):
        """Opens the folder ``workdir/checkpoints``.

        Args:
          workdir: where the run lives.
          fresh: whether to forget what is there.
        """
        folder = workdir.absolute() / "checkpoints"
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        self._manager = ocp.CheckpointManager(
            folder, options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        )

    def save(self, epoch: int, state: Tree, notes: dict[str, Any]) -> None:
        """Writes a finished epoch, replacing the one before.

        Args:
          epoch: how many epochs are finished.
          state: tree of arrays.
          notes: anything else, as JSON holds it.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes)
        )
        self._manager.save(epoch, args=args)

    def restore(self, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
        """Returns state and notes of the newest epoch, or None where there is none.

        Args:
          like: tree of arrays with the structure, shapes and dtypes of the state.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), notes=ocp.args.JsonRestore()
        )
        found = self._manager.restore(epoch, args=args)
        return found["state"], found["notes"]

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits until everything is written, whatever happened."""
        self._manager.close()


class StopRequest:
    """Turns Ctrl-C (or SIGTERM) into a request to stop after the current epoch.

    A second signal acts at once. ``asked`` tells whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Starts to listen."""
        for which in (signal.SIGINT, signal.SIGTERM):
            self._before[which] = signal.signal(which, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts back what handled the signals before."""
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.__exit__()
