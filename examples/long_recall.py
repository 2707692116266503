"""A symbol that has to be remembered over 4,000 steps, which a linear recurrence learns to do.

    python examples/long_recall.py                       400 updates
    python examples/long_recall.py --layer=scan_lstm     the same task and updates, without success

A sequence has 4,096 steps. One of its first 96 shows a symbol together with a mark; now and then a
symbol is shown without one. After the last step the marked symbol is to be named, one of eight,
4,000 steps after it was seen, or more. Who has not kept it can only guess: 1 / 8 of the answers are
right then, and the loss is log 8, about 2.08. Sequences are drawn anew for every update, so there
is nothing to learn by heart.

The model makes an embedding of every step, by a product and a gate, which may let marked symbols
through and others not; the layer sums it up; what it holds after the last step is read. An
embedding has no bias: a step that shows nothing adds nothing. What is to be learnt at one step
is only known 4,000 steps later. The forget gates of an LSTM, which are about a half when training
begins, multiply its gradient on the way by numbers whose product is zero in floating point; with
``--option=forget_bias=8``, which keeps a quarter, it went on guessing, too. The factors of an LRU
can be drawn close to one (``r_min``, ``r_max``), and depend on no input.

Every finished epoch, which is some updates here, is kept in ``--workdir``, whole or not at all.
Ctrl-C stops after the current one; the same command goes on from there.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import layer_flags
import numpy as np
import optax
from absl import app, flags, logging
from resumable import Checkpoints, OtherSettingsError, StopRequest, require_same
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from training_chart import draw_curve

import registry
from zoo.recurrent import RecurrentLayer

SYMBOLS = 8
MARKED_WITHIN = 96
SHOWN = 0.005  # probability that a step shows a symbol without a mark
GUESSING = 1 / SYMBOLS

LAYER = {"name": "scan_lru", "features": 32, "r_min": 0.9998, "r_max": 0.99999, "max_phase": 0.001}
"""Keeps 0.44 to 0.96 of a number over 4,096 steps, and turns it by 4.1 radians at most."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides a run's numbers.

    Attributes:
      layer: a mapping for ``registry.build``.
      epochs: how many.
      updates: of an epoch.
      batch_size: sequences per update.
      steps: of a sequence, more than ``MARKED_WITHIN``.
      learning_rate: of Adam; it rises for a tenth of the updates, and then falls to 0.
      tests: sequences that the trained model is judged by, in batches of the same size.
      seed: of everything random.
    """

    layer: dict[str, Any]
    epochs: int = 16
    updates: int = 25
    batch_size: int = 16
    steps: int = 4096
    learning_rate: float = 0.03
    tests: int = 128
    seed: int = 0


class Recall(nn.Module):
    """Names the marked symbol: (T, B, SYMBOLS + 1) to logits (B, SYMBOLS)."""

    layer: RecurrentLayer
    width: int = 32

    @nn.compact
    def __call__(self, xs: jax.Array) -> jax.Array:
        """Reads whole sequences."""
        shown, gate = (nn.Dense(self.width, use_bias=False)(xs) for _ in range(2))
        _, ys = self.layer(None, shown * nn.sigmoid(gate))
        held = nn.LayerNorm()(ys[-1])
        return nn.Dense(SYMBOLS)(nn.gelu(nn.Dense(self.width)(held)))


def sequences(key: jax.Array, steps: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Draws sequences.

    Args:
      key: to draw by.
      steps: T.
      count: B.

    Returns:
      Float (T, B, SYMBOLS + 1), the symbols that are shown and the mark; and the answers, int (B,).
    """
    for_symbols, for_place, for_shown = jax.random.split(key, 3)
    symbols = jax.random.randint(for_symbols, (steps, count), 0, SYMBOLS)
    place = jax.random.randint(for_place, (count,), 0, MARKED_WITHIN)
    marked = jnp.arange(steps)[:, None] == place[None]
    shown = marked | jax.random.bernoulli(for_shown, SHOWN, (steps, count))
    xs = jax.nn.one_hot(symbols, SYMBOLS) * shown[..., None].astype(float)
    answers = jnp.take_along_axis(symbols, place[None], axis=0)[0]
    return jnp.concatenate([xs, marked[..., None].astype(xs.dtype)], axis=-1), answers


class State(NamedTuple):
    """What changes in training."""

    variables: Any
    optimiser: Any


class Training(NamedTuple):
    """A run, put together: ``start(key)``, ``epoch(state, key)``, ``test(state, key)``."""

    start: Callable[[jax.Array], State]
    epoch: Callable[[State, jax.Array], tuple[State, jax.Array, jax.Array]]
    test: Callable[[State, jax.Array], jax.Array]


def training(settings: Settings) -> Training:
    """Puts a run together."""
    model = Recall(registry.build(settings.layer))
    total = settings.epochs * settings.updates
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, max(1, total // 10), max(2, total)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def some(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return sequences(key, settings.steps, settings.batch_size)

    def start(key: jax.Array) -> State:
        variables = model.init(key, some(key)[0])
        return State(variables, optimiser.init(variables))

    def judged(variables: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        xs, answers = some(key)
        logits = model.apply(variables, xs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
        return losses.mean(), jnp.mean(jnp.argmax(logits, axis=-1) == answers)

    def update(state: State, key: jax.Array) -> tuple[State, tuple[jax.Array, jax.Array]]:
        found, gradient = jax.value_and_grad(judged, has_aux=True)(state.variables, key)
        change, moments = optimiser.update(gradient, state.optimiser)
        return State(optax.apply_updates(state.variables, change), moments), found

    def epoch(state: State, key: jax.Array) -> tuple[State, jax.Array, jax.Array]:
        keys = jax.random.split(key, settings.updates)
        state, (losses, shares) = jax.lax.scan(update, state, keys)
        return state, losses.mean(), shares.mean()

    def test(state: State, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, -(-settings.tests // settings.batch_size))
        return jax.lax.map(lambda key: judged(state.variables, key)[1], keys).mean()

    return Training(start, jax.jit(epoch), jax.jit(test))


def run(
    settings: Settings,
    workdir: Path,
    *,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[float | None, list[dict[str, float]]]:
    """Trains to the last epoch, or until asked to stop, from what ``workdir`` holds.

    Args:
      settings: see ``Settings``.
      workdir: where finished epochs are kept.
      fresh: whether to forget what ``workdir`` holds.
      stop: asked after every epoch.

    Returns:
      The share of right answers to new sequences, or None before the last epoch; and for every
      finished epoch the loss, the share of right answers during its updates, and seconds.

    Raises:
      OtherSettingsError: ``workdir`` holds a run with other settings.
    """
    job = training(settings)
    for_start, for_epochs, for_test = jax.random.split(jax.random.key(settings.seed), 3)
    state = jax.jit(job.start)(for_start)
    now = dataclasses.asdict(settings)
    history: list[dict[str, float]] = []
    with Checkpoints(workdir, fresh=fresh) as checkpoints:
        found = checkpoints.restore(state)
        if found is not None:
            state, notes = found
            require_same(notes["settings"], now, workdir)
            history = notes["history"]
        with _progress() as progress:
            task = progress.add_task("", total=settings.epochs, completed=len(history), news="")
            while len(history) < settings.epochs and not stop():
                began = time.perf_counter()
                key = jax.random.fold_in(for_epochs, len(history))
                state, loss, share = jax.block_until_ready(job.epoch(state, key))
                seconds = time.perf_counter() - began
                history.append({"loss": float(loss), "accuracy": float(share), "seconds": seconds})
                checkpoints.save(len(history), state, {"settings": now, "history": history})
                progress.update(task, advance=1, news=f"loss {loss:.3f}  accuracy {share:.3f}")
    if len(history) < settings.epochs:
        return None, history
    return float(job.test(state, for_test)), history


def _progress() -> Progress:
    return Progress(
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[news]}"),
    )


def layer_config() -> dict[str, Any]:
    """Returns the layer that the flags ask for: ``LAYER`` where they say nothing."""
    given = ("config", "layer", "of", "features", "option")
    if any(flags.FLAGS[name].present for name in given):
        return layer_flags.layer_config()
    return LAYER


def define_flags() -> None:
    """Defines the flags of the command line; those of the layer are in ``layer_flags``."""
    flags.DEFINE_integer("epochs", Settings.epochs, "How many.", lower_bound=1)
    flags.DEFINE_integer("updates", Settings.updates, "Of an epoch.", lower_bound=1)
    flags.DEFINE_integer("batch_size", Settings.batch_size, "Sequences per update.", lower_bound=1)
    flags.DEFINE_integer("steps", Settings.steps, "Of a sequence.", lower_bound=MARKED_WITHIN + 1)
    flags.DEFINE_float("learning_rate", Settings.learning_rate, "Of Adam, at its highest.")
    flags.DEFINE_integer("tests", Settings.tests, "Sequences to judge by.", lower_bound=1)
    flags.DEFINE_integer("seed", Settings.seed, "Of everything random.")
    flags.DEFINE_string("workdir", None, "Folder of the run; default runs/long_recall/LAYER-SEED.")
    flags.DEFINE_bool("resume", True, "Go on from what --workdir holds, or start anew.")


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step that it takes
    if len(arguments) > 1:
        raise app.UsageError(f"expected flags only, got {' '.join(arguments[1:])}")
    try:
        settings = layer_flags.settings(Settings, layer_config())
        registry.build(settings.layer)
    except (registry.RegistryError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    label = f"{layer_flags.label(settings.layer)}-{settings.seed}"
    workdir = Path(flags.FLAGS.workdir or f"runs/long_recall/{label}")
    try:
        with StopRequest() as request:
            reached, history = run(
                settings, workdir, fresh=not flags.FLAGS.resume, stop=lambda: request.asked
            )
    except OtherSettingsError as error:
        sys.exit(str(error))
    if reached is None:
        print(
            f"stopped after epoch {len(history)} of {settings.epochs}; the same command goes on "
            f"from there ({workdir})"
        )
        return
    chart = workdir / "result.png"
    losses, shares, seconds = (
        [epoch[name] for epoch in history] for name in ("loss", "accuracy", "seconds")
    )
    title = f"{json.dumps(settings.layer)}: {reached:.3f} right"
    draw_curve(chart, title, losses, shares, GUESSING)
    print(f"right answers   {reached:.3f}")
    print(f"by guessing     {GUESSING:.3f}")
    print(f"training        {np.sum(seconds):.0f} s")
    print(f"checkpoint      {workdir / 'checkpoints'}")
    print(f"chart           {chart}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
