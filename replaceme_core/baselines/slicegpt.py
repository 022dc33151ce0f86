"""SliceGPT (arXiv 2401.15024): the stream is turned into its principal axes before every norm, and the least axes are cut off.

The gains of the norms go into the linears behind them. An RMSNorm without gain commutes with a rotation Q, so that the model with
x Q in the place of x is the same model. Q at each norm is the eigenbasis of X^T X, X the norm's output on the calibration set (here:
of the intact model, in one pass; the released code runs on behind what it has sliced already). Then the last columns of every Q are
deleted. Each addition to the stream changes its basis from Q to the next Q', which costs a matrix Q^T Q' that a plain model has no
place for. With one Q for all norms (`one=True`, not the paper's method) there are no such matrices, and the result is a plain model.

|x|^2 / D must stay a mean over D numbers though k are left: gain sqrt(D / k) and epsilon times D / k in a norm over k.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from replaceme_core.baselines import width
from replaceme_core.baselines.interface import Clock, Pruned, Request
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.models.architecture import modality
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact, exact_device
from replaceme_core.surgery import surgery

_POSITIONS = 4096
_PROBE = (2, 24)
FROM_INTACT = "The axes are those of the intact model's activations; the released code takes them behind what is sliced already."
ONE = "One rotation for all blocks, which the paper does not do; so the result is a plain model of smaller width."


def by(one: bool) -> Callable[[Request], Pruned]:
    """The method as the table of names wants it."""
    return partial(_make, one)


def _make(one: bool, request: Request) -> Pruned:
    width.checked(request)
    clock = Clock()
    with request.handle.borrow() as model:
        whole, original = model.config.hidden_size, request.handle.n_parameters
        axes = rotations(request, one)
        size = _size(request, model, one)
        made = sliced(model, axes, size, one)
        seconds = clock.seconds
        proof = _prove_rotation(request, model, axes, one)
    figures = {"width": size, "of": whole, "sliced": 1 - size / whole, "parameters": original}
    notes = (ONE if one else width.IN_MEMORY, FROM_INTACT)
    return width.finished(request, "slicegpt_one" if one else "slicegpt", made, (proof,), seconds=seconds, figures=figures, notes=notes)


def _norms(model: Any) -> list[Any]:
    """In the order of the stream: before attention and MLP of every block, and the last one."""
    return [norm for block in model.model.layers for norm in (block.input_layernorm, block.post_attention_layernorm)] + [model.model.norm]


def rotations(request: Request, one: bool) -> list[Float64[Tensor, "width width"]]:
    """The eigenbasis at every norm, columns by falling eigenvalue, from the train part; `one`: that of the sum, everywhere."""
    with request.handle.borrow() as model:
        norms = _norms(model)
        grams = [torch.zeros(request.handle.width, request.handle.width, dtype=torch.float64) for _ in norms]
        for number, ids, mask, count in _train_batches(request):
            with ExitStack() as hooks, torch.no_grad():
                seen = [hooks.enter_context(capture.seen(norm, "input")) for norm in norms]
                model.model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
            for gram, norm, [stream] in zip(grams, norms, seen, strict=True):
                rows = stream[mask.bool().to(stream.device)].cpu().double()
                rows = rows * (rows.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
                gram += rows.T @ rows
            request.progress.update(number, count, "batches", "the axes of the stream (SliceGPT)")
    if one:
        grams = [torch.stack(grams).sum(0)]
    bases = [torch.linalg.eigh(gram).eigenvectors.flip(1) for gram in grams]
    return bases * len(norms) if one else bases


def _train_batches(request: Request) -> Any:
    """(number, ids, mask, count) of the batches; sequences that are held out are masked."""
    chosen = list(batches(request.calibration.lengths, _POSITIONS))
    for number, batch in enumerate(chosen, start=1):
        own = [index for index in batch if not request.calibration.heldout[index]]
        if own:
            ids, mask = inputs_of(request.calibration, own)
            yield number, ids, mask, len(chosen)


def n_parameters(model: Any, size: int, one: bool) -> int:
    """Of the model sliced to `size`: all that touches the stream shrinks with it; the head has its own weights; shortcuts come on top."""
    whole = model.config.hidden_size
    touching = sum(p.numel() for name, p in model.model.named_parameters() if _touches(name, p))
    rest = sum(p.numel() for p in model.model.parameters()) - touching
    head = model.lm_head.weight.numel() + (model.lm_head.bias.numel() if model.lm_head.bias is not None else 0)
    shortcuts = 0 if one else 2 * len(model.model.layers) * size * size
    return int(touching // whole * size + rest + head // whole * size + shortcuts)


def _touches(name: str, parameter: Tensor) -> bool:
    """Whether one of the tensor's sides is the stream: all weights of linears, the embedding, the block's norms, the writers' biases."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return False
    return parameter.ndim == 2 or "norm" in name or name.endswith(("o_proj.bias", "down_proj.bias"))


def _size(request: Request, model: Any, one: bool) -> int:
    """The largest width that removes as many parameters as the blocks would. A configuration wants a multiple of the heads."""
    step = model.config.num_attention_heads if one else 1
    most = request.handle.n_parameters - request.n_parameters
    fitting = [size for size in range(step, request.handle.width, step) if n_parameters(model, size, one) <= most]
    if not fitting:
        width.require_budget(request, request.handle.n_parameters - n_parameters(model, step, one))
    return max(fitting)


def sliced(model: Any, axes: list[Tensor], size: int, one: bool) -> Any:
    """A copy of the model in the turned stream, cut to its first `size` axes."""
    whole = model.config.hidden_size
    made = width.own_copy(model)
    bases = [axis[:, :size].to(exact_device(made.device)) for axis in axes]
    _put(made.lm_head, (exact(made.lm_head.weight) * exact(made.model.norm.weight)) @ bases[-1])
    _put(made.model.embed_tokens, exact(made.model.embed_tokens.weight) @ bases[0])
    for number, block in enumerate(made.model.layers):
        first, second, after = bases[2 * number : 2 * number + 3]
        attention, mlp = block.self_attn, block.mlp
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            _put(linear, (exact(linear.weight) * exact(block.input_layernorm.weight)) @ first)
        for linear in (mlp.gate_proj, mlp.up_proj):
            _put(linear, (exact(linear.weight) * exact(block.post_attention_layernorm.weight)) @ second)
        for linear, base in ((attention.o_proj, second), (mlp.down_proj, after)):
            bias = None if linear.bias is None else exact(linear.bias) @ base
            _put(linear, base.T @ exact(linear.weight), bias)
        if not one:
            like = attention.q_proj.weight
            made.model.layers[number] = SlicedBlock(block, (first.T @ second).to(like), (second.T @ after).to(like))
    for norm in _norms(made):
        norm.weight = nn.Parameter(torch.full((size,), (whole / size) ** 0.5).to(norm.weight), requires_grad=False)
        norm.variance_epsilon *= whole / size
    _mend(made.config, whole, size)
    return made


def _put(module: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    """The weight in the module's own precision, and its sizes."""
    module.weight = nn.Parameter(weight.to(module.weight).contiguous(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.to(module.weight), requires_grad=False)
    if isinstance(module, nn.Embedding):
        module.embedding_dim = weight.shape[1]
    else:
        module.out_features, module.in_features = weight.shape


def _mend(config: Any, whole: int, size: int) -> None:
    config.head_dim = getattr(config, "head_dim", None) or whole // config.num_attention_heads
    config.hidden_size, config.tie_word_embeddings = size, False
    config.rms_norm_eps *= whole / size


class SlicedBlock(nn.Module):
    """A block whose two additions change the basis of the stream."""

    def __init__(self, block: Any, attention_shortcut: Tensor, mlp_shortcut: Tensor) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = block.input_layernorm, block.self_attn
        self.post_attention_layernorm, self.mlp = block.post_attention_layernorm, block.mlp
        self.attention_shortcut = nn.Parameter(attention_shortcut, requires_grad=False)
        self.mlp_shortcut = nn.Parameter(mlp_shortcut, requires_grad=False)

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """As the plain block, the stream multiplied by the shortcut before each addition."""
        written, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        stream = hidden_states @ self.attention_shortcut + written
        out: Tensor = stream @ self.mlp_shortcut + self.mlp(self.post_attention_layernorm(stream))
        return out


def _prove_rotation(request: Request, model: Any, axes: list[Tensor], one: bool) -> Any:
    """With nothing sliced the turned model is the original one."""
    turned = sliced(model, axes, request.handle.width, one)
    ids = modality.TEXT.probe(model, request.handle.family, _PROBE)
    with torch.no_grad():
        left, right = (own(input_ids=ids, use_cache=False).logits for own in (model, turned))
    tolerance = surgery.TOLERANCE[request.handle.dtype]
    return surgery.require(surgery.proof_of("turned = original", left, right, tolerance, "logits with all axes kept, nothing sliced"))
