"""Tells nine speakers apart by their vowels, with a recurrent layer of your choice.

    python examples/japanese_vowels.py
    python examples/japanese_vowels.py --layer=scan_lstm --features=128 --option=forget_bias=1.0
    python examples/japanese_vowels.py --layer=bidirectional --of=scan_gru
    python examples/japanese_vowels.py --layer=stack --of=scan_gru --option=num_layers=2
    python examples/japanese_vowels.py --config=model.json
    python examples/japanese_vowels.py --api=nnx

The recordings (JapaneseVowels, 7 to 29 steps of 12 coefficients) come with the package sktime. The
layer reads a padded batch with ``seq_lengths``; its outputs, which are zero on padding, are
averaged over each recording's own steps, and a linear layer names the speaker.

Every finished epoch is kept in ``--workdir``, whole or not at all. Ctrl-C stops after the current
epoch; the same command goes on from there, with the same numbers as if it had never been stopped.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import layer_flags
import numpy as np
import optax
import speaker_classifier
import vowel_recordings
from absl import app, flags, logging
from resumable import Checkpoints, OtherSettingsError, StopRequest, require_same
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from training_chart import draw
from vowel_recordings import SPEAKERS, Recordings

import registry


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides a run's numbers.

    Attributes:
      layer: a mapping for ``registry.build``.
      epochs: passes over the training data.
      batch_size: recordings per step.
      learning_rate: at the start; it falls to 0 along a cosine.
      weight_decay: of AdamW.
      label_smoothing: share of the target that is spread over all speakers.
      dropout: of what the linear layer reads.
      noise: added to training inputs, in standard deviations of each coefficient.
      seed: of parameters, batches, noise and dropout.
      api: what the model is written in, "linen" or "nnx": the numbers are the same.
    """

    layer: dict[str, Any]
    epochs: int = 40
    batch_size: int = 30
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    dropout: float = 0.2
    noise: float = 0.5
    seed: int = 0
    api: str = "linen"


class State(NamedTuple):
    """What training changes."""

    variables: Any
    optimiser: Any


class Training(NamedTuple):
    """How a run is started, advanced by one epoch and judged.

    Attributes:
      start: key, recordings -> state.
      epoch: state, key, recordings -> state, mean loss; compiled.
      predict: state, recordings -> speakers (N,); compiled.
    """

    start: Callable[[jax.Array, Recordings], State]
    epoch: Callable[[State, jax.Array, Recordings], tuple[State, jax.Array]]
    predict: Callable[[State, Recordings], jax.Array]


def training(settings: Settings, examples: int) -> Training:
    """Puts a run together.

    Args:
      settings: see ``Settings``.
      examples: how many recordings there are to train on.
    """
    write = {"linen": speaker_classifier.in_linen, "nnx": speaker_classifier.in_nnx}[settings.api]
    model = write(settings.layer, settings.dropout)
    batch = min(settings.batch_size, examples)
    batches = examples // batch
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.epochs * batches)
    optimiser = optax.adamw(rate, weight_decay=settings.weight_decay)

    def start(key: jax.Array, recordings: Recordings) -> State:
        variables = model.init(key, recordings.xs, recordings.seq_lengths)
        return State(variables, optimiser.init(variables))

    def loss(variables: Any, key: jax.Array, some: Recordings) -> jax.Array:
        for_noise, for_dropout = jax.random.split(key)
        xs = some.xs + settings.noise * jax.random.normal(for_noise, some.xs.shape)
        logits = model.logits(variables, xs, some.seq_lengths, for_dropout)
        targets = jax.nn.one_hot(some.speakers, SPEAKERS)
        targets = optax.smooth_labels(targets, settings.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    def epoch(state: State, key: jax.Array, recordings: Recordings) -> tuple[State, jax.Array]:
        for_order, for_batches = jax.random.split(key)
        order = jax.random.permutation(for_order, examples)[: batches * batch]

        def update(state: State, at: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            key, which = at
            value, gradient = jax.value_and_grad(loss)(state.variables, key, recordings.take(which))
            change, moments = optimiser.update(gradient, state.optimiser, state.variables)
            return State(optax.apply_updates(state.variables, change), moments), value

        keys = jax.random.split(for_batches, batches)
        state, losses = jax.lax.scan(update, state, (keys, order.reshape(batches, batch)))
        return state, losses.mean()

    def predict(state: State, recordings: Recordings) -> jax.Array:
        logits = model.logits(state.variables, recordings.xs, recordings.seq_lengths, None)
        return jnp.argmax(logits, axis=-1)

    return Training(start, jax.jit(epoch), jax.jit(predict))


def run(
    settings: Settings,
    workdir: Path,
    train: Recordings,
    test: Recordings,
    *,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[State, list[dict[str, float]]]:
    """Trains to the last epoch, or until asked to stop, from what ``workdir`` holds.

    Args:
      settings: see ``Settings``.
      workdir: where finished epochs are kept.
      train: what to train on.
      test: what to judge every epoch by; nothing is chosen by it.
      fresh: whether to forget what ``workdir`` holds.
      stop: asked after every epoch.

    Returns:
      The state, and for every finished epoch its loss, test accuracy and seconds.

    Raises:
      OtherSettingsError: ``workdir`` holds a run with other settings.
    """
    job = training(settings, len(train.speakers))
    state = job.start(jax.random.key(settings.seed), train)
    order = jax.random.key(settings.seed + 1)
    now = dataclasses.asdict(settings)
    history: list[dict[str, float]] = []
    with Checkpoints(workdir, fresh=fresh) as checkpoints:
        found = checkpoints.restore(state)
        if found is not None:
            state, notes = found
            require_same(notes["settings"], now, workdir)
            history = notes["history"]
        if len(history) == settings.epochs:
            return state, history
        epoch = job.epoch.lower(state, order, train).compile()
        with _progress() as progress:
            task = progress.add_task("", total=settings.epochs, completed=len(history), news="")
            while len(history) < settings.epochs and not stop():
                began = time.perf_counter()
                key = jax.random.fold_in(order, len(history))
                state, loss = jax.block_until_ready(epoch(state, key, train))
                seconds = time.perf_counter() - began
                accuracy = float(np.mean(np.asarray(job.predict(state, test)) == test.speakers))
                history.append({"loss": float(loss), "accuracy": accuracy, "seconds": seconds})
                checkpoints.save(len(history), state, {"settings": now, "history": history})
                news = f"loss {loss:.3f}  accuracy {accuracy:.3f}"
                progress.update(task, advance=1, news=news)
    return state, history


def _progress() -> Progress:
    return Progress(
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[news]}"),
    )


def define_flags() -> None:
    """Defines the flags of the command line; those of the layer are in ``layer_flags``."""
    flags.DEFINE_integer("epochs", Settings.epochs, "Passes over the training data.", lower_bound=1)
    flags.DEFINE_integer("batch_size", Settings.batch_size, "Recordings per step.", lower_bound=1)
    flags.DEFINE_float("learning_rate", Settings.learning_rate, "At the start; it falls to 0.")
    flags.DEFINE_float("weight_decay", Settings.weight_decay, "Of AdamW.")
    flags.DEFINE_float("label_smoothing", Settings.label_smoothing, "Spread over all speakers.")
    flags.DEFINE_float("dropout", Settings.dropout, "Of what the linear layer reads.")
    flags.DEFINE_float("noise", Settings.noise, "Added to inputs, in standard deviations.")
    flags.DEFINE_integer("seed", Settings.seed, "Of parameters, batches, noise and dropout.")
    flags.DEFINE_enum("api", Settings.api, ["linen", "nnx"], "What the model is written in.")
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; default runs/japanese_vowels/LAYER-SEED."
    )
    flags.DEFINE_bool("resume", True, "Go on from what --workdir holds, or start anew.")
    flags.DEFINE_string("data_dir", None, "Folder of the recordings; default sktime's.")


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step that it takes
    if len(arguments) > 1:
        raise app.UsageError(f"expected flags only, got {' '.join(arguments[1:])}")
    try:
        settings = layer_flags.settings(Settings, layer_flags.layer_config())
        registry.build(settings.layer)
        train, test = vowel_recordings.load(flags.FLAGS.data_dir)
    except (registry.RegistryError, ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    label = f"{layer_flags.label(settings.layer)}-{settings.seed}"
    label += "" if settings.api == "linen" else f"-{settings.api}"
    workdir = Path(flags.FLAGS.workdir or f"runs/japanese_vowels/{label}")
    try:
        with StopRequest() as request:
            state, history = run(
                settings,
                workdir,
                train,
                test,
                fresh=not flags.FLAGS.resume,
                stop=lambda: request.asked,
            )
    except OtherSettingsError as error:
        sys.exit(str(error))
    if len(history) < settings.epochs:
        print(
            f"stopped after epoch {len(history)} of {settings.epochs}; the same command goes on "
            f"from there ({workdir})"
        )
        return
    _report(settings, workdir, state, history, test)


def _report(
    settings: Settings,
    workdir: Path,
    state: State,
    history: list[dict[str, float]],
    test: Recordings,
) -> None:
    predictions = np.asarray(training(settings, 1).predict(state, test))
    losses, accuracies, seconds = (
        [epoch[name] for epoch in history] for name in ("loss", "accuracy", "seconds")
    )
    chart = workdir / "result.png"
    title = f"{json.dumps(settings.layer)}: test accuracy {accuracies[-1]:.4f}"
    draw(chart, title, losses, accuracies, test.speakers, predictions)
    print(f"test accuracy   {accuracies[-1]:.4f}")
    print(f"time per epoch  {statistics.median(seconds):.3f} s")
    print(f"checkpoint      {workdir / 'checkpoints'}")
    print(f"chart           {chart}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
