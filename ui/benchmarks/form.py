"""The form of the Benchmarks page: which suite, how much of it, with which settings. Gives the plan's evaluation section."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from replaceme_core.errors import EvaluationError
from ui.benchmarks import words
from ui.look.layout import split
from ui.parts.job_panel import has_active_job, show_job
from ui.session.access import access
from ui.session.state import Studio
from ui.session.work import submit

if TYPE_CHECKING:
    from replaceme_core.plans.plan import EvaluationSection
    from ui.session.jobs import Job

DEMO, PLAIN, NAMES, OWN, WRITING = "demo", "plain", "names", "own", "writing"
_OWN_PATH = "bench_own_path"
_CHOSEN = "bench_chosen"


def ask(state: Studio) -> "EvaluationSection | None":
    """The section that the form describes; None while something is missing."""
    from replaceme_core.evaluation.suites import presets

    titles = {} if state.resident is not None and not state.resident.is_demo else {DEMO: "Demo suite (offline)"}
    titles |= {PLAIN: "Plain English (offline)", WRITING: "Generation only (offline)", OWN: "Your own questions"}
    if not access().shared:
        titles |= {name: f"{preset['title']} (needs a network)" for name, preset in presets().items()}
        titles[NAMES] = "Any lm-eval task (needs a network)"
    suite_slot, limit_slot, _ = split("suite", [3, 2, 2], "bottom")
    suite = suite_slot.selectbox("Suite", list(titles), format_func=titles.get, key="bench_suite", persist_state="session")
    limit = limit_slot.number_input(
        "Questions per task", 0, 100_000, 50, 10, key="bench_limit", persist_state="session", help=words.LIMIT_HELP
    )
    if suite in presets():
        about = presets()[suite]["about"]
        st.caption(f"{about[0].upper()}{about[1:]}: {', '.join(map(_asked, presets()[suite]['tasks']))}.")
    tasks = {
        DEMO: lambda: _shipped(DEMO),
        PLAIN: lambda: _shipped(PLAIN),
        NAMES: lambda: _names(state),
        OWN: _own,
        WRITING: lambda: "",
    }.get(suite or PLAIN, lambda: suite)()
    if tasks is None:
        return None
    with st.expander("More settings: generation, chat template, few-shot, seed, batch size"):
        writing = _writing(state, suite == WRITING)
        settings = _settings() | _way_of_asking(state)
    from replaceme_core.plans.plan import EvaluationSection

    return EvaluationSection(tasks=",".join(part for part in (tasks, writing) if part) or PLAIN, limit=int(limit) or None, **settings)


def _asked(entry: str) -> str:
    """'winogrande@5' for people."""
    name, _, shots = entry.partition("@")
    return f"{name} ({shots}-shot)" if shots not in ("", "0") else name


def _settings() -> dict[str, object]:
    shots, seed, batch = split("bench_settings", [1, 1, 1], "bottom")
    few = shots.number_input(
        "Few-shot examples", 0, 50, None, 1, placeholder="each task's own", key="bench_shots", persist_state="session",
        help=words.SHOTS_HELP,
    )  # fmt: skip
    return {
        "num_fewshot": None if few is None else int(few),
        "seed": int(seed.number_input("Seed", 0, 10**6, 1234, key="bench_seed", persist_state="session", help=words.SEED_HELP)),
        "batch_size": batch.selectbox(
            "Batch size", ["auto", 1, 2, 4, 8, 16, 32, 64], key="bench_batch", persist_state="session", help=words.BATCH_HELP
        ),
    }


def _way_of_asking(state: Studio) -> dict[str, object]:
    """How the questions are put: the chat template is offered where the tokenizer has one, and off as in lm-eval."""
    from replaceme_core.models.chat_template import has_template

    chats = state.resident is not None and has_template(state.resident.handle.tokenizer)
    with st.container(horizontal=True):
        chat = chats and st.toggle("Ask in the chat template", key="bench_chat", persist_state="session", help=words.CHAT_HELP)
        turns = not chat or st.toggle(
            "Few-shot examples as turns", value=True, key="bench_turns", persist_state="session", help=words.TURNS_HELP
        )
    system = st.text_input("System instruction", key="bench_system", persist_state="session", placeholder="none", help=words.SYSTEM_HELP)
    return {"apply_chat_template": chat, "fewshot_as_multiturn": turns, "system_instruction": system.strip() or None}


def _writing(state: Studio, always: bool) -> str:
    """The generative probe: 'probe:a,b', or nothing."""
    from replaceme_core.evaluation.probe_prompts import FAMILIES

    demo = state.resident is not None and state.resident.is_demo
    usual = [name for name in FAMILIES if not demo or name not in ("brackets", "json")]
    wanted = always or st.toggle("Let it generate too", key="bench_write", persist_state="session", help=words.WRITING_HELP)
    if not wanted:
        return ""
    chosen = st.pills(
        "What it generates", list(FAMILIES), selection_mode="multi", default=usual, key="bench_families", persist_state="session",
        help="\n".join(f"- **{name}**: {family.about}" for name, family in FAMILIES.items()),
    )  # fmt: skip
    if demo and set(chosen) & {"brackets", "json"}:
        st.caption("The demo model has never seen brackets or JSON: it fails on them before any block is cut.")
    return f"probe:{','.join(chosen or usual)}"


def _shipped(suite: str) -> str:
    """'plain', or 'plain:a,b' where only some tasks are chosen."""
    from replaceme_core.evaluation import evaluate

    with st.expander("Choose tasks"):
        names = [task.removeprefix(f"{suite}_") for task in evaluate.list_tasks(suite)]
        chosen = st.pills(
            "Tasks", names, selection_mode="multi", key=f"bench_{suite}_tasks", persist_state="session", help="None chosen: all of them."
        )
    return f"{suite}:{','.join(name for name in names if name in chosen)}" if chosen and len(chosen) < len(names) else suite


def _own() -> str | None:
    """A JSONL file of the person's own, read strictly; its copy lies in the cache folder."""
    from replaceme_core.evaluation import own_items
    from replaceme_core.storage.cache import cache_folder, write_atomically

    given = st.file_uploader("A JSONL file of questions", type=["jsonl"], key="bench_own", help=words.OWN_HELP)
    if given is None and not Path(st.session_state.get(_OWN_PATH, "")).is_file():
        for said, example in words.OWN_EXAMPLES.items():
            st.caption(said)
            st.code(example, language="json")
        return None
    if given is not None:
        data = given.getvalue()
        own_items.read(given.name, data)
        path = cache_folder() / "uploads" / hashlib.sha256(data).hexdigest()[:16] / Path(given.name).name
        try:
            write_atomically(path, data)
        except OSError as error:
            raise EvaluationError(f"{given.name} could not be kept in {path.parent} ({error.strerror}).") from error
        st.session_state[_OWN_PATH] = str(path)
    path = Path(st.session_state[_OWN_PATH])
    rows = own_items.read(path.name, path.read_bytes())
    kind = "multiple choice" if "choices" in rows[0] else "cloze"
    st.caption(f"**{path.name}**: {len(rows):,} questions, {kind}. The first: “{rows[0]['question'][-120:]}”")
    return str(path)


def _names(state: Studio) -> str | None:
    """Names of lm-eval, found by searching its list."""
    from replaceme_core.evaluation import task_index

    if not task_index.is_built():
        st.caption("lm-eval knows more than ten thousand tasks and groups. Their names are read once; that takes about 15 seconds.")
        if st.button("Read the list of tasks", icon=":material/list:", disabled=has_active_job(state)):
            _read_index(state)
            st.rerun()
        if has_active_job(state):
            show_job(state, large=True)
        return None
    known = task_index.index()
    query = st.text_input(
        "Search tasks and groups", placeholder="for example: arc, or mmlu anatomy", key="bench_query", persist_state="session"
    )
    found = [entry.name for entry in task_index.search(query, known, 40)] if query.strip() else []
    kept = st.session_state.get(_CHOSEN, [])
    chosen = st.multiselect(
        "Tasks to run", list(dict.fromkeys([*kept, *found])), default=kept, format_func=lambda name: _told(known, name),
        placeholder=f"{len(found)} found: choose some" if query.strip() else "search first", key="bench_names",
    )  # fmt: skip
    st.session_state[_CHOSEN] = chosen
    if not chosen:
        st.caption(f"{len(known):,} names. A group counts once in the average; its tasks stand in the table of all figures.")
    return ",".join(chosen) or None


def _told(known: dict, name: str) -> str:
    entry = known.get(name)
    if entry is None or entry.kind == "task":
        return name
    return f"{name} · {entry.kind} of {len(entry.children)}"


def _read_index(state: Studio) -> "Job":
    def work(job: "Job") -> None:
        from replaceme_core.evaluation import task_index

        task_index.index(job)

    return submit(state, "Reading lm-eval's list of tasks", work, "task index")
