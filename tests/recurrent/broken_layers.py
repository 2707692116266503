"""Layers that break one promise each, and the check of the conformance kit that finds it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.recurrent import ScanElman
from zoo.recurrent.call.checks import ShapeError


class WrongWidth(ScanElman):
    @property
    def output_features(self):
        return super().output_features + 1


class NotALayer(nn.Module):
    features: int
    causal = True
    output_features = 3

    @nn.compact
    def __call__(self, carry, xs):
        return carry, nn.Dense(self.features)(xs)

    def initialize_carry(self, rng, shape):
        return jnp.zeros(shape[:-1])


class OtherTypeWhenCalledAgain(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        calls = type(self).calls = getattr(type(self), "calls", 0) + 1
        return carry, ys.astype(jnp.float16) if calls > 2 else ys


class OtherwiseUnderJit(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys + 0.01 if isinstance(xs, jax.core.Tracer) else ys


class OtherStep(ScanElman):
    def step(self, carry, x):
        carry, y = super().step(carry, x)
        return carry, y * 1.01


class FeelsTheNumberOfSteps(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys + 0.01 * xs.shape[0]


class LooksAhead(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys + 0.1 * ys[::-1]


class DeafToLateInputs(ScanElman):
    def __call__(self, carry, xs, **conditions):
        return super().__call__(carry, xs.at[2:].set(0.0), **conditions)


class MixesRows(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys - ys.mean(axis=-2, keepdims=True)


class DeafToTimeAxis(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys[::-1] if self.time_axis == 1 else ys


class DeafToTimeBeforeFeatures(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys[::-1] if self.time_axis == -2 else ys


class ForgetsWithoutSteps(ScanElman):
    def __call__(self, carry, xs, **conditions):
        final, ys = super().__call__(carry, xs, **conditions)
        return final if xs.shape[0] else jnp.zeros_like(final), ys


class HistoryWithoutItsBeginning(ScanElman):
    def carries(self, carry, xs, **conditions):
        history = super().carries(carry, xs, **conditions)
        return jnp.concatenate([history[1:], history[-1:]])


class OneBatchAxisAtMost(ScanElman):
    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return super().initialize_carry(rng, (input_shape[0], input_shape[-1]))


class ReversedOutputs(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys[::-1] if self.reverse else ys


class SaysThatItIsCausal(ScanElman):
    causal = True


class OtherFused(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys * 1.01 if self.implementation == "fused" else ys


class AlwaysWantsAKey(ScanElman):
    def __call__(self, carry, xs, *, deterministic=True, **conditions):
        self.make_rng("dropout")
        return super().__call__(carry, xs, **conditions)

    def init(self, rngs, *args, **kwargs):
        return super().init({"params": rngs, "dropout": rngs}, *args, **kwargs)


class DeafToLengths(ScanElman):
    def __call__(self, carry, xs, *, seq_lengths=None, **conditions):
        return super().__call__(carry, xs, **conditions)


class HoldsOutputsWhereMasked(ScanElman):
    def __call__(self, carry, xs, *, mask=None, **conditions):
        carry, ys = super().__call__(carry, xs, mask=mask, **conditions)
        return carry, ys if mask is None else jnp.where(mask[..., None], ys, 0.1)


class ResetsOneStepLate(ScanElman):
    def __call__(self, carry, xs, *, resets=None, **conditions):
        if resets is not None:
            resets = jnp.roll(resets, 1, axis=0).at[0].set(False)
        return super().__call__(carry, xs, resets=resets, **conditions)


class PostponesSkippedResets(ScanElman):
    def __call__(self, carry, xs, *, mask=None, resets=None, **conditions):
        if mask is not None and resets is not None:
            resets = resets | jnp.roll(resets & ~mask, 1, axis=0)
        return super().__call__(carry, xs, mask=mask, resets=resets, **conditions)


class MakesSkippedResets(ScanElman):
    """The carry of a sequence whose last steps are skipped is that of the reset among them."""

    def __call__(self, carry, xs, *, mask=None, resets=None, **conditions):
        final, ys = super().__call__(carry, xs, mask=mask, resets=resets, **conditions)
        if mask is not None and resets is not None:
            final = jnp.where((resets & ~mask)[-1, :, None], jnp.zeros_like(final), final)
        return final, ys


class ResetsTwice(ScanElman):
    def __call__(self, carry, xs, *, resets=None, **conditions):
        if resets is not None:
            resets = resets | jnp.roll(resets, 1, axis=0).at[0].set(False)
        return super().__call__(carry, xs, resets=resets, **conditions)


class WrongHistoryWithMasks(ScanElman):
    def history(self, carry, xs, *, mask=None, **conditions):
        history, ys = super().history(carry, xs, **conditions)
        return history, ys if mask is None else jnp.where(mask[..., None], ys, 0.0)


class HistoryOfOtherOutputs(ScanElman):
    def history(self, carry, xs, **conditions):
        history, ys = super().history(carry, xs, **conditions)
        return history, ys * 1.01


class DrawsFromAConstantKey(ScanElman):
    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return super().initialize_carry(jax.random.key(0), input_shape)

    def __call__(self, carry, xs, **conditions):
        if carry is None:
            carry = self.initialize_carry(None, xs.shape[1:])
        return super().__call__(carry, xs, **conditions)


class ResetsToZeros(ScanElman):
    """Whatever the initial carry is."""

    def __call__(self, carry, xs, *, resets=None, **conditions):
        if resets is None or self.learned_carry:
            return super().__call__(carry, xs, resets=resets, **conditions)
        if carry is None:
            carry = self.initialize_carry(None, xs.shape[1:])
        cleared = jnp.where(resets[0, :, None], jnp.zeros_like(carry), carry)
        carry, ys = ScanElman(3, name="cleared", parent=None).apply(
            {"params": self.variables["params"]}, cleared, xs, resets=resets, **conditions
        )
        return carry, ys


class LearnsNothing(ScanElman):
    def __call__(self, carry, xs, **conditions):
        if not self.learned_carry or self.is_initializing():
            return super().__call__(carry, xs, **conditions)
        params = self.variables["params"]
        cut = {"initial_h": jax.lax.stop_gradient(params["initial_h"])}
        layer = ScanElman(self.features, learned_carry=True, parent=None)
        return layer.apply({"params": {**params, **cut}}, carry, xs, **conditions)


class AlwaysDrops(ScanElman):
    def __call__(self, carry, xs, *, deterministic=True, **conditions):
        if self.dropout_rate:
            xs = xs * (1 - self.dropout_rate)
        return super().__call__(carry, xs, deterministic=deterministic, **conditions)


class NeverDrops(ScanElman):
    def __call__(self, carry, xs, *, deterministic=True, **conditions):
        if not deterministic:
            self.make_rng("dropout")
        return super().__call__(carry, xs, **conditions)


class MultipliesByZero(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys + 0 * jnp.sum(xs)


class BlocksAGradient(ScanElman):
    def __call__(self, carry, xs, **conditions):
        if carry is not None:
            carry = jax.lax.stop_gradient(carry)
        return super().__call__(carry, xs, **conditions)


@jax.custom_vjp
def masked(xs, mask):
    return jnp.where(mask[..., None], xs, 0.0)


masked.defvjp(lambda xs, mask: (masked(xs, mask), None), lambda _, cotangent: (cotangent * 2, None))


class WrongGradientWithMasks(ScanElman):
    def __call__(self, carry, xs, *, mask=None, **conditions):
        if mask is not None:
            xs = masked(xs, mask)
        return super().__call__(carry, xs, mask=mask, **conditions)


class OtherFusedGradientWithMasks(WrongGradientWithMasks):
    def __call__(self, carry, xs, **conditions):
        if self.implementation == "fused":
            return super().__call__(carry, xs, **conditions)
        return ScanElman.__call__(self, carry, xs, **conditions)


class CarriesNaNOverResets(ScanElman):
    def __call__(self, carry, xs, **conditions):
        final, ys = super().__call__(carry, xs, **conditions)
        return final if carry is None else final + 0 * carry, ys


class Float32AtLeast(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys.astype(jnp.float32) if ys.dtype.itemsize == 2 else ys


class Float32AtMost(ScanElman):
    def __call__(self, carry, xs, **conditions):
        carry, ys = super().__call__(carry, xs, **conditions)
        return carry, ys.astype(jnp.float32) if ys.dtype == jnp.float64 else ys


class AParameterPerStep(ScanElman):
    @nn.compact
    def __call__(self, carry, xs, **conditions):
        self.param("position", nn.initializers.zeros, (xs.shape[0],))
        return super().__call__(carry, xs, **conditions)


class NamesDependOnThePlace(ScanElman):
    @nn.compact
    def __call__(self, carry, xs, **conditions):
        self.param("alone" if self.name is None else "inside", nn.initializers.zeros, (1,))
        return super().__call__(carry, xs, **conditions)


class RunsToInitialise(ScanElman):
    def init(self, *args, **kwargs):
        return nn.Module.init(self, *args, **kwargs)


class SaysNothing(ScanElman):
    def describe(self, input_shape):
        return ""


class TakesIntegers(ScanElman):
    def __call__(self, carry, xs, **conditions):
        return super().__call__(carry, jnp.asarray(xs, jnp.float32), **conditions)


class RefusesWithoutWords(ScanElman):
    def __call__(self, carry, xs, **conditions):
        if xs.ndim < 2:
            raise ShapeError("no")
        return super().__call__(carry, xs, **conditions)


class DeafToIntervals(ScanElman):
    @property
    def reads_intervals(self):
        return True


class TakesIntervalsSilently(ScanElman):
    def _check_intervals(self, intervals):
        pass


class ClipsLengths(ScanElman):
    def __call__(self, carry, xs, *, seq_lengths=None, **conditions):
        if seq_lengths is not None:
            seq_lengths = jnp.clip(seq_lengths, 0, xs.shape[0])
        return super().__call__(carry, xs, seq_lengths=seq_lengths, **conditions)


# The check that finds it, the broken layer, words of the message.
BROKEN = [
    ("check_shapes", WrongWidth, ["ys: expected shape (4, 3, 4), got (4, 3, 3)"]),
    ("check_shapes", NotALayer, ["expected a RecurrentLayer"]),
    ("check_eval_shape", OtherTypeWhenCalledAgain, ["float16", "float32"]),
    ("check_jit", OtherwiseUnderJit, ["eager", "expected", "got"]),
    ("check_steps", OtherStep, ["(carry, ys) of the steps[1]"]),
    ("check_chunks", FeelsTheNumberOfSteps, ["(carry, ys) of the chunks[1]"]),
    ("check_causality", LooksAhead, ["ys before t=2"]),
    ("check_causality", DeafToLateInputs, ["expected to change with xs"]),
    ("check_batch_axes", MixesRows, ["without batch axes, under jax.vmap"]),
    ("check_time_axis", DeafToTimeAxis, ["time_axis=1"]),
    ("check_time_axis", DeafToTimeBeforeFeatures, ["time_axis=-2"]),
    ("check_no_steps", ForgetsWithoutSteps, ["the carry", "same bits"]),
    ("check_carries", HistoryWithoutItsBeginning, ["carries()"]),
    ("check_carries", HistoryOfOtherOutputs, ["ys of history(), with no conditions"]),
    ("check_carries", WrongHistoryWithMasks, ["history(), with seq_lengths, mask, resets"]),
    ("check_random_carry", DrawsFromAConstantKey, ["of two keys: expected to differ"]),
    ("check_random_carry", ResetsToZeros, ["ys from a reset on"]),
    ("check_learned_carry", LearnsNothing, ["gradient by variables", "'initial_h'"]),
    ("check_initialize_carry", OneBatchAxisAtMost, ["the initial carry for batch ()"]),
    ("check_reverse", ReversedOutputs, ["(carry, ys)[1]"]),
    ("check_reverse", SaysThatItIsCausal, ["causal: expected False"]),
    ("check_implementations", OtherFused, ["implementation='fused'", "with no conditions"]),
    ("check_implementations", OtherFusedGradientWithMasks, ["gradients", "with seq_lengths, mask"]),
    ("check_activations", OtherFused, ["first derivatives of implementation='fused'"]),
    ("check_deterministic", AlwaysWantsAKey, ["Expected it to run", "dropout"]),
    ("check_dropouts", AlwaysDrops, ["dropout_rate=0.5, deterministic"]),
    ("check_dropouts", NeverDrops, ["expected to differ from deterministic ones"]),
    ("check_seq_lengths", DeafToLengths, ["length 0"]),
    ("check_mask", HoldsOutputsWhereMasked, ["(carry, ys), against steps taken by hand[1]"]),
    ("check_resets", ResetsOneStepLate, ["ys with a reset at every step"]),
    ("check_resets", ResetsTwice, ["(carry, ys), against steps taken by hand"]),
    ("check_skipped_resets", PostponesSkippedResets, ["without resets on skipped steps"]),
    ("check_skipped_resets", MakesSkippedResets, ["without resets on skipped steps"]),
    ("check_intervals", DeafToIntervals, ["ys with other intervals: expected others"]),
    ("check_intervals", TakesIntervalsSilently, ["expected a TypeError, got none"]),
    ("check_conditions_together", PostponesSkippedResets, ["against steps taken by hand"]),
    ("check_padding_cannot_leak", MultipliesByZero, ["with nan in xs"]),
    ("check_resets_stop_leaks", MultipliesByZero, ["with nan in xs"]),
    ("check_resets_stop_leaks", CarriesNaNOverResets, ["with nan in the carry"]),
    ("check_gradients", WrongGradientWithMasks, ["gradient by xs with seq_lengths, mask, resets"]),
    ("check_gradients", BlocksAGradient, ["gradient by carry", "central differences"]),
    ("check_dtypes", Float32AtLeast, ["expected bfloat16, got float32"]),
    ("check_dtypes", Float32AtMost, ["expected float64, got float32"]),
    ("check_parameters", AParameterPerStep, ["['position']"]),
    ("check_parents", NamesDependOnThePlace, ["in a compact parent", "memory/inside"]),
    ("check_init_cost", RunsToInitialise, ["Likely cause: it runs the sequence"]),
    ("check_describe", SaysNothing, ["describe"]),
    ("check_refusals", TakesIntegers, ["integer xs: expected a TypeError that names xs, got none"]),
    ("check_refusals", RefusesWithoutWords, ["xs of one axis", "got ShapeError: no"]),
    ("check_length_range", ClipsLengths, ["seq_lengths of -1"]),
]
