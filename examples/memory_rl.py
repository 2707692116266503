"""A memory task for reinforcement learning that an agent can only solve with ``resets``.

    python examples/memory_rl.py
    python examples/memory_rl.py --layer=scan_lstm --features=32

Every step shows one of four symbols. The first symbol of an episode is the cue; the symbols after
it are drawn from the same alphabet and mean nothing. Now and then the environment asks, and naming
the cue is rewarded. An episode may end after any step, and the next one begins at once, inside the
same rollout.

Nothing in an observation tells a cue from a distractor: a cue is a cue because the episode has just
begun. With ``resets`` the layer starts every episode from its initial carry, so the first symbol
finds an empty memory and is kept. Without them the memory still holds the last episode's cue when
a new one is shown, and the agent cannot know that it is stale. It has to guess when the episode
began; how well the best guess does is computed exactly, and is not much better than chance. No
training removes that limit.

The agent is a one-step actor-critic. A rollout goes on where the last one stopped: it stores the
carry that it started from, and learning replays it from there in one call of the layer, with the
``resets`` that acting saw. ``resets`` is ``is_first``: the previous step's ``done``.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import layer_flags
import optax
from absl import app, flags, logging
from rich.progress import Progress

import registry
from zoo.recurrent import RecurrentLayer

SYMBOLS = 4
END = 0.1  # probability that the episode ends after a step
ASK = 0.3  # probability that a step asks; an episode's first step never does


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an agent is trained.

    Attributes:
      updates: how many.
      environments: how many side by side.
      steps: of a rollout.
      learning_rate: of Adam.
      discount: of later rewards.
      entropy: weight of the policy's entropy.
      seed: of everything random.
    """

    updates: int = 500
    environments: int = 64
    steps: int = 24
    learning_rate: float = 3e-3
    discount: float = 0.5
    entropy: float = 0.01
    seed: int = 0


class World(NamedTuple):
    """The environments' states, B of them.

    Attributes:
      cue: int (B,), the first symbol of the episode.
      symbol: int (B,), what is shown.
      asks: bool (B,), whether the cue is asked for.
      is_first: bool (B,), whether the episode has just begun. The agent's ``resets``; it is not
        part of the observation.
    """

    cue: jax.Array
    symbol: jax.Array
    asks: jax.Array
    is_first: jax.Array

    def observation(self) -> jax.Array:
        """What the agent sees: float (B, SYMBOLS + 1)."""
        shown = jax.nn.one_hot(self.symbol, SYMBOLS)
        return jnp.concatenate([shown, self.asks[:, None].astype(shown.dtype)], axis=-1)


def begin(key: jax.Array, environments: int) -> World:
    """Begins an episode in every environment."""
    symbol = jax.random.randint(key, (environments,), 0, SYMBOLS)
    yes = jnp.ones((environments,), bool)
    return World(cue=symbol, symbol=symbol, asks=~yes, is_first=yes)


def advance(key: jax.Array, world: World, action: jax.Array) -> tuple[World, jax.Array, jax.Array]:
    """Takes one step in every environment; where an episode ends, the next one begins.

    Args:
      key: for the ends, the symbols and the questions.
      world: the environments.
      action: int (B,), the symbol that is named.

    Returns:
      The environments, the rewards, float (B,), and which episodes are done, bool (B,).
    """
    for_end, for_symbol, for_ask = jax.random.split(key, 3)
    reward = (world.asks & (action == world.cue)).astype(jnp.float32)
    done = jax.random.bernoulli(for_end, END, world.cue.shape)
    symbol = jax.random.randint(for_symbol, world.cue.shape, 0, SYMBOLS)
    asks = jax.random.bernoulli(for_ask, ASK, world.cue.shape) & ~done
    cue = jnp.where(done, symbol, world.cue)
    return World(cue=cue, symbol=symbol, asks=asks, is_first=done), reward, done


class Agent(nn.Module):
    """A recurrent layer with a policy and a value on top."""

    layer: RecurrentLayer

    @nn.compact
    def __call__(
        self, carry: Any, observations: jax.Array, resets: jax.Array | None
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Maps (T, B, SYMBOLS + 1) to the carry, logits (T, B, SYMBOLS) and values (T, B)."""
        carry, ys = self.layer(carry, observations, resets=resets)
        return carry, nn.Dense(SYMBOLS)(ys), nn.Dense(1)(ys)[..., 0]


class Rollout(NamedTuple):
    """What acting leaves for learning: arrays (T, B, ...), and the carry it started from."""

    carry: Any
    observations: jax.Array
    is_first: jax.Array
    actions: jax.Array
    logits: jax.Array
    rewards: jax.Array
    dones: jax.Array
    worlds: World


def act(
    agent: Agent,
    variables: Any,
    carry: Any,
    world: World,
    key: jax.Array,
    steps: int,
    *,
    with_resets: bool,
    greedy: bool = False,
) -> tuple[Any, World, Rollout]:
    """Acts for some steps, one call of the layer per step.

    Args:
      agent: who acts.
      variables: the agent's.
      carry: where the memory stands, from the rollout before.
      world: where the environments stand.
      key: for the actions and the environments.
      steps: how many.
      with_resets: whether the agent's memory is reset where an episode begins.
      greedy: whether to take the likeliest action instead of drawing one.

    Returns:
      Memory and environments as they stand afterwards, and what happened.
    """

    def one(state: tuple[Any, World], key: jax.Array) -> tuple[tuple[Any, World], tuple[Any, ...]]:
        carry, world = state
        for_action, for_world = jax.random.split(key)
        seen = world.observation()
        resets = world.is_first[None] if with_resets else None
        carry, logits, _ = agent.apply(variables, carry, seen[None], resets)
        drawn = jax.random.categorical(for_action, logits[0])
        action = jnp.argmax(logits[0], axis=-1) if greedy else drawn
        after, reward, done = advance(for_world, world, action)
        return (carry, after), (seen, world.is_first, action, logits[0], reward, done, world)

    keys = jax.random.split(key, steps)
    (after, world), happened = jax.lax.scan(one, (carry, world), keys)
    return after, world, Rollout(carry, *happened)


def loss(
    agent: Agent,
    variables: Any,
    rollout: Rollout,
    after: World,
    settings: Settings,
    *,
    with_resets: bool,
) -> jax.Array:
    """Replays a rollout in one call of the layer and judges its actions.

    Args:
      agent: who acted.
      variables: the agent's.
      rollout: what happened.
      after: the environments after its last step, for the value of what comes then.
      settings: for discount and entropy.
      with_resets: as it was in acting.
    """
    observations = jnp.concatenate([rollout.observations, after.observation()[None]])
    is_first = jnp.concatenate([rollout.is_first, after.is_first[None]])
    _, logits, values = agent.apply(
        variables, rollout.carry, observations, is_first if with_resets else None
    )
    goes_on = 1.0 - rollout.dones.astype(values.dtype)
    targets = jax.lax.stop_gradient(rollout.rewards + settings.discount * goes_on * values[1:])
    surprise = targets - values[:-1]
    policy = jax.nn.log_softmax(logits[:-1])
    chosen = jnp.take_along_axis(policy, rollout.actions[..., None], axis=-1)[..., 0]
    gain = jnp.mean(jax.lax.stop_gradient(surprise) * chosen)
    spread = -jnp.mean(jnp.sum(jnp.exp(policy) * policy, axis=-1))
    return 0.5 * jnp.mean(surprise**2) - gain - settings.entropy * spread


def success(rollout: Rollout) -> jax.Array:
    """Share of the questions that were answered rightly, those of the first episodes left out."""
    asked = rollout.worlds.asks & (jnp.cumsum(rollout.dones, axis=0) > 0)
    return jnp.mean(rollout.rewards, where=asked)


def limit_without_resets(key: jax.Array, environments: int, steps: int) -> jax.Array:
    """Success of the best guess from observations alone, by Bayes' rule.

    The belief in each symbol being the cue is exact: a step that asks is never a first one, and any
    other is one with probability END / (END + (1 - END) (1 - ASK)).
    """
    begins = END / (END + (1 - END) * (1 - ASK))

    def one(
        state: tuple[jax.Array, World, jax.Array], key: jax.Array
    ) -> tuple[tuple[jax.Array, World, jax.Array], tuple[jax.Array, jax.Array]]:
        belief, world, later = state
        new = begins * jax.nn.one_hot(world.symbol, SYMBOLS) + (1 - begins) * belief
        belief = jnp.where(world.asks[:, None], belief, new)
        after, reward, done = advance(key, world, jnp.argmax(belief, axis=-1))
        return (belief, after, later | done), (reward, world.asks & later)

    for_begin, for_steps = jax.random.split(key)
    belief = jnp.full((environments, SYMBOLS), 1 / SYMBOLS)
    start = (belief, begin(for_begin, environments), jnp.zeros((environments,), bool))
    _, (rewards, asked) = jax.lax.scan(one, start, jax.random.split(for_steps, steps))
    return jnp.mean(rewards, where=asked)


def train(
    layer: RecurrentLayer,
    settings: Settings,
    *,
    with_resets: bool,
    report: Callable[[int], None] = lambda finished: None,
) -> float:
    """Trains an agent and returns its success in new environments, acting greedily.

    Args:
      layer: the agent's memory, time first.
      settings: see ``Settings``.
      with_resets: whether its memory is reset where an episode begins.
      report: called with the number of updates as they are finished.
    """
    agent = Agent(layer)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate))
    for_variables, for_world, for_updates, for_test = jax.random.split(
        jax.random.key(settings.seed), 4
    )

    def update(state: Any, key: jax.Array) -> tuple[Any, None]:
        variables, moments, carry, world = state
        carry, world, rollout = act(
            agent, variables, carry, world, key, settings.steps, with_resets=with_resets
        )
        gradient = jax.grad(loss, argnums=1)(
            agent, variables, rollout, world, settings, with_resets=with_resets
        )
        change, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(variables, change), moments, carry, world), None

    def start(key: jax.Array, count: int) -> tuple[Any, World]:
        world = begin(key, count)
        return layer.initialize_carry(key, world.observation().shape), world

    carry, world = start(for_world, settings.environments)
    variables = agent.init(for_variables, carry, world.observation()[None], None)
    state = (variables, optimiser.init(variables), carry, world)
    several = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys)[0])
    keys = jax.random.split(for_updates, settings.updates)
    for first in range(0, settings.updates, 50):
        state = jax.block_until_ready(several(state, keys[first : first + 50]))
        report(min(50, settings.updates - first))

    @jax.jit
    def test(variables: Any, key: jax.Array) -> jax.Array:
        carry, world = start(key, 256)
        return success(
            act(agent, variables, carry, world, key, 256, with_resets=with_resets, greedy=True)[2]
        )

    return float(test(state[0], for_test))


def define_flags() -> None:
    """Defines the flags of the command line; those of the layer are in ``layer_flags``."""
    flags.DEFINE_integer("updates", Settings.updates, "Updates of each agent.", lower_bound=1)
    flags.DEFINE_integer("environments", Settings.environments, "Side by side.", lower_bound=1)
    flags.DEFINE_integer("steps", Settings.steps, "Steps of a rollout.", lower_bound=1)
    flags.DEFINE_float("learning_rate", Settings.learning_rate, "Of Adam.")
    flags.DEFINE_float("discount", Settings.discount, "Of later rewards.")
    flags.DEFINE_float("entropy", Settings.entropy, "Weight of the policy's entropy.")
    flags.DEFINE_integer("seed", Settings.seed, "Of everything random.")


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    logging.set_verbosity(logging.WARNING)
    if len(arguments) > 1:
        raise app.UsageError(f"expected flags only, got {' '.join(arguments[1:])}")
    try:
        layer = registry.build(layer_flags.layer_config())
        if not layer.causal:
            raise ValueError("expected a layer that goes forwards only: an agent acts step by step")
    except (registry.RegistryError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    settings = Settings(
        **{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Settings)}
    )
    began = time.perf_counter()
    reached = {}
    with Progress() as progress:
        for with_resets in (True, False):
            label = "with resets" if with_resets else "without resets"
            task = progress.add_task(f"{label:14}", total=settings.updates)
            reached[label] = train(
                layer,
                settings,
                with_resets=with_resets,
                report=lambda finished, task=task: progress.advance(task, finished),
            )
    limit = float(limit_without_resets(jax.random.key(settings.seed), 256, 256))
    print("questions answered rightly")
    for label, share in reached.items():
        print(f"  {label:30} {share:.3f}")
    print(f"  {'best possible without resets':30} {limit:.3f}")
    print(f"  {'by chance':30} {1 / SYMBOLS:.3f}")
    print(f"after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    define_flags()
    app.run(main)
