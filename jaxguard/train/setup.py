"""From a configuration to placed weights and a jitted step: shape -> sharding -> sharded arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.models import folders, weights
from jaxguard.models.architecture import Architecture, Parameters, architecture
from jaxguard.train import sharding
from jaxguard.train.forward import HeadKind
from jaxguard.train.state import TrainState, abstract_state, initial_state, make_optimizer, partition
from jaxguard.train.step import Metrics, make_step


@dataclass(frozen=True)
class Model:
    """A checkpoint's weights on the mesh, or (`describe_model`) their shapes alone."""

    folder: Path
    architecture: Architecture
    mesh: Mesh
    shardings: dict[str, NamedSharding]
    parameters: Parameters


def load_model(config: Config) -> Model:
    """Place the weights of `config.model` on the mesh of `config.mesh`; trainable ones in float32."""
    model = describe_model(config, folders.resolve(config.model.path))
    arch, placed = model.architecture, model.shardings
    if config.model.init == "random":
        parameters = jax.jit(lambda: arch.initial(config.seed), out_shardings=placed)()
    else:
        dtypes = {path: leaf.dtype for path, leaf in model.parameters.items()}
        parameters = weights.load(model.folder, arch, placed, dtypes)
        if arch.lora is not None:
            trainable, _ = partition(arch.shapes, config.model.trainable, arch.family)
            parameters |= _fresh(arch, set(trainable), placed, config.seed)
    return dataclasses.replace(model, parameters=parameters)


def describe_model(config: Config, folder: Path, devices: Sequence[jax.Device] | None = None) -> Model:
    """As `load_model`, with shapes in place of the weights.

    Args:
        config: the run.
        folder: holds the model's config.json.
        devices: of the mesh, where they are not this machine's.
    """
    lora = config.model.lora if config.model.trainable == "lora" else None
    arch = architecture(folder, dtype=config.model.dtype, remat=config.model.remat, lora=lora)
    mesh = sharding.make_mesh(config.mesh, devices)
    placed = sharding.parameter_shardings(arch.shapes, mesh, arch.family.axes)
    trainable, _ = partition(arch.shapes, config.model.trainable, arch.family)
    if config.model.init == "random":
        trainable = arch.shapes

    def describe(path: str) -> Any:
        dtype = np.dtype("float32") if path in trainable else jnp.dtype(config.model.dtype)
        return jax.ShapeDtypeStruct(arch.shapes[path].shape, dtype, sharding=placed[path])

    return Model(folder, arch, mesh, placed, {path: describe(path) for path in arch.shapes})


def _fresh(arch: Architecture, paths: set[str], placed: dict[str, NamedSharding], seed: int) -> Parameters:
    """Initial values of some parameters, sharded as they are made."""

    def make() -> Parameters:
        return {path: value for path, value in arch.initial(seed).items() if path in paths}

    return jax.jit(make, out_shardings={path: placed[path] for path in paths})()


@dataclass(frozen=True)
class Setup:
    """Everything a loop needs that does not change while it runs."""

    model: Model
    frozen: Parameters
    optimizer: optax.GradientTransformation
    abstract: TrainState
    """Shapes and placements of the train state."""

    def initial(self, trainable: Parameters) -> TrainState:
        """The state at step 0, sharded as it is made."""
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
        return jax.jit(lambda values: initial_state(values, self.optimizer), out_shardings=shardings)(trainable)


def prepare(config: Config, model: Model) -> tuple[Setup, Parameters]:
    """Split the weights into what trains and what is frozen. Returns the setup and the trainable parameters."""
    trainable, frozen = partition(model.parameters, config.model.trainable, model.architecture.family)
    optimizer = make_optimizer(config.train)
    shapes = {path: model.architecture.shapes[path] for path in trainable}
    abstract = abstract_state(shapes, optimizer)
    shardings = sharding.state_shardings(abstract, model.shardings, model.mesh)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, shardings
    )
    return Setup(model, frozen, optimizer, abstract), trainable


def check_rows(config: Config, mesh: Mesh) -> None:
    """Raises UserError where the rows of a micro-batch, or those with a second view, do not divide over the mesh."""
    parts, rows = config.train.accumulate, config.train.batch_size // config.train.accumulate
    name = "train.batch_size" + (f" / train.accumulate ({parts})" if parts > 1 else "")
    sharding.check_batch_size(name, rows, mesh)
    if config.objective.views == 2:
        sharding.check_batch_size(f"{name} x view.rows", int(rows * config.view_share), mesh)


def trace_step(
    config: Config, setup: Setup, end_token: int, batch: Batch, head: HeadKind = "auto"
) -> jax.stages.Traced:
    """The train step for one batch shape, which donates the state; to be lowered and compiled.

    The weights of `setup` and the batch may be described only (`jax.ShapeDtypeStruct`).
    """
    mesh, graph = setup.model.mesh, setup.model.architecture.graph
    step = make_step(
        config.objective,
        setup.optimizer,
        steps=config.train.steps,
        answer_length=config.data.answer_length,
        end_token=end_token,
        dropout_seed=config.seed if config.model.trainable == "lora" and config.model.lora.dropout else None,
        mesh=mesh,
        places=setup.model.shardings,
        share=config.view_share,
        accumulate=config.train.accumulate,
        head=head,
    )
    state = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract)
    frozen = {path: setup.model.shardings[path] for path in setup.frozen}
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    jitted = jax.jit(
        step,
        static_argnums=0,
        in_shardings=(frozen, state, rows),
        out_shardings=(state, everywhere),
        donate_argnums=2,
    )
    return jitted.trace(graph, setup.frozen, setup.abstract, batch)


class CompiledStep:
    """The train step, compiled ahead of its first use for one batch shape.

    A batch of another length (`data.bucket`) compiles it once more, when it comes.
    """

    def __init__(self, config: Config, setup: Setup, end_token: int, batch: Batch, head: HeadKind = "auto"):
        self._frozen = setup.frozen
        self._compile = lambda batch: trace_step(config, setup, end_token, batch, head).lower().compile()
        self.compiled = self._compile(batch)
        self._of_length = {batch.tokens.shape[1]: self.compiled}

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        length = batch.tokens.shape[1]
        if length not in self._of_length:
            self._of_length[length] = self._compile(batch)
        return self._of_length[length](self._frozen, state, batch)
