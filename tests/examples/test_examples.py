"""The examples: their parts on made-up data, and (slow) what they promise on the real one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import registry

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}


@pytest.fixture(scope="module", autouse=True)
def modules() -> Any:
    """Imports from the folder of the examples, as Python does when it runs one of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import layer_flags  # noqa: F401  (defines flags, before any are saved)

        yield


@pytest.fixture
def command_line() -> Any:
    """Parses flags, and forgets them afterwards."""
    with flagsaver.flagsaver():
        yield lambda *arguments: flags.FLAGS(["example", *arguments])


def write_recordings(folder: Path) -> None:
    """Nine speakers, each a pitch of his own, in the format of the real recordings."""
    random = np.random.default_rng(0)
    for part, count in (("TRAIN", 27), ("TEST", 18)):
        lines = ["# made up", "@classLabel true 1 2 3 4 5 6 7 8 9", "@data"]
        for n in range(count):
            speaker = n % 9
            length = 7 + n % 5
            steps = speaker + 0.1 * random.normal(size=(12, length))
            rows = (",".join(f"{value:.6f}" for value in row) for row in steps)
            lines.append(":".join([*rows, str(speaker + 1)]))
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join(lines) + "\n")


class TestLayerFlags:
    @pytest.mark.parametrize(
        ("arguments", "config"),
        [
            ([], {"name": "scan_gru", "features": 64}),
            (["--layer=gru", "--features=8"], {"name": "gru", "features": 8}),
            (
                ["--layer=bidirectional", "--of=scan_mgu"],
                {"name": "bidirectional", "layer": "scan_mgu", "features": 64},
            ),
            (
                ["--option=use_bias=false", "--option=gate_fn=hard_sigmoid", "--option=unroll=2"],
                {
                    "name": "scan_gru",
                    "features": 64,
                    "use_bias": False,
                    "gate_fn": "hard_sigmoid",
                    "unroll": 2,
                },
            ),
        ],
    )
    def test_they_name_a_layer(self, command_line, arguments, config):
        import layer_flags

        command_line(*arguments)
        assert layer_flags.layer_config() == config
        registry.build(config)

    def test_a_file_holds_the_mapping(self, command_line, tmp_path):
        import layer_flags

        config = {"name": "stack", "num_layers": 2, "layer": {"name": "scan_gru", "features": 4}}
        (tmp_path / "model.json").write_text(json.dumps(config))
        command_line(f"--config={tmp_path / 'model.json'}")
        assert layer_flags.layer_config() == config
        assert layer_flags.label(config) == "stack-scan_gru"

    @pytest.mark.parametrize(
        "arguments", [["--config=model.json", "--layer=scan_gru"], ["--option=features"]]
    )
    def test_they_refuse_what_is_ambiguous(self, command_line, arguments):
        with pytest.raises(flags.IllegalFlagValueError):
            command_line(*arguments)

    def test_a_file_without_a_mapping_is_refused(self, command_line, tmp_path):
        import layer_flags

        (tmp_path / "model.json").write_text("[1]")
        command_line(f"--config={tmp_path / 'model.json'}")
        with pytest.raises(ValueError, match="expected a mapping"):
            layer_flags.layer_config()


class TestRecordings:
    def test_they_are_standardised_and_padded(self, tmp_path):
        import vowel_recordings

        write_recordings(tmp_path)
        train, test = vowel_recordings.load(str(tmp_path))
        assert train.xs.shape == (11, 27, 12)
        assert test.xs.shape == (11, 18, 12)
        assert list(train.seq_lengths[:6]) == [7, 8, 9, 10, 11, 7]
        assert list(train.speakers[:10]) == [*range(9), 0]
        inside = np.arange(11)[:, None] < train.seq_lengths
        assert not train.xs[~inside].any()
        np.testing.assert_allclose(train.xs[inside].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(train.xs[inside].std(axis=0), 1, atol=1e-6)


class TestTraining:
    @pytest.fixture
    def job(self, tmp_path):
        import japanese_vowels
        import vowel_recordings

        write_recordings(tmp_path)
        data = vowel_recordings.load(str(tmp_path))
        layer = {"name": "scan_elman", "features": 4}

        def run(workdir, *, stop_after=4, **settings):
            """Runs in a folder until so many epochs more are finished."""
            asked = iter(range(100))
            # Optax mixes dtypes.
            with jax.numpy_dtype_promotion("standard"):
                return japanese_vowels.run(
                    japanese_vowels.Settings(layer, epochs=4, batch_size=9, **settings),
                    tmp_path / workdir,
                    *data,
                    stop=lambda: next(asked) == stop_after,
                )

        return run

    def test_a_stopped_run_goes_on_to_the_same_bits(self, job, tmp_path):
        import resumable

        whole, history = job("whole")
        stopped, first_part = job("parts", stop_after=2)
        assert len(history) == 4
        assert [epoch["loss"] for epoch in first_part] == [epoch["loss"] for epoch in history[:2]]
        assert not np.array_equal(jax.tree.leaves(stopped)[-1], jax.tree.leaves(whole)[-1])

        # What a process killed while it was writing leaves behind.
        (tmp_path / "parts" / "checkpoints" / "3.orbax-checkpoint-tmp" / "state").mkdir(
            parents=True
        )
        resumed, both_parts = job("parts")
        assert [epoch["loss"] for epoch in both_parts] == [epoch["loss"] for epoch in history]
        assert both_parts[:2] == first_part
        jax.tree.map(np.testing.assert_array_equal, resumed, whole)

        again, same = job("parts", stop_after=0)
        assert same == both_parts
        jax.tree.map(np.testing.assert_array_equal, again, whole)
        with pytest.raises(resumable.OtherSettingsError, match=r"noise=0\.5"):
            job("parts", noise=0.1)

    def test_both_forms_of_flax_train_to_the_same_numbers(self, job):
        (linen, history), (nnx, again) = job("linen"), job("nnx", api="nnx")
        for what in ("loss", "accuracy"):
            expected = [epoch[what] for epoch in history]
            np.testing.assert_allclose([epoch[what] for epoch in again], expected, rtol=1e-5)
        leaves = jax.tree.leaves(nnx.variables), jax.tree.leaves(linen.variables)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *leaves)

    def test_padding_does_not_count(self):
        from speaker_classifier import SpeakerClassifier

        model = SpeakerClassifier(registry.build("scan_gru", features=4))
        xs = jax.random.normal(jax.random.key(0), (9, 3, 12))
        lengths = jnp.array([9, 4, 1])
        variables = model.init(jax.random.key(1), xs, lengths)
        together = model.apply(variables, xs.at[4:, 1].set(jnp.nan), lengths)
        alone = model.apply(variables, xs[:4, 1:2], lengths[1:2])
        np.testing.assert_allclose(together[1], alone[0], atol=1e-6)

    def test_a_signal_asks_and_a_second_one_stops(self):
        from resumable import StopRequest

        # A shell starts programs in the background with the signal ignored.
        inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with StopRequest() as request:
                assert not request.asked
                signal.raise_signal(signal.SIGINT)
                assert request.asked
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        finally:
            signal.signal(signal.SIGINT, inherited)

    def test_the_chart_is_a_picture(self, tmp_path):
        from training_chart import draw

        truth = np.arange(9)
        draw(tmp_path / "a.png", "title", [2.0, 1.0], [0.5, 0.9], truth, truth[::-1])
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def acted() -> Any:
    """Two rollouts of a fresh agent, the second going on where the first stopped."""
    import memory_rl

    agent = memory_rl.Agent(registry.build("scan_gru", features=8))
    world = memory_rl.begin(jax.random.key(0), 6)
    carry = jnp.zeros((6, 8))
    variables = agent.init(jax.random.key(1), carry, world.observation()[None], None)
    rollouts = []
    for n in range(2):
        key = jax.random.key(2 + n)
        carry, world, rollout = memory_rl.act(
            agent, variables, carry, world, key, 40, with_resets=True
        )
        rollouts.append(rollout)
    return agent, variables, rollouts


class TestMemory:
    def test_the_cue_is_the_first_symbol_and_looks_like_any_other(self, acted):
        import memory_rl

        bare = [rollout._replace(carry=()) for rollout in acted[2]]
        rollout = jax.tree.map(lambda *parts: np.concatenate(parts), *bare)
        world = rollout.worlds
        assert world.is_first[0].all()
        np.testing.assert_array_equal(world.is_first[1:], rollout.dones[:-1])
        before = np.concatenate([world.symbol[:1], world.cue[:-1]])
        np.testing.assert_array_equal(world.cue, np.where(world.is_first, world.symbol, before))
        assert not (world.asks & world.is_first).any()
        assert world.asks.any()
        assert rollout.dones.any(axis=0).all()
        np.testing.assert_array_equal(rollout.rewards, world.asks & (rollout.actions == world.cue))
        shown = np.eye(memory_rl.SYMBOLS)[world.symbol]
        expected = np.concatenate([shown, world.asks[..., None]], axis=-1)
        np.testing.assert_array_equal(rollout.observations, expected)

    def test_replaying_a_rollout_gives_what_acting_gave(self, acted):
        agent, variables, rollouts = acted
        for rollout in rollouts:
            arguments = (variables, rollout.carry, rollout.observations)
            _, logits, _ = agent.apply(*arguments, rollout.is_first)
            np.testing.assert_allclose(logits, rollout.logits, atol=1e-5)
            _, logits, _ = agent.apply(*arguments, None)
            assert np.abs(logits - rollout.logits).max() > 1e-3

    def test_the_limit_is_that_of_the_best_guess(self):
        """Between chance and, what a guess of the latest symbols reaches, far below certainty."""
        import memory_rl

        limit = float(memory_rl.limit_without_resets(jax.random.key(0), 256, 128))
        assert 1.2 / memory_rl.SYMBOLS < limit < 0.5


class TestLongRecall:
    def test_the_marked_symbol_is_the_answer(self):
        import long_recall

        steps = 100
        xs, answers = long_recall.sequences(jax.random.key(0), steps, 5)
        assert xs.shape == (steps, 5, long_recall.SYMBOLS + 1)
        symbols, marks = np.asarray(xs[..., :-1]), np.asarray(xs[..., -1])
        np.testing.assert_array_equal(marks.sum(axis=0), 1)
        place = marks.argmax(axis=0)
        assert (place < long_recall.MARKED_WITHIN).all()
        np.testing.assert_array_equal(symbols[place, range(5)].argmax(axis=-1), answers)
        assert set(np.unique(symbols.sum(axis=-1))) <= {0.0, 1.0}
        many = long_recall.sequences(jax.random.key(1), steps, 400)[0]
        shown = float(many[..., :-1].sum()) / 400 - 1
        assert shown == pytest.approx(steps * long_recall.SHOWN, rel=0.2)

    @pytest.mark.slow  # what both examples share is tested above
    def test_a_stopped_run_goes_on_to_the_same_bits(self, tmp_path):
        import long_recall
        from resumable import OtherSettingsError

        layer = {**long_recall.LAYER, "features": 4}
        sizes = {"updates": 2, "batch_size": 3, "steps": 100, "tests": 5}

        def run(workdir, stop_after=3, **others):
            asked = iter(range(100))
            settings = long_recall.Settings(layer, epochs=3, **sizes, **others)
            stop = lambda: next(asked) == stop_after  # noqa: E731
            # Optax mixes dtypes.
            with jax.numpy_dtype_promotion("standard"):
                return long_recall.run(settings, tmp_path / workdir, stop=stop)

        whole, history = run("whole")
        assert 0.0 <= whole <= 1.0 and len(history) == 3
        nothing, first_part = run("parts", stop_after=1)
        assert nothing is None and len(first_part) == 1
        resumed, both_parts = run("parts")
        assert resumed == whole and both_parts[:1] == first_part
        assert [e["loss"] for e in both_parts] == [e["loss"] for e in history]
        with pytest.raises(OtherSettingsError, match="seed=0"):
            run("parts", seed=1)

    def test_its_layer_is_long_of_memory_unless_another_is_asked_for(self, command_line):
        import long_recall

        command_line()
        assert long_recall.layer_config() == long_recall.LAYER
        command_line("--layer=scan_lstm")
        assert long_recall.layer_config() == {"name": "scan_lstm", "features": 64}

    def test_the_chart_is_a_picture(self, tmp_path):
        from training_chart import draw_curve

        draw_curve(tmp_path / "a.png", "title", [2.0, 1.0], [0.1, 0.9], 0.125)
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def started(*arguments: Any, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def said(process: subprocess.Popen) -> str:
    """What a process prints, once it has ended well."""
    with process:
        output, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (0, "")
    return output


@pytest.mark.slow
class TestPromises:
    @pytest.mark.parametrize(
        ("layer", "least", "seeds"),
        [
            ({"name": "scan_gru", "features": 64}, 0.94, 1),
            ({"name": "scan_lstm", "features": 64}, 0.94, 1),
            ({"name": "scan_simplified_gru", "features": 64}, 0.94, 1),
            ({"name": "bidirectional", "layer": "scan_gru", "features": 64}, 0.975, 3),
        ],
        ids=lambda value: value["name"] if isinstance(value, dict) else "",
    )
    def test_mean_accuracy_over_seeds(self, tmp_path, layer, least, seeds):
        pytest.importorskip("sktime")
        import japanese_vowels
        import vowel_recordings

        data = vowel_recordings.load()
        accuracies = []
        for seed in range(seeds):
            settings = japanese_vowels.Settings(layer, seed=seed)
            with jax.numpy_dtype_promotion("standard"):
                _, history = japanese_vowels.run(settings, tmp_path / str(seed), *data)
            accuracies.append(history[-1]["accuracy"])
        assert np.mean(accuracies) >= least, accuracies

    def test_ctrl_c_keeps_finished_epochs(self, tmp_path):
        write_recordings(tmp_path)
        command = [EXAMPLES / "japanese_vowels.py", f"--data_dir={tmp_path}", "--epochs=15"]
        assert "test accuracy" in said(started(*command, f"--workdir={tmp_path / 'whole'}"))

        stopped = started(*command, f"--workdir={tmp_path / 'parts'}")
        checkpoints = tmp_path / "parts" / "checkpoints"
        while not any(checkpoints.glob("[0-9]")):
            assert stopped.poll() is None
            time.sleep(0.01)
        stopped.send_signal(signal.SIGINT)
        assert "stopped after epoch" in said(stopped)
        assert "test accuracy" in said(started(*command, f"--workdir={tmp_path / 'parts'}"))
        whole, parts = (tmp_path / name / "result.png" for name in ("whole", "parts"))
        assert parts.read_bytes() == whole.read_bytes()

    def test_memory_needs_resets(self, tmp_path):
        output = said(started(EXAMPLES / "memory_rl.py", cwd=tmp_path))
        shares = dict(re.findall(r"^  (\w[\w ]*\w) +(\d\.\d+)$", output, re.MULTILINE))
        with_resets, without = float(shares["with resets"]), float(shares["without resets"])
        limit = float(shares["best possible without resets"])
        assert with_resets >= 0.98
        assert without <= limit + 0.03 < 0.5

    @pytest.mark.parametrize(
        ("options", "least", "most"),
        [([], 0.95, 1.0), (["--layer=scan_lstm", "--features=32"], 0.0, 0.25)],
        ids=["scan_lru", "scan_lstm"],
    )
    def test_a_linear_layer_alone_remembers_over_4000_steps(self, tmp_path, options, least, most):
        output = said(started(EXAMPLES / "long_recall.py", *options, cwd=tmp_path))
        assert least <= float(re.search(r"right answers +(\d\.\d+)", output)[1]) <= most
        assert len(list(tmp_path.glob("runs/long_recall/*/result.png"))) == 1
