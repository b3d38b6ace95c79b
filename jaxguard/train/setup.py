"""From sections of a configuration to placed weights and a compiled step: shape -> sharding -> sharded arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool

from jaxguard.batch import Batch
from jaxguard.config import MeshConfig, ModelConfig, TrainConfig
from jaxguard.models import folders, weights
from jaxguard.models.adapters import Adapter
from jaxguard.models.architecture import Architecture, Leaf, Parameters, architecture
from jaxguard.objective.base import Metrics
from jaxguard.train import sharding
from jaxguard.train.state import TrainState, abstract_state, initial_state, make_optimizer, partition
from jaxguard.train.step import Constants, StepPlan, make_step


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint's model on a mesh, without its weights."""

    folder: Path
    architecture: Architecture
    mesh: Mesh
    shardings: dict[str, NamedSharding]


@dataclass(frozen=True)
class Model(ModelSpec, Generic[Leaf]):
    """The same with its weights, or (`describe_model`) their shapes alone."""

    parameters: dict[str, Leaf]

    @property
    def spec(self) -> ModelSpec:
        """The model without its weights: what may live on when they are freed."""
        return ModelSpec(self.folder, self.architecture, self.mesh, self.shardings)


def load_model(model: ModelConfig, mesh: MeshConfig, seed: int) -> Model[Array]:
    """Place a checkpoint's weights on a mesh; trainable ones in float32.

    Args:
        model: which checkpoint, and what of it trains.
        mesh: devices along each axis.
        seed: of weights that no checkpoint holds.
    """
    described = describe_model(model, mesh, folders.resolve(model.path))
    arch, placed = described.architecture, described.shardings
    if model.init == "random":
        parameters = jax.jit(lambda: arch.initial(seed), out_shardings=placed)()
    else:
        dtypes = {path: leaf.dtype for path, leaf in described.parameters.items()}
        start = folders.adapter(model.path)
        adapter = None if start is None else Adapter(start, arch)
        parameters = weights.load(described.folder, arch, placed, dtypes, adapter)
        if arch.lora is not None:
            trainable, _ = partition(arch.shapes, model.trainable, arch.family)
            parameters |= _fresh(arch, set(trainable), placed, seed)
    return Model(described.folder, arch, described.mesh, placed, parameters)


def describe_model(
    model: ModelConfig, mesh: MeshConfig, folder: Path, devices: Sequence[jax.Device] | None = None
) -> Model[jax.ShapeDtypeStruct]:
    """As `load_model`, with shapes in place of the weights.

    Args:
        model: which checkpoint, and what of it trains.
        mesh: devices along each axis.
        folder: holds the model's config.json.
        devices: of the mesh, where they are not this machine's.
    """
    lora = model.lora if model.trainable == "lora" else None
    arch = architecture(folder, dtype=model.dtype, remat=model.remat, lora=lora)
    made = sharding.make_mesh(mesh, devices)
    placed = sharding.parameter_shardings(arch.shapes, made, arch.family.axes)
    trainable, _ = partition(arch.shapes, model.trainable, arch.family)
    if model.init == "random":
        trainable = arch.shapes

    def describe(path: str) -> jax.ShapeDtypeStruct:
        dtype = np.dtype("float32") if path in trainable else jnp.dtype(model.dtype)
        return jax.ShapeDtypeStruct(arch.shapes[path].shape, dtype, sharding=placed[path])

    return Model(folder, arch, made, placed, {path: describe(path) for path in arch.shapes})


def _fresh(arch: Architecture, paths: set[str], placed: dict[str, NamedSharding], seed: int) -> Parameters:
    """Initial values of some parameters, sharded as they are made."""

    def make() -> Parameters:
        return {path: value for path, value in arch.initial(seed).items() if path in paths}

    return jax.jit(make, out_shardings={path: placed[path] for path in paths})()


@dataclass(frozen=True)
class Setup(Generic[Leaf]):
    """What does not change while a run trains.

    Attributes:
        model: the model without its trainable weights.
        frozen: the weights that do not train.
        optimizer: of the others.
        abstract: shapes and placements of the train state.
    """

    model: ModelSpec
    frozen: dict[str, Leaf]
    optimizer: optax.GradientTransformation
    abstract: TrainState

    def initial(self, trainable: Parameters, *, take: bool = False) -> TrainState:
        """The state at step 0, sharded as it is made.

        Args:
            trainable: the weights to start from.
            take: True if nobody else needs these arrays. The state then holds them themselves, and the first step
                overwrites them; otherwise it holds a copy.
        """
        placed = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        if not take:
            trainable = jax.jit(lambda values: jax.tree.map(jnp.copy, values), out_shardings=placed.parameters)(
                trainable
            )
        memory: Any = None if self.abstract.memory is None else self.abstract.memory.shape

        def rest(values: Parameters) -> tuple[Array, optax.OptState, Array | None]:
            state = initial_state(values, self.optimizer, memory)
            return state.step, state.optimizer, state.memory

        places = (placed.step, placed.optimizer, placed.memory)
        step, optimizer, remembered = jax.jit(rest, out_shardings=places)(trainable)
        return TrainState(step, dict(trainable), optimizer, remembered)


def prepare(
    model: Model[Leaf], trainable: str, train: TrainConfig, memory: tuple[int, int, int] | None = None
) -> tuple[Setup[Leaf], dict[str, Leaf]]:
    """Split the weights into what trains and what is frozen. Returns the setup and the trainable parameters.

    Args:
        model: the weights, or their shapes.
        trainable: which of them train (`model.trainable`).
        train: the optimizer's values.
        memory: shape of what the objective remembers of rows; None keeps nothing.
    """
    values, frozen = partition(model.parameters, trainable, model.architecture.family)
    optimizer = make_optimizer(train)
    shapes = {path: model.architecture.shapes[path] for path in values}
    abstract = abstract_state(shapes, optimizer, memory)
    shardings = sharding.state_shardings(abstract, model.shardings, model.mesh)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, shardings
    )
    return Setup(model.spec, frozen, optimizer, abstract), values


def check_rows(mesh: Mesh, train: TrainConfig, view_share: float | None) -> None:
    """Check that the rows of a micro-batch, and those with a second view, divide over the mesh.

    Args:
        mesh: the devices.
        train: rows of a batch, and micro-batches.
        view_share: share of the rows that get a second view; None if no row does.

    Raises:
        UserError: they do not.
    """
    parts, rows = train.accumulate, train.batch_size // train.accumulate
    name = "train.batch_size" + (f" / train.accumulate ({parts})" if parts > 1 else "")
    sharding.check_batch_size(name, rows, mesh)
    if view_share is not None:
        sharding.check_batch_size(f"{name} x view.rows", int(rows * view_share), mesh)


def trace_step(
    setup: Setup[Leaf],
    plan: StepPlan,
    batch: Batch,
    *,
    reference: dict[str, Leaf] | None = None,
    poisoned: Bool[Leaf, " N"] | None = None,
) -> jax.stages.Traced:
    """The train step for one batch shape, which donates the state; to be lowered and compiled.

    Weights, batch and the rest may be described only (`jax.ShapeDtypeStruct`).

    Args:
        setup: the model, its frozen weights, the optimizer.
        plan: what the step does.
        batch: placed on the mesh.
        reference: the trainable weights that training starts from, for objectives that need them.
        poisoned: True for the poisoned rows of the source, for attackers' objectives that read it.

    Raises:
        ValueError: the objective needs what is not given.
    """
    model = setup.model
    fixed = _constants(setup, plan, reference, poisoned)
    rows, everywhere = sharding.batch_sharding(model.mesh), sharding.replicated(model.mesh)
    state = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    placed = sharding.state_shardings(fixed, model.shardings, model.mesh)
    jitted = jax.jit(
        make_step(plan, setup.optimizer, model.mesh, model.shardings),
        static_argnums=0,
        in_shardings=(placed, state, rows),
        out_shardings=(state, everywhere),
        donate_argnums=2,
    )
    return jitted.trace(model.architecture.graph, fixed, setup.abstract, batch)


class CompiledStep(Generic[Leaf]):
    """The train step, compiled ahead of its first use for one batch shape; arguments as those of `trace_step`.

    A batch of another length (`data.bucket`) compiles it once more, when it comes.
    """

    def __init__(
        self,
        setup: Setup[Leaf],
        plan: StepPlan,
        batch: Batch,
        *,
        reference: dict[str, Leaf] | None = None,
        poisoned: Bool[Leaf, " N"] | None = None,
    ):
        self._constants: Constants[Leaf] = _constants(setup, plan, reference, poisoned)

        def compiled(batch: Batch) -> jax.stages.Compiled:
            return trace_step(setup, plan, batch, reference=reference, poisoned=poisoned).lower().compile()

        self._compile, self.compiled = compiled, compiled(batch)
        self._of_length = {batch.tokens.shape[1]: self.compiled}

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        length = batch.tokens.shape[1]
        if length not in self._of_length:
            self._of_length[length] = self._compile(batch)
        return self._of_length[length](self._constants, state, batch)


def _constants(
    setup: Setup[Leaf], plan: StepPlan, reference: dict[str, Leaf] | None, poisoned: Bool[Leaf, " N"] | None
) -> Constants[Leaf]:
    """What the step reads and never changes: only what its objective needs."""
    needs = plan.objective.needs
    if needs.reference is not None and reference is None:
        raise ValueError("the objective needs the weights that training starts from")
    if needs.labels and poisoned is None:
        raise ValueError("the objective needs to know which rows are poisoned")
    return Constants(setup.frozen, reference if needs.reference else None, poisoned if needs.labels else None)
