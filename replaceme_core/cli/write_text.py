"""`write-text`: calibration text that a model writes itself, as a file, with a manifest that says how it was made."""

import json
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import DEVICE, DTYPE, JSON, MODEL, SEED, show


@click.command()
@MODEL
@click.option("--kind", type=click.Choice(["chats", "prose"]), help="left out: chats for a model with a chat template, else prose")
@click.option("--max-tokens", default=32768, show_default=True, type=click.IntRange(2), help="tokens to keep, at least")
@click.option("--max-length", default=256, show_default=True, type=click.IntRange(16), help="tokens of one text or answer, at most")
@SEED
@DTYPE
@DEVICE
@click.option("--out", required=True, type=click.Path(path_type=Path), help="JSONL file; manifest.json beside it gets an entry")
@JSON
def write_text(
    model: str, kind: str | None, max_tokens: int, max_length: int, seed: int, dtype: str, device: str, out: Path, as_json: bool
) -> None:
    """Lets MODEL write calibration text: answers to questions of ours, or continuations of beginnings of ours.

    The file can be named wherever calibration text is asked for. Texts that repeat themselves are dropped, and counted.

    \b
    Examples:
      replaceme write-text --model demo --kind prose --max-tokens 300 --max-length 40 --out text.jsonl
    """
    from replaceme_core.calibration import self_text
    from replaceme_core.errors import ReplaceMeError
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import ModelSection
    from replaceme_core.storage.cache import write_atomically

    bar = Bar()
    handle = loading.load(ModelSection(path=model, dtype=dtype, device=device), bar)  # type: ignore[arg-type]
    writing = self_text.Writing(kind or self_text.kind_for(handle.tokenizer), max_tokens, max_length, seed)
    written = self_text.write(handle, writing, bar)
    bar.close()
    facts: dict[str, Any] = {
        "command": shlex.join(["replaceme", *sys.argv[1:]]), "model": handle.name, "origin": handle.origin, "fingerprint": handle.fingerprint,
        "file_sha256": handle.file_sha256, "dtype": handle.dtype, "settings": writing.settings, "n_texts": len(written.rows),
        "n_tokens": written.n_tokens, "n_dropped": written.n_dropped, "share_dropped": round(written.share_dropped, 4),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }  # fmt: skip
    manifest = out.parent / "manifest.json"
    try:
        write_atomically(out, "".join(_line(row) for row in written.rows).encode())
        others = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        write_atomically(manifest, (json.dumps(others | {out.stem: facts}, indent=2, ensure_ascii=False) + "\n").encode())
    except (OSError, ValueError) as error:
        raise ReplaceMeError(f"'{out}' and its manifest.json cannot be written ({error}); choose another file with --out.") from error
    show(
        {**facts, "out": str(out)},
        as_json,
        lambda: (
            f"{handle.name} wrote {len(written.rows)} texts, {written.n_tokens:,} tokens; {written.n_dropped} more "
            f"({written.share_dropped:.0%}) repeat themselves or are all but empty and were dropped\nwritten to {out}"
        ),
    )


def _line(row: Any) -> str:
    return json.dumps({"text": row} if isinstance(row, str) else {"messages": row}, ensure_ascii=False) + "\n"
