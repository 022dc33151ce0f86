"""Merges a transform into a checkpoint on disk, tensor by tensor, so that an export needs far less memory than the model.

The cut, the merge and the mended configuration are those of `surgery`, done on a model without memory in which only the
carrier's writers are real. The names stay those of the source, also where transformers renames or fuses them while loading
(see `models.tensor_names`): the result loads the way the source did.
"""

import copy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from replaceme_core.artifacts import LinearTransform, ModelHandle, Proof
from replaceme_core.errors import ModelError
from replaceme_core.models.architecture.families import blocks_of, require_mergeable
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.checkpoints.quiet import one_bar
from replaceme_core.models.checkpoints.tensor_names import UNQUANTISED, Names, Part, assembled
from replaceme_core.models.quantised import on_meta
from replaceme_core.plans.plan import ExportSection
from replaceme_core.progress import SILENT, Progress
from replaceme_core.storage import tensor_files
from replaceme_core.storage.folders import require_space, staged, writing
from replaceme_core.storage.tensor_files import Entry
from replaceme_core.surgery import surgery
from replaceme_core.surgery.mending import require_cut
from replaceme_core.surgery.merge import merge

_TOLERANCE = {"F64": 1e-9, "F32": 1e-5, "BF16": 1e-2, "F16": 2e-3}
"""relative difference (Frobenius) that rounding the merged weights to their dtype may make"""
_COPIED = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*")
_TEMPLATES = "additional_chat_templates"
"""folder of a tokenizer that has several"""
_PROBES = 64


@dataclass(frozen=True, eq=False)
class _Job:
    """What is written: entry by entry, from where, and the tensors that are new."""

    pruned: Any
    """the pruned model, all on the meta device but the carrier's writers"""
    written: list[Entry]
    origin: dict[str, Entry]
    """new name -> entry of the source"""
    targets: dict[str, str]
    """new name -> the pruned model's tensor that it is, or is a part of"""
    changed: dict[str, Tensor]
    """new name -> merged values"""

    def read(self, entry: Entry) -> Tensor:
        """The values of one written entry."""
        tensor = self.changed.get(entry.name)
        tensor = self.origin[entry.name].read() if tensor is None else tensor
        return tensor.to(entry.torch_dtype) if entry.is_floating else tensor


def merge_into_checkpoint(
    source: str | Path,
    transform: LinearTransform,
    out: str | Path,
    family: Family,
    section: ExportSection | None = None,
    progress: Progress = SILENT,
) -> tuple[Proof, ...]:
    """The pruned checkpoint in the new folder `out`, whole or not at all: weights, configuration, tokenizer.

    `source` is the folder of the unquantised checkpoint; its dtypes stay unless `section` names one. Raises `ModelError`
    for a checkpoint that does not fit the model, `ExportError` for a disk or folder, `ProofError` for a wrong result.
    """
    with staged(Path(out)) as folder:
        return write_merged(Path(source), transform, folder, family, section, progress)


def require_rewritable(handle: ModelHandle) -> None:
    """A `ModelError` before any pass for a handle whose checkpoint is what will be merged into, but cannot be."""
    if handle.checkpoint is not None and handle.family.inputs == "images":
        raise ModelError(f"'{handle.name}' reads images; such a model is not pruned quantised or spread. Load it as it is, on one device.")
    if handle.checkpoint is not None:
        Names(_meta_of(handle.checkpoint)).parts(tensor_files.entries(handle.checkpoint), handle.checkpoint)


def write_merged(
    source: Path, transform: LinearTransform, folder: Path, family: Family, section: ExportSection | None, progress: Progress = SILENT
) -> tuple[Proof, ...]:
    """The same into an empty folder that exists."""
    require_matrix_or_removal(transform)
    section = section or ExportSection()
    model = _meta_of(source)
    names = Names(model)
    parts = names.parts(tensor_files.entries(source), source)
    cut = transform.cut.check(len(blocks_of(model, require_mergeable(family))))
    carrier = transform.span.carrier
    require_cut(model, family, cut)
    paths = [] if transform.matrix is None else _materialise(model, family, carrier, parts)
    job = _prepare(model, names, parts, transform, family, section)
    require_space(folder, sum(entry.n_bytes for entry in job.written))
    tensor_files.write_shards(folder, job.written, section.max_shard_size, _reported(job, progress))
    with writing(folder):
        _write_rest(source, folder, job.pruned, section)
    left = len(blocks_of(model, family)) - len(cut)
    proofs = [surgery.require(_prove_names(folder, job, family, left)), surgery.require(_prove_untouched(folder, job))]
    if transform.matrix is not None:
        proofs.append(surgery.require(_prove_writers(model, folder, job, transform, family, paths)))
    return tuple(proofs)


def require_matrix_or_removal(transform: LinearTransform) -> None:
    """A `ModelError` for a transform of which a merge on disk would write only a part: it knows one matrix, and removal."""
    if transform.weights or transform.stand_ins:
        what = "new weights of blocks" if transform.weights else "linear layers in the place of blocks"
        raise ModelError(
            f"The transform of '{transform.method}' holds {what}, which are put into a model that is whole in memory and never into its "
            "checkpoint. Load the model unquantised on one device (--device auto or cpu, not spread), or choose a transform of one matrix "
            "('weighted_least_squares')."
        )


def _meta_of(source: Path) -> Any:
    from transformers import AutoConfig

    return on_meta(AutoConfig.from_pretrained(source, trust_remote_code=False))


def _materialise(model: Any, family: Family, carrier: int, parts: list[Part]) -> list[str]:
    """Reads the carrier's writers into the model without memory; returns the paths of those that the block has."""
    prefix = f"{family.blocks}.{carrier}."
    found = []
    for path in family.writers:
        for name in dict.fromkeys(part.target for part in parts):
            if name in (prefix + path, f"{prefix}{path}_bias") or name.startswith(f"{prefix}{path}."):
                _put(model, name, assembled([part for part in parts if part.target == name]))
                found.append(path)
    return list(dict.fromkeys(found))


def _put(module: nn.Module, name: str, values: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Parameter(values, requires_grad=False))


def _prepare(model: Any, names: Names, parts: list[Part], transform: LinearTransform, family: Family, section: ExportSection) -> _Job:
    """Cuts and merges as in memory, and pairs every tensor of the result with its origin."""
    originals = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    kept = transform.cut.kept(len(blocks_of(model, family)))
    pruned = surgery.cut(model, family, transform.cut)
    if transform.matrix is not None:
        merge(blocks_of(pruned, family)[transform.span.carrier], family, transform.matrix)
    new = {name: tensor.detach() for name, tensor in pruned.state_dict(keep_vars=True).items() if id(tensor) not in originals}
    for name, tensor in new.items():
        if tensor.is_meta:
            raise ModelError(f"Cutting blocks out of '{family.name}' changes '{name}' too; {UNQUANTISED}.")
    origin, targets, changed = {}, {}, {}
    for part in parts:
        placed = _placed(part, names, family, kept)
        if placed is not None:
            name, target = placed
            origin[name], targets[name] = part.entry, target
            if target in new:
                changed[name] = part.of(new[target])
    written = [tensor_files.as_dtype(replace(entry, name=name), section.dtype) for name, entry in origin.items()]
    return _Job(pruned, written, origin, targets, changed)


def _placed(part: Part, names: Names, family: Family, kept: list[int]) -> tuple[str, str] | None:
    """(checkpoint's name, model's name) of a part after the cut; None in a removed block."""
    prefix = f"{family.blocks}."
    if not part.target.startswith(prefix):
        return part.entry.name, part.target
    number, _, rest = part.target.removeprefix(prefix).partition(".")
    if int(number) not in kept:
        return None
    target = f"{prefix}{kept.index(int(number))}.{rest}"
    name = names.renumbered(part, target, int(number), kept.index(int(number)))
    if name is None:
        raise ModelError(f"The block of '{part.entry.name}' cannot be renumbered in the checkpoint; {UNQUANTISED}.")
    return name, target


def _reported(job: _Job, progress: Progress) -> Any:
    """`job.read` that says how far the writing is, in MiB."""
    total, done = sum(entry.n_bytes for entry in job.written), 0

    def read(entry: Entry) -> Tensor:
        nonlocal done
        done += entry.n_bytes
        progress.update(-(-done >> 20), -(-total >> 20), "MiB", "writing the weights")
        return job.read(entry)

    return read


def _write_rest(source: Path, folder: Path, pruned: Any, section: ExportSection) -> None:
    """The mended configuration, and the tokenizer and generation settings as they are."""
    config = copy.deepcopy(pruned.config)
    config.architectures = [type(pruned).__name__]
    if section.dtype is not None:
        config.dtype = getattr(torch, section.dtype)
    config.save_pretrained(folder)
    for pattern in (*_COPIED, "generation_config.json"):
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    if (source / _TEMPLATES).is_dir():
        shutil.copytree(source / _TEMPLATES, folder / _TEMPLATES)


def _prove_names(folder: Path, job: _Job, family: Family, n_blocks: int) -> Proof:
    """The written names and shapes against the pruned model's, and transformers' own report on loading them (without memory).

    `n_blocks`: how many the cut leaves, which the written configuration must say as well.
    """
    from transformers import AutoModelForCausalLM

    found = tensor_files.entries(folder)
    parts = {} if found.keys() != job.targets.keys() else {p.entry.name: p.target for p in Names(job.pruned).parts(found, folder)}
    wrong = sorted(dict(parts.items() ^ job.targets.items()))
    with one_bar():
        built, info = AutoModelForCausalLM.from_pretrained(
            folder, device_map={"": "meta"}, trust_remote_code=False, output_loading_info=True
        )
    wrong += [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]]
    found_blocks = len(blocks_of(built, family))
    wrong += [f"{found_blocks} blocks in place of {n_blocks}"] if found_blocks != n_blocks else []
    return _counted("names = model", wrong, f"{len(found)} tensors named and shaped as the pruned model's, no missing or unexpected key")


def _prove_untouched(folder: Path, job: _Job) -> Proof:
    """Every tensor but the merged ones, bit by bit, read back from both files."""
    found = tensor_files.entries(folder)
    same = [entry for entry in job.written if entry.name not in job.changed]
    wrong = [entry.name for entry in same if not tensor_files.bit_equal(found[entry.name].read(), job.read(entry))]
    return _counted("untouched = original", wrong, f"{len(same)} tensors bit for bit as in the original checkpoint")


def _prove_writers(model: Any, folder: Path, job: _Job, transform: LinearTransform, family: Family, paths: list[str]) -> Proof:
    """The written writers against the original ones followed by T, in fp64, on random inner activations."""
    assert transform.matrix is not None
    carrier = transform.span.carrier
    found = tensor_files.entries(folder)
    merged = copy.deepcopy(blocks_of(job.pruned, family)[carrier])
    parts = [part for part in Names(job.pruned).parts(found, folder) if part.entry.name in job.changed]
    for target in dict.fromkeys(part.target for part in parts):
        _put(merged, target.removeprefix(f"{family.blocks}.{carrier}."), assembled([part for part in parts if part.target == target]))
    errors = []
    for path in paths:
        expected = _written(blocks_of(model, family)[carrier], path, family) @ transform.matrix
        errors.append(float((_written(merged, path, family) - expected).norm() / expected.norm().clamp_min(1e-30)))
    tolerance = max(_TOLERANCE.get(found[name].dtype, 0.0) for name in job.changed)
    detail = f"{', '.join(paths)} of block {carrier} on {_PROBES} random activations, against the original followed by the transform"
    return Proof("merged = original, then T", max(errors) <= tolerance, max(errors), tolerance, detail)


def _written(block: Any, path: str, family: Family) -> Float64[Tensor, "... width"]:
    """What one writer makes of random inner activations, computed in fp64 from its stored weights."""
    parent, _, leaf = path.rpartition(".")
    target = getattr(block.get_submodule(parent), leaf)
    generator = torch.Generator().manual_seed(0)
    if isinstance(target, nn.Parameter):
        weight = target.double() if family.experts == "inner_first" else target.double().transpose(1, 2)
        bias = getattr(block.get_submodule(parent), f"{leaf}_bias", None)
        out = torch.randn(_PROBES, weight.shape[1], generator=generator, dtype=torch.float64) @ weight
        return out if bias is None else out + bias.double().unsqueeze(1)
    width = target.in_features if isinstance(target, nn.Linear) else target.weight.shape[0]
    made: Tensor = copy.deepcopy(target).double()(torch.randn(_PROBES, width, generator=generator, dtype=torch.float64))
    return made.double()


def _counted(name: str, wrong: list[str], detail: str) -> Proof:
    """A proof that allows no wrong tensor."""
    return Proof(name, not wrong, float(len(wrong)), 0.0, f"differs: {', '.join(wrong[:3])}" if wrong else detail)
