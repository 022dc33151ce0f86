"""Whether an exported folder goes on into ONNX and GGUF: converts it with the public packages, reads the result back and compares.

pip install onnx onnxscript onnxruntime gguf                       # not needed by anything else here
python -m benchmarks.other_formats onnx exports/first              # logits of ONNX Runtime beside those of transformers
python -m benchmarks.other_formats gguf exports/first model.gguf   # tensors of a converted file beside the folder's
"""

from pathlib import Path

import click
import torch

LENGTHS = (2, 17, 64)


@click.group(help=__doc__)
def main() -> None:
    pass


class _Logits(torch.nn.Module):
    """The model without its cache: what an ONNX graph can hold."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def onnx(folder: Path) -> None:
    """Exports by torch.onnx and compares the logits on random tokens."""
    import tempfile

    import onnxruntime
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, model.config.vocab_size, (1, length), generator=generator) for length in LENGTHS]
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        length = torch.export.Dim("length", min=2, max=model.config.max_position_embeddings)
        program = torch.onnx.export(_Logits(model), (texts[1],), dynamo=True, dynamic_shapes={"input_ids": {1: length}}, verbose=False)
        program.save(f"{place}/model.onnx")
        session = onnxruntime.InferenceSession(f"{place}/model.onnx")
        for ids in texts:
            ours = model(input_ids=ids, use_cache=False).logits
            theirs = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: ids.numpy()})[0])
            click.echo(
                f"{ids.shape[1]:4} tokens: largest difference {(ours - theirs).abs().max():.1e} of logits up to {ours.abs().max():.1f}"
            )


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("converted", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def gguf(folder: Path, converted: Path) -> None:
    """Compares the merged layers (ffn_down) of a GGUF file in float32 with those of the folder (llama-like names)."""
    from gguf import GGUFReader
    from safetensors.torch import load_file

    reader, tensors = GGUFReader(str(converted)), load_file(folder / "model.safetensors")
    found = [tensor for tensor in reader.tensors if ".ffn_down." in tensor.name]
    differences = [
        float((torch.tensor(tensor.data) - tensors[f"model.layers.{tensor.name.split('.')[1]}.mlp.down_proj.weight"].float()).abs().max())
        for tensor in found
    ]
    click.echo(f"{len(reader.tensors)} of {len(tensors)} tensors; largest difference in {len(found)} merged layers {max(differences):.1e}")


if __name__ == "__main__":
    main()
