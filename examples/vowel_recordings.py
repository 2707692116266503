"""The JapaneseVowels recordings, read from where the package sktime keeps them."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np

COEFFICIENTS, SPEAKERS = 12, 9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recordings:
    """Recordings of unequal length, padded to one.

    Attributes:
      xs: float32 (T, N, COEFFICIENTS), time first; zero after the end of a recording.
      seq_lengths: int32 (N,), steps of each recording.
      speakers: int32 (N,), who speaks, from 0.
    """

    xs: jax.Array | np.ndarray
    seq_lengths: jax.Array | np.ndarray
    speakers: jax.Array | np.ndarray

    def take(self, which: jax.Array) -> "Recordings":
        """Returns the recordings with these indices, int (B,)."""
        return Recordings(self.xs[:, which], self.seq_lengths[which], self.speakers[which])


def load(folder: str | None = None) -> tuple[Recordings, Recordings]:
    """Returns the training and the test recordings, each coefficient standardised.

    Nine men say /ae/; every step holds 12 cepstrum coefficients; 270 recordings are for training
    and 370 for testing. Mean and deviation are those of the training recordings.

    Args:
      folder: where ``JapaneseVowels_TRAIN.ts`` and ``JapaneseVowels_TEST.ts`` are; default: inside
        the installed sktime, which is not imported for that.

    Raises:
      ModuleNotFoundError: no folder is given and sktime is not installed.
      OSError: a file cannot be read.

    References:
      Kudo, Toyama & Shimbo, Multidimensional Curve Classification Using Passing-Through Regions,
      1999.
    """
    where = _inside_sktime() if folder is None else Path(folder)
    train = _read(where / "JapaneseVowels_TRAIN.ts")
    test = _read(where / "JapaneseVowels_TEST.ts")
    steps = np.concatenate([recording for recording, _ in train])
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    length = max(len(recording) for recording, _ in train + test)
    return _padded(train, mean, deviation, length), _padded(test, mean, deviation, length)


def _inside_sktime() -> Path:
    found = importlib.util.find_spec("sktime")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the recordings come with the package sktime, which is not installed; "
            'pip install -e ".[examples]" installs it, or name a folder by --data_dir'
        )
    return Path(found.origin).parent / "datasets" / "data" / "JapaneseVowels"


def _read(path: Path) -> list[tuple[np.ndarray, int]]:
    """Reads a .ts file: a recording per line, its coefficients and its speaker parted by colons."""
    recordings = []
    for line in path.read_text().splitlines():
        if not line or line.startswith(("#", "@")):
            continue
        *coefficients, speaker = line.split(":")
        steps = np.array([row.split(",") for row in coefficients], np.float64).T
        recordings.append((steps, int(speaker) - 1))
    return recordings


def _padded(
    recordings: list[tuple[np.ndarray, int]], mean: np.ndarray, deviation: np.ndarray, length: int
) -> Recordings:
    xs = np.zeros((length, len(recordings), len(mean)), np.float32)
    for n, (steps, _) in enumerate(recordings):
        xs[: len(steps), n] = (steps - mean) / deviation
    return Recordings(
        xs=xs,
        seq_lengths=np.array([len(steps) for steps, _ in recordings], np.int32),
        speakers=np.array([speaker for _, speaker in recordings], np.int32),
    )
