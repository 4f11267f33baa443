"""Shard: what one device of one data-parallel rank holds of one pipeline stage, and where its peers are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from simtool.errors import InputError
from simtool.models.architecture import (
    Attention,
    FeedForward,
    LatentAttention,
    Mixer,
    ModelArchitecture,
    MoeMlp,
    WeightDtypes,
)
from simtool.models.memory import stage_layers
from simtool.plan import Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One device's part of stage `stage` of a replica that starts at a node's first device.

    Ranks lie as vLLM lays them: data-parallel outermost, then pipeline, then tensor (innermost, neighbours).
    devices_per_node 0: everything is in one node. mixers, mlps: distinct parts of the stage's layers, their weight
    dtypes and how many layers have each.
    """

    arch: ModelArchitecture
    parallel: Parallel
    stage: int
    kv_dtype: str
    devices_per_node: int
    mixers: tuple[tuple[Mixer, WeightDtypes, int], ...]
    mlps: tuple[tuple[FeedForward, WeightDtypes, int], ...]

    @property
    def first(self) -> bool:
        """Holds the embedding."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """Holds the final norm and the LM head."""
        return self.stage == self.parallel.pp - 1

    @property
    def sequence_parallel(self) -> bool:
        """vLLM cuts a rank's tokens over its TP group before the experts when tp, dp > 1 and experts are spread.

        Source: vLLM `ParallelConfig.use_sequence_parallel_moe`.
        """
        return self.parallel.tp > 1 and self.parallel.dp > 1 and self.parallel.ep > 1

    @property
    def tp_nodes(self) -> int:
        """Nodes a tensor-parallel group touches, at worst."""
        p = self.parallel
        starts = [(d * p.pp + self.stage) * p.tp for d in range(p.dp)]
        return max(self._nodes(range(start, start + p.tp)) for start in starts)

    @property
    def expert_nodes(self) -> int:
        """Nodes that the tp x dp devices of this stage touch (the expert group)."""
        p = self.parallel
        return self._nodes([(d * p.pp + self.stage) * p.tp + t for d in range(p.dp) for t in range(p.tp)])

    @property
    def next_stage_nodes(self) -> int:
        """2 where some device's peer in the next stage is on another node, else 1."""
        p = self.parallel
        ranks = [(d * p.pp + self.stage) * p.tp + t for d in range(p.dp) for t in range(p.tp)]
        return max(self._nodes((rank, rank + p.tp)) for rank in ranks)

    @property
    def spans(self) -> tuple[int, int, int]:
        """Nodes of the tensor-parallel group, of the expert group, and of a transfer to the next stage."""
        return self.tp_nodes, self.expert_nodes, self.next_stage_nodes

    def _nodes(self, ranks: range | list[int] | tuple[int, ...]) -> int:
        if self.devices_per_node <= 0:
            return 1
        return len({rank // self.devices_per_node for rank in ranks})


def make_shard(
    arch: ModelArchitecture,
    parallel: Parallel,
    stage: int,
    *,
    kv_dtype: str = "auto",
    devices_per_node: int = 0,
) -> Shard:
    """The shard of `arch` under `parallel`. Raises InputError where heads or experts cannot be cut evenly."""
    if not 0 <= stage < parallel.pp:
        raise InputError(stage, f"a stage of pp={parallel.pp} is between 0 and {parallel.pp - 1}")
    span = stage_layers(arch, parallel)[stage]
    layers = arch.layers[span.start : span.stop]
    mixers = Counter((layer.mixer, layer.dtypes or arch.dtypes) for layer in layers if layer.mixer is not None)
    mlps = Counter((layer.mlp, layer.dtypes or arch.dtypes) for layer in layers if layer.mlp is not None)
    if parallel.ep > 1 and not any(isinstance(layer.mlp, MoeMlp) for layer in arch.layers):
        raise InputError(f"ep={parallel.ep}", f"{arch.name} has no experts to spread", "ep=1 for a dense model")
    for mixer, _ in mixers:
        _check_mixer(mixer, parallel.tp)
    for mlp, _ in mlps:
        _check_experts(mlp, parallel)
    return Shard(
        arch=arch,
        parallel=parallel,
        stage=stage,
        kv_dtype=arch.kv_dtype if kv_dtype == "auto" else kv_dtype,
        devices_per_node=devices_per_node,
        mixers=tuple((mixer, dtypes, count) for (mixer, dtypes), count in mixers.items()),
        mlps=tuple((mlp, dtypes, count) for (mlp, dtypes), count in mlps.items()),
    )


def _check_mixer(mixer: Mixer, tp: int) -> None:
    if mixer.num_heads % tp:
        raise InputError(f"tp={tp}", f"must divide the {mixer.num_heads} attention heads")
    if isinstance(mixer, Attention) and mixer.num_kv_heads % tp and tp % mixer.num_kv_heads:
        raise InputError(f"tp={tp}", f"must divide or be a multiple of the {mixer.num_kv_heads} KV heads")


def _check_experts(mlp: FeedForward, parallel: Parallel) -> None:
    if not isinstance(mlp, MoeMlp):
        return
    if mlp.num_experts % parallel.ep:
        raise InputError(f"ep={parallel.ep}", f"must divide the {mlp.num_experts} experts")
    if parallel.tp * parallel.dp % parallel.ep:
        raise InputError(f"ep={parallel.ep}", f"must divide tp x dp = {parallel.tp * parallel.dp}")


def kv_heads_per_rank(mixer: Attention, tp: int) -> int:
    """KV heads on a rank; replicated where there are fewer heads than ranks."""
    return max(1, mixer.num_kv_heads // tp)


def latent_width(mixer: LatentAttention) -> int:
    """Elements a token of the MLA cache: the compressed KV and the rotary key."""
    return mixer.kv_lora_rank + mixer.qk_rope_head_dim
