"""Decoder: the layers of one pipeline stage on one rank, with the embedding in front or the LM head behind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from simtool.calibration.executor.calls import Calls, run_through
from simtool.calibration.executor.dense import Dense
from simtool.calibration.executor.grouped_attention import GroupedAttention
from simtool.calibration.executor.inputs import Layout
from simtool.calibration.executor.latent_attention import LatentMixer
from simtool.calibration.executor.mixture import Mixture
from simtool.calibration.executor.nano_batches import Turns
from simtool.calibration.executor.options import ExecutorOptions, compute_dtype
from simtool.calibration.executor.ranks import Ranks
from simtool.calibration.executor.scheduled import stage_turns
from simtool.calibration.executor.scheduled_layers import ScheduledLayers
from simtool.calibration.executor.site import LayerSite
from simtool.calibration.executor.step import Step
from simtool.calibration.executor.support import rotary_sizes
from simtool.calibration.executor.vocabulary import vocabulary
from simtool.calibration.executor.weights import Weights
from simtool.calibration.kernels.memory import EPSILON, add_norm
from simtool.calibration.profiling.arena import TORCH_DTYPES
from simtool.models.architecture import Attention, LatentAttention, Layer, ModelArchitecture, MoeMlp
from simtool.models.memory import stage_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """Between two layers: what the last one added, and the residual that it is added to, [tokens, hidden] each.

    residual None: nothing was added yet.
    """

    states: torch.Tensor
    residual: torch.Tensor | None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Both, or the one that there is."""
        return [tensor for tensor in (self.states, self.residual) if tensor is not None]

    def split(self, rows: list[int]) -> list[Hidden]:
        """Parts of so many rows each."""
        states = torch.split(self.states, rows)
        residuals = [None] * len(rows) if self.residual is None else torch.split(self.residual, rows)
        return [Hidden(states=one, residual=other) for one, other in zip(states, residuals, strict=True)]


def joined(parts: list[Hidden]) -> Hidden:
    """Parts behind each other; each has passed a layer."""
    residuals = [part.residual for part in parts if part.residual is not None]
    return Hidden(states=torch.cat([part.states for part in parts]), residual=torch.cat(residuals))


class DecoderLayer:
    """Norm, mixer, norm, MLP; each norm adds what came before to the residual."""

    def __init__(self, layer: Layer, site: LayerSite) -> None:
        self._norms = [site.weights.norm(site.index, name, site.hidden) for name in ("mixer_norm", "mlp_norm")]
        self.mixer: GroupedAttention | LatentMixer
        if isinstance(layer.mixer, LatentAttention):
            self.mixer = LatentMixer(layer.mixer, site)
        else:
            assert isinstance(layer.mixer, Attention)
            self.mixer = GroupedAttention(layer.mixer, site)
        self.mlp: Dense | Mixture
        if isinstance(layer.mlp, MoeMlp):
            self.mlp = Mixture(layer.mlp, site)
        else:
            assert layer.mlp is not None
            self.mlp = Dense(site, layer.mlp.intermediate_size, gated=layer.mlp.gated, stored=site.dtypes.mlp)
        self._tensor = site.ranks.tensor

    def __call__(self, hidden: Hidden, step: Step) -> Hidden:
        """One layer on."""
        return run_through(self.calls(hidden, step))

    def calls(self, hidden: Hidden, step: Step) -> Calls[Hidden]:
        """The same, call by call; their names are those of `calls_of`."""
        yield ("attention_in",)
        step.crossed(hidden.states, hidden.residual)
        x, residual = normed(hidden, self._norms[0], step)
        mixed = yield from self.mixer.calls(x, step)
        mixed = yield from self._summed("attention_all_reduce", mixed, step)
        if isinstance(self.mlp, Mixture):
            yield ("route",)
            step.crossed(mixed, residual)
            x, residual = normed(Hidden(states=mixed, residual=residual), self._norms[1], step)
            return Hidden(states=(yield from self.mlp.calls(x, step)), residual=residual)
        yield ("mlp",)
        step.crossed(mixed, residual)
        x, residual = normed(Hidden(states=mixed, residual=residual), self._norms[1], step)
        mixed = yield from self._summed("close", self.mlp(x, step.timer), step)
        return Hidden(states=mixed, residual=residual)

    def _summed(self, call: str, part: torch.Tensor, step: Step) -> Calls[torch.Tensor]:
        if self._tensor.size == 1:
            return part
        yield (call,)
        step.crossed(part)
        return step.timer.run("collective", self._tensor.all_reduce, part)


class Decoder:
    """One stage: its layers in order."""

    def __init__(self, arch: ModelArchitecture, ranks: Ranks, options: ExecutorOptions) -> None:
        self.dtype = TORCH_DTYPES[compute_dtype(arch, options.dtype)]
        weights = Weights(options.seed, options.device, self.dtype)
        span = stage_layers(arch, ranks.parallel)[ranks.place.stage]
        self.layers = []
        for index in span:
            layer = arch.layers[index]
            dtypes = layer.dtypes or arch.dtypes
            site = LayerSite(
                index=index, hidden=arch.hidden_size, weights=weights, ranks=ranks, options=options, dtypes=dtypes
            )
            self.layers.append(DecoderLayer(layer, site))
        self.layout = Layout(
            block_size=options.block_size, rotary=rotary_sizes(arch).pop(), device=options.device, dtype=self.dtype
        )
        self._embedding, self._head = vocabulary(arch, weights, ranks)
        self._norm = weights.norm(-1, "final_norm", arch.hidden_size) if ranks.last else None
        self._scheduled = None
        if options.schedule is not None:
            turns = stage_turns(options.schedule, arch, ranks.parallel, ranks.place.stage)
            self._scheduled = ScheduledLayers(turns, options.device)
        self._turns = Turns(len(options.overlap.nano_batches), options.device)

    def run(self, step: Step, hidden: Hidden | None) -> Hidden:
        """Through the stage; hidden: from the stage before (None at the first)."""
        hidden = self._entered(step, hidden)
        for layer in self.layers:
            hidden = layer(hidden, step)
        return hidden

    def run_parts(self, step: Step, hidden: Hidden | None) -> Hidden:
        """As `run`, of a step in nano-batches: as the schedule says, else in turns, layer by layer."""
        parts = step.inputs.parts
        several = self._entered(step, hidden).split([part.tokens for part in parts])
        if self._scheduled is not None:
            steps = [replace(step, inputs=part, streams=self._scheduled.several) for part in parts]
            self._scheduled.run(lambda n, batch, part: self.layers[n].calls(part, steps[batch]), several)
            return joined(several)
        self._turns.begin()
        for layer in self.layers:
            for place, part in enumerate(parts):
                with self._turns.turn(place):
                    several[place] = layer(several[place], replace(step, inputs=part))
        self._turns.end([tensor for one in several for tensor in one.tensors])
        return joined(several)

    def _entered(self, step: Step, hidden: Hidden | None) -> Hidden:
        if hidden is not None:
            return hidden
        assert self._embedding is not None
        return Hidden(states=self._embedding(step.inputs.ids, step.timer), residual=None)

    def logits(self, hidden: Hidden, step: Step) -> torch.Tensor:
        """Of the rows that are sampled, [samples, vocabulary]."""
        assert self._head is not None
        assert self._norm is not None
        states, _ = normed(hidden, self._norm, step)
        return self._head(states[step.inputs.sampled], step.timer)


def normed(hidden: Hidden, weight: torch.Tensor, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of states and residual together, and the new residual."""
    if hidden.residual is None:
        found = step.timer.run("elementwise", F.rms_norm, hidden.states, weight.shape, weight, EPSILON)
        return found, hidden.states
    return step.timer.run("elementwise", add_norm, hidden.states, hidden.residual, weight)
