"""The jobs of the Export page: a folder on this machine, or a zip to take along; and what a merged folder still lacks."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ui.session.calibration_choice import GivenText
from ui.session.jobs import Job
from ui.session.results import Results
from ui.session.state import Slot, Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import Proof, Variant
    from replaceme_core.plans.plan import ExportSection

MOST_ZIPPED = 1 << 30
"""bytes of weights that are offered as a zip: the server holds a download in memory while it is fetched"""


@dataclass(eq=False)
class Zipped:
    """A zip that waits to be fetched. Its temporary folder goes with it: when another is built, the session ends or the server stops."""

    name: str
    """of the variant"""
    fingerprint: str
    precision: str
    path: Path
    n_bytes: int
    proofs: "tuple[Proof, ...]"
    _folder: "tempfile.TemporaryDirectory[str]"

    def clear(self) -> None:
        self._folder.cleanup()


@dataclass(eq=False)
class ExportState(Slot):
    """What the Export page knows of a session."""

    zipped: Zipped | None = None
    """the zip that waits to be fetched"""


def _has_exports(state: Studio) -> bool:
    return bool(state.slot(Results).exports) or state.slot(ExportState).zipped is not None


def export_variant(state: Studio, variant: "Variant", folder: str, section: "ExportSection", given: GivenText | None = None) -> Job:
    """Write the variant, with its scores and the text that it was fitted on, if one is `given`."""

    def work(job: Job) -> None:
        from replaceme_core.export import export

        state.slot(Results).exports.append(
            (variant.handle.fingerprint, export.export(_complete(state, variant, given), folder, section, job))
        )
        state.mark_done("export", _has_exports)

    return submit(state, f"Exporting '{variant.name}'", work, f"{folder} {section.model_dump_json()}", lane="short")


def zip_variant(state: Studio, variant: "Variant", name: str, section: "ExportSection", given: GivenText | None = None) -> Job:
    """The same folder, written and read back in a temporary place and packed into `name`.zip."""

    def work(job: Job) -> None:
        from replaceme_core.export import export
        from replaceme_core.storage import archive

        folder = tempfile.TemporaryDirectory(prefix="replaceme-zip-")
        try:
            merged = state.resident.folders.get((state.owner, variant.name)) if state.resident else None
            if merged is None:
                made = export.export(_complete(state, variant, given), Path(folder.name) / name, section, job)
                source, proofs = made.folder, made.proofs
            else:
                source, proofs = merged, variant.proofs
            path = Path(folder.name) / f"{name}.zip"
            n_bytes = archive.zip_folder(source, path, job)
            if merged is None:
                shutil.rmtree(source, ignore_errors=True)
        except BaseException:
            folder.cleanup()
            raise
        own = state.slot(ExportState)
        if own.zipped is not None:
            own.zipped.clear()
        own.zipped = Zipped(variant.name, variant.handle.fingerprint, section.dtype or variant.handle.dtype, path, n_bytes, proofs, folder)
        state.mark_done("export", _has_exports)

    return submit(state, f"Packing '{variant.name}'", work, section.model_dump_json(), lane="short")


def complete_folder(state: Studio, variant: "Variant", folder: Path, given: GivenText | None) -> Job:
    """What was measured since, and the text, beside a variant that was written when it was kept."""

    def work(job: Job) -> None:
        from replaceme_core.errors import ExportError
        from replaceme_core.export import export

        job.update(0, 1, "steps", "writing the model card")
        if not folder.is_dir():
            raise ExportError(f"The folder '{folder}' is gone; keep the variant again on the Fit page.")
        export.save_record(_complete(state, variant, given), folder, variant.proofs)

    return submit(state, f"Completing '{variant.name}'", work, lane="short")


def _complete(state: Studio, variant: "Variant", given: GivenText | None) -> "Variant":
    """The variant with everything that was measured on it since, and on the original under the same settings."""
    known = state.slot(Results).scores
    own = {settings for fingerprint, settings in known if fingerprint == variant.handle.fingerprint}
    scored = {}
    for (fingerprint, settings), scores in known.items():
        if settings in own and fingerprint in (variant.original_fingerprint, variant.handle.fingerprint):
            scored[f"{scores.model}, {settings}"] = scores.to_data()
    return replace(variant, scores=scored, files={given.source: given.data} if given else {})
