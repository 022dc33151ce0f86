"""The jobs of the Compare page: every system writes on one prompt, reads a text, is looked into by the lens, is measured on test text."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.compare.generation import Chat, CompareState, Generation, Written
from ui.look.systems import ORIGINAL
from ui.parts.job_panel import has_active_job
from ui.session.jobs import Job
from ui.session.link import PromptInUse
from ui.session.results import Results, quality_key
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.artifacts import ModelHandle
    from replaceme_core.comparison.reading import Reading
    from ui.compare.systems import Systems

MEASURING = "Measuring on test text"


def write(state: Studio, columns: "dict[str, ModelHandle]", prompt: str, settings: dict[str, Any], chat: Chat | None = None) -> Job:
    """All systems write, one token each in turn. Cancel stops them where they are and keeps what is written.

    In a `chat` that has begun each goes on with its own answers. The second half of a double click gets the job of the first.
    """
    own = state.slot(CompareState)
    old = own.generation
    if old is not None and old.job is not None and old.job.active and (old.prompt, old.settings, old.chat) == (prompt, settings, chat):
        return old.job
    made = Generation(prompt, settings, readable(columns, prompt, chat, old), chat)

    def work(job: Job) -> None:
        from replaceme_core.errors import Cancelled

        try:
            _write(made, columns, job)
        except Cancelled:
            job.cancel.clear()
        finally:
            made.end()

    own.generation = made
    state.slot(PromptInUse).text = prompt
    state.mark_done("compare", _has_results)
    made.job = submit(state, "Generating", work, str(id(made)), lane="short")
    return made.job


def readable(columns: "dict[str, ModelHandle]", prompt: str, chat: Chat | None, old: Generation | None) -> dict[str, Written]:
    """An empty column for every system, with all that it will read. Raises `InputError` where one cannot."""
    from replaceme_core.comparison import compare
    from replaceme_core.comparison.chats import chat_prompt

    found = {}
    for name, handle in columns.items():
        earlier = (*old.columns[name].earlier, old.columns[name].text) if chat and chat.said and old else ()
        text = prompt if chat is None else chat_prompt(handle.tokenizer, [*chat.said, prompt], earlier, chat.system)
        compare.encode(handle, text)
        found[name] = Written(handle.fingerprint, text, earlier)
    return found


def _write(made: Generation, columns: "dict[str, ModelHandle]", job: Job) -> None:
    from replaceme_core.comparison import compare

    job.update(0, 0, "", "prefill")
    writers = {name: compare.Writer(handle, made.columns[name].prompt, **made.settings) for name, handle in columns.items()}
    total, done = made.settings["max_new_tokens"] * len(writers), 0
    while writers:
        for name, writer in list(writers.items()):
            job.update(done, total, "tokens", "generating")
            if writer.ended is None:
                made.columns[name].pieces.append(writer.step())
                made.columns[name].tokens = list(writer.tokens)
                done += 1
            if writer.ended is not None:
                made.columns[name].ended = writer.ended
                del writers[name]


def reading_key(found: "Systems", author: str) -> tuple[str, ...]:
    """Under which a reading is kept: the text's author, then the reference and the others that read it."""
    return ("reading", author, *(handle.fingerprint for handle in found.reference_first.values()))


def read(state: Studio, made: Generation, found: "Systems", author: str) -> "Reading | None":
    """The prompt and what `author` wrote, as every system reads it; a job makes it the first time it is asked for."""
    key = reading_key(found, author)
    if key in made.readings or key in made.jobs or has_active_job(state, "short"):
        return made.readings.get(key)
    tokens = made.columns[author].tokens

    def work(job: Job) -> None:
        import torch

        from replaceme_core.comparison import compare

        reference, *others = found.reference_first.values()
        prompt = compare.encode(reference, made.columns[author].prompt)
        made.readings[key] = compare.read(reference, others, torch.cat([prompt, torch.tensor(tokens, dtype=torch.long)]), progress=job)

    made.jobs[key] = submit(state, "Reading the text token by token", work, f"{id(made)} {key}", lane="short")
    return None


def look(state: Studio, made: Generation, handles: "dict[str, ModelHandle]", n_tokens: int) -> bool:
    """Whether the lenses of these systems are there; a job makes them the first time they are asked for."""
    keys = {name: (handle.fingerprint, n_tokens) for name, handle in handles.items()}
    missing = {name: key for name, key in keys.items() if key not in made.lenses}
    if not missing or made.jobs.keys() >= set(missing.values()) or has_active_job(state, "short"):
        return not missing

    def work(job: Job) -> None:
        from replaceme_core.comparison import logit_lens

        for name, key in missing.items():
            made.lenses[key] = logit_lens.look(handles[name], made.read_first, n_tokens, job)

    job = submit(state, "Looking through the logit lens", work, f"{id(made)} {sorted(missing.values())}", lane="short")
    made.jobs.update(dict.fromkeys(missing.values(), job))
    return False


def measure_quality(state: Studio, columns: dict[str, "ModelHandle"], texts: str, n_tokens: int, reference: str = ORIGINAL) -> Job:
    """Perplexity, KL and speed of every column on test text: the calibration set's own part, which no fit and no choice has read, or the demo's documents."""
    prepared = state.calibration
    base = columns[reference]
    results = state.slot(Results)
    handles = [base, *(handle for name, handle in columns.items() if name != reference)]

    def work(job: Job) -> None:
        from replaceme_core.calibration.calibration import documents
        from replaceme_core.comparison import compare

        job.update(0, 0, "", "reading test text")
        own = texts == "calibration" and prepared is not None
        text = prepared.test_text(n_tokens) if own else documents(base.tokenizer, n_tokens)
        rows = compare.divergence(base, handles[1:], text, job)
        for handle, row in zip(handles, rows, strict=True):
            results.divergences[quality_key(base, handle, texts, n_tokens, prepared)] = row
        speeds = compare.speeds(handles, progress=job)
        results.timings.append({handle.fingerprint: speed for handle, speed in zip(handles, speeds, strict=True)})
        state.mark_done("compare", _has_results)

    return submit(state, MEASURING, work, f"{quality_key(base, base, texts, n_tokens, prepared)} {sorted(columns)}")


def _has_results(state: Studio) -> bool:
    return state.slot(CompareState).generation is not None or bool(state.slot(Results).divergences)


def again(made: Generation, keys: "list[Any]", label: str) -> None:
    """Why these are not there, and the button that asks for them once more."""
    said = next((made.jobs[key].error for key in keys if key in made.jobs and made.jobs[key].state == "failed"), "")
    if said:
        st.error(said, icon=":material/error:")
    if st.button(label, icon=":material/refresh:"):
        for key in keys:
            made.jobs.pop(key, None)
        st.rerun()
