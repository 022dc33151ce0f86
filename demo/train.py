"""Train the demo model from scratch: `python -m demo.train --minutes 70` (two processes of one thread each).

The rate follows the wall clock, so a slow machine trains on fewer tokens but still ends with its decay. A
checkpoint is written every few minutes; the same command goes on from it. The log is demo/train_log.jsonl.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo import optimiser, probe, tokenizer
from demo.batches import batches

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "assets" / "demo" / "model"


def new_model(tok: PreTrainedTokenizerFast, width: int, blocks: int, seed: int) -> LlamaForCausalLM:
    """A LlamaForCausalLM of random weights: std 1/sqrt(width), outputs into the residual stream scaled by 0.2."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(tok) // 64) * 64,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=width**-0.5,
        tie_word_embeddings=True,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        use_cache=True,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.mul_(0.2)
            block.mlp.down_proj.weight.mul_(0.2)
    return model


def save_model(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast, folder: Path = MODEL) -> None:
    """Write the bf16 model and the tokenizer as plain Hugging Face files."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    copy.generation_config = GenerationConfig(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    copy.save_pretrained(folder)
    tok.save_pretrained(folder)


def mean_over_workers(parameters: list[nn.Parameter], progress: float) -> float:
    """Average the gradients over the workers in place; returns the mean progress, so all keep one schedule."""
    flat = torch.cat([p.grad.flatten() for p in parameters] + [torch.tensor([progress])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for p in parameters:
        p.grad.copy_(flat[at : at + p.numel()].view_as(p))
        at += p.numel()
    return float(flat[-1])


class Run:
    """One worker's training state: model, optimisers, data position, time used."""

    def __init__(self, args: argparse.Namespace, rank: int):
        self.args, self.rank, self.tok = args, rank, tokenizer.build()
        self.model = new_model(self.tok, args.width, args.blocks, args.seed)
        self.optimisers = optimiser.build(self.model, args.rate, args.optimiser, args.weight_decay)
        self.step = self.tokens = self.phase = 0
        self.used = 0.0  # seconds of training before this start
        if args.checkpoint.exists():
            state = torch.load(args.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            if args.soften:
                self.soften(args.soften)
            if not (args.soften or args.fresh_optimiser):
                for one, saved in zip(self.optimisers, state["optimisers"], strict=True):
                    one.load_state_dict(saved)
            self.step, self.tokens, self.used = state["step"], state["tokens"], state["used"]
            self.phase = state["phase"] + 1  # a fresh stream of documents after every restart
        self.first_step = self.step if args.soften or args.fresh_optimiser else 0
        stream = f"{args.seed}/{rank}/{self.phase}"
        self.data = batches(self.tok, stream, args.batch)

    @torch.no_grad()
    def soften(self, factor: float) -> None:
        """Scale queries and keys: attention that has become one-hot has no gradient left to learn from."""
        for block in self.model.model.layers:
            block.self_attn.q_proj.weight.mul_(factor)
            block.self_attn.k_proj.weight.mul_(factor)

    def advance(self, progress: float) -> tuple[float, float]:
        """One step; returns the weighted loss of this worker's batch and the agreed progress."""
        ids, weights = next(self.data)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(ids[:, :-1], use_cache=False).logits.float()
        target, weight = ids[:, 1:].flatten(), weights[:, 1:].flatten()
        keep = weight > 0
        losses = functional.cross_entropy(logits.flatten(0, 1)[keep], target[keep], reduction="none")
        loss = (losses * weight[keep]).sum() / weight[keep].sum()
        loss.backward()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        progress = mean_over_workers(parameters, progress)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for one in self.optimisers:
            for group in one.param_groups:
                group["lr"] = self.args.rate * optimiser.schedule(progress, self.step - self.first_step, decay=self.args.decay)
            one.step()
            one.zero_grad()
        self.step += 1
        self.tokens += int(keep.sum()) * dist.get_world_size()
        return loss.item(), progress

    def report(self, seconds: float, loss: float) -> None:
        """Append one line to the log and write the checkpoint and the model (worker 0 only)."""
        if self.rank:
            return
        self.model.eval()
        line = {"minutes": round(seconds / 60, 1), "step": self.step, "tokens": self.tokens, "train": round(loss, 4)}
        line["heldout"] = round(probe.heldout_loss(self.model, self.tok), 4)
        line["accuracy"] = probe.accuracies(self.model, self.tok)
        self.model.train()
        with self.args.log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        state = {"model": self.model.state_dict(), "optimisers": [o.state_dict() for o in self.optimisers]}
        state |= {"step": self.step, "tokens": self.tokens, "used": seconds, "phase": self.phase}
        torch.save(state, self.args.checkpoint.with_suffix(".new"))
        os.replace(self.args.checkpoint.with_suffix(".new"), self.args.checkpoint)
        save_model(self.model, self.tok, self.args.out)


def work(rank: int, args: argparse.Namespace) -> None:
    """One worker, from start or checkpoint to the end of the time budget."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{args.port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=args.workers)
    run = Run(args, rank)
    begun, last, loss, progress = time.monotonic() - run.used, run.used, 0.0, 0.0
    while progress < 1:
        seconds = time.monotonic() - begun
        now, progress = run.advance(seconds / (60 * args.minutes))
        loss = now if not loss else 0.95 * loss + 0.05 * now
        due = torch.tensor([float(seconds - last > 60 * args.report)])
        dist.broadcast(due, 0)
        if due.item():
            run.report(seconds, loss)
            last = seconds
            dist.barrier()
    run.report(time.monotonic() - begun, loss)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Parse the options and start the workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=70, help="wall-clock budget, restarts included")
    parser.add_argument("--report", type=float, default=4, help="minutes between log lines and checkpoints")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4096, help="tokens per worker and step, padding included")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--optimiser", choices=["muon", "adamw"], default="adamw")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="decoupled, on the matrices of the blocks")
    parser.add_argument("--fresh-optimiser", action="store_true", help="on resuming, start the optimiser's averages afresh")
    parser.add_argument("--decay", type=float, default=0.3, help="share of the budget in which the rate falls to zero")
    parser.add_argument("--soften", type=float, help="on resuming, scale queries and keys and start the optimiser afresh")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29531)
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--log", type=Path, default=ROOT / "demo" / "train_log.jsonl")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "demo" / "checkpoints" / "last.pt")
    args = parser.parse_args()
    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    mp.spawn(work, args=(args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
