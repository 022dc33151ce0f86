"""Models of the hub through its real client: found, refused in a sentence, fetched in bytes, cut off, gone on with, checked, and read again offline."""

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from replaceme_core.errors import Cancelled, ModelError
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.checkpoints import download
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection
from tests.support.hub_client import Told, environment
from tests.support.hub_server import TOKEN, Hub

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def sharded(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama in two shards with their index."""
    folder = tmp_path_factory.mktemp("sharded")
    AutoModelForCausalLM.from_pretrained(llama_folder).save_pretrained(folder, max_shard_size="200KB")
    for path in llama_folder.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def at(name: str, revision: str | None = None) -> ModelSection:
    return ModelSection(path=name, revision=revision, device="cpu")


def refused(section: ModelSection, progress: Told | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        load(section, progress or Told())
    return str(caught.value)


def test_a_model_by_its_id_is_the_model_of_the_folder(hub, llama, llama_folder):
    hub.add("open/tiny", llama_folder)
    told = Told()
    found = load(at("open/tiny"), told)
    assert (found.fingerprint, found.name) == (llama.fingerprint, "tiny")
    done, total = told.sizes[-1]
    assert done == total == pytest.approx((llama_folder / WEIGHTS).stat().st_size / 1e3, rel=0.2)
    assert [d for d, _ in told.sizes] == sorted(d for d, _ in told.sizes)
    assert {what for *_, what in told.said} >= {f"downloading {WEIGHTS}", f"checking {WEIGHTS}", "model ready"}
    assert hub.unknown == []


def test_weighing_reads_the_configuration_alone(hub, llama_folder):
    hub.add("open/tiny", llama_folder)
    assert preflight(at("open/tiny")).n_blocks == 6
    assert hub.asked_for(WEIGHTS) == []


@pytest.mark.parametrize("wanted", ["branch", "commit"])
def test_a_revision_is_the_one_that_is_read(hub, llama_folder, tmp_path, wanted):
    from tests.support.hub_server import commit_of
    from tests.support.tiny_models import save_tiny

    repo = hub.add("open/tiny", llama_folder)
    other = {path.name: path.read_bytes() for path in save_tiny(tmp_path / "other", "llama", seed=1).iterdir()}
    repo.revisions["second"] = other
    section = at("open/tiny", "second" if wanted == "branch" else commit_of(other))
    assert load(section).fingerprint == load(ModelSection(path=str(tmp_path / "other"))).fingerprint


def test_a_revision_that_is_not_there_is_said_apart_from_the_model(hub, llama_folder):
    hub.add("open/tiny", llama_folder)
    assert "'open/tiny' at revision 'v9' was not found: the hub has the model, but not this revision" in refused(at("open/tiny", "v9"))


def test_a_private_model_is_not_found_without_a_token_and_read_with_one_from_the_environment(hub, llama_folder, monkeypatch):
    hub.add("me/secret", llama_folder, private=True)
    assert "'me/secret' was not found on the hub" in refused(at("me/secret"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load(at("me/secret")).n_blocks == 6


def test_a_private_model_is_read_with_the_clients_own_login(hub, llama_folder, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(TOKEN)
    hub.add("me/secret", llama_folder, private=True)
    assert load(at("me/secret")).n_blocks == 6
    assert hub.seen_tokens == {TOKEN}


def test_a_wrong_token_is_not_shown_in_the_sentence(hub, llama_folder, monkeypatch):
    hub.add("me/secret", llama_folder, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 34)
    said = refused(at("me/secret"))
    assert "was not found on the hub" in said
    assert "www" not in said


def test_a_gated_model_asks_to_accept_its_terms(hub, llama_folder, monkeypatch):
    hub.add("big/gated", llama_folder, gated=True)
    assert "'big/gated' is gated: accept its terms on its page of the hub" in refused(at("big/gated"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load(at("big/gated")).n_blocks == 6


@pytest.mark.usefixtures("hub")
def test_a_model_that_is_not_there_asks_for_the_spelling():
    assert "'open/tyni' was not found on the hub, and there is no such local folder; check the spelling" in refused(at("open/tyni"))


def test_a_model_that_was_renamed_is_found_under_its_old_name(hub, llama, llama_folder):
    hub.add("new/tiny", llama_folder)
    hub.renamed["old/tiny"] = "new/tiny"
    assert load(at("old/tiny")).fingerprint == llama.fingerprint


def test_shards_are_fetched_by_their_index_and_nothing_else(hub, llama, sharded):
    repo = hub.add("open/sharded", sharded)
    repo.files["consolidated.safetensors"] = b"0" * 1000
    repo.files["pytorch_model.bin"] = b"0" * 1000
    repo.files["onnx/model.safetensors"] = b"0" * 1000
    assert load(at("open/sharded")).fingerprint == llama.fingerprint
    fetched = {line.rsplit("/", 1)[1] for line in hub.asked_for("")}
    assert {name for name in fetched if name.endswith((".safetensors", ".bin"))} == {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip


def test_a_shard_that_the_repository_lacks_is_named_before_anything_is_fetched(hub, sharded):
    repo = hub.add("open/sharded", sharded)
    del repo.files["model-00002-of-00002.safetensors"]
    assert "'open/sharded' lacks 1 of 2 files of weights on the hub (model-00002-of-00002.safetensors)" in refused(at("open/sharded"))
    assert hub.asked_for(".safetensors") == []


def test_pickled_weights_alone_are_refused_before_they_are_fetched(hub, llama_folder):
    repo = hub.add("open/old", llama_folder)
    repo.files["pytorch_model.bin"] = repo.files.pop(WEIGHTS)
    assert "no safetensors weights; pickled weights can run code and are not read" in refused(at("open/old"))
    assert hub.asked_for(".bin") == []


def test_a_repository_without_weights_says_so(hub, llama_folder):
    repo = hub.add("open/gguf", llama_folder)
    repo.files["model.gguf"] = repo.files.pop(WEIGHTS)
    assert "'open/gguf' has no weights that can be read (safetensors) on the hub; a GGUF file is downloaded first" in refused(
        at("open/gguf")
    )


def test_a_slow_download_is_cancelled_in_the_middle_of_a_file_and_goes_on_after_the_whole_ones(hub, llama, sharded):
    hub.add("open/sharded", sharded)
    hub.pause = 0.002
    with pytest.raises(Cancelled):
        load(at("open/sharded"), Told(stop_at=0.8))
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    assert (len(hub.asked_for(first)), len(hub.asked_for(second))) == (1, 1)
    assert load(at("open/sharded")).fingerprint == llama.fingerprint
    assert (len(hub.asked_for(first)), len(hub.asked_for(second))) == (1, 2)


def test_a_connection_that_breaks_in_the_middle_is_taken_up_where_it_broke(hub, llama, llama_folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    hub.add("open/tiny", llama_folder)
    hub.drops[WEIGHTS] = [65_536]
    told = Told()
    assert load(at("open/tiny"), told).fingerprint == llama.fingerprint
    assert len(hub.ranges) == 1
    at_byte = int(hub.ranges[0].split("bytes=")[1].rstrip("-"))
    assert 0 < at_byte <= 65_536
    assert told.sizes[-1][0] == told.sizes[-1][1]


def test_a_connection_that_keeps_breaking_is_a_sentence_and_leaves_no_half_file(hub, llama, llama_folder, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    hub.add("open/tiny", llama_folder)
    hub.drops[WEIGHTS] = [0] * 50
    said = refused(at("open/tiny"))
    assert f"The connection to the hub broke while 'open/tiny' was fetched ({WEIGHTS}" in said
    assert "start again: whole files are kept" in said
    assert list((tmp_path / "hf").rglob("*.incomplete")) == []
    hub.drops.clear()
    assert load(at("open/tiny")).fingerprint == llama.fingerprint


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_file_that_was_damaged_on_its_way_is_found_removed_and_fetched_again(hub, llama, llama_folder, name):
    hub.add("open/tiny", llama_folder)
    hub.damaged.add(name)
    assert f"'{name}' of 'open/tiny' was damaged on its way: its checksum is not the one that the hub names" in refused(at("open/tiny"))
    hub.damaged.clear()
    assert load(at("open/tiny")).fingerprint == llama.fingerprint


def test_a_disk_that_is_too_small_is_said_before_a_byte_is_fetched(hub, llama_folder, monkeypatch):
    hub.add("open/tiny", llama_folder)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 1000))
    said = refused(at("open/tiny"))
    assert "'open/tiny' needs 0 MiB more on the disk, and 0 MiB are free" in said
    assert "HF_HOME" in said
    assert hub.asked_for(WEIGHTS) == []


def test_a_disk_that_becomes_full_on_the_way_is_a_sentence(hub, llama_folder, monkeypatch):
    import huggingface_hub

    real = huggingface_hub.hf_hub_download

    def full(path, name, **options):
        if name == WEIGHTS:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, name, **options)

    hub.add("open/tiny", llama_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    assert f"The disk became full while 'open/tiny' was fetched ({WEIGHTS})" in refused(at("open/tiny"))


def test_afterwards_it_is_read_offline_and_a_second_time_nothing_is_fetched(hub, llama, llama_folder, monkeypatch):
    from huggingface_hub import constants

    hub.add("open/tiny", llama_folder)
    load(at("open/tiny"))
    before = len(hub.asked_for(""))
    load(at("open/tiny"))
    assert len(hub.asked_for("")) == before
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert load(at("open/tiny")).fingerprint == llama.fingerprint
    assert hub.log == []


def test_a_hub_that_stops_answering_between_question_and_download_leaves_the_cache(hub, llama, llama_folder, monkeypatch):
    """As behind a proxy, where only the client finds out that nobody is there."""
    hub.add("open/tiny", llama_folder)
    load(at("open/tiny"))

    def away(*_args, **_options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(download, "fetched", away)
    assert load(at("open/tiny")).fingerprint == llama.fingerprint


def test_half_a_model_in_the_cache_is_no_model_offline(hub, sharded, monkeypatch):
    from huggingface_hub import constants

    hub.add("open/sharded", sharded)
    with pytest.raises(Cancelled):
        load(at("open/sharded"), Told(stop_at=0.8))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refused(at("open/sharded"))
    assert "'open/sharded' is in the cache only in part, and the hub does not answer" in said
    assert "Connect once and load it again" in said


@pytest.mark.usefixtures("hub")
def test_a_model_that_was_never_fetched_is_not_there_offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "it is not in the cache, and the hub does not answer" in refused(at("open/tiny"))


def test_shards_without_their_index_are_read_from_the_hub_as_from_a_folder(hub, llama, sharded):
    repo = hub.add("open/loose", sharded)
    del repo.files["model.safetensors.index.json"]
    found = load(at("open/loose"))
    assert found.fingerprint == llama.fingerprint
    assert "2 shards without an index" in found.origin


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["config.json", WEIGHTS, "model.safetensors.index.json", "model-00001-of-00002.safetensors"], ["config.json", WEIGHTS]),
        (["a/config.json", "config.json", WEIGHTS, "flax_model.msgpack", "chat_template.jinja"], ["chat_template.jinja", "config.json", WEIGHTS]),
        ([WEIGHTS, "adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", WEIGHTS, "adapter_model.safetensors"]),
    ],
)  # fmt: skip
def test_of_a_repository_only_what_is_read_is_chosen(names, wanted):
    assert download.chosen("open/any", names) == wanted


def test_the_command_line_finds_the_hub_by_the_environment_and_shows_the_bytes(hub: Hub, llama_folder, tmp_path):
    """A process of its own, which read HF_ENDPOINT at its start."""
    hub.add("open/tiny", llama_folder)
    command = [sys.executable, "-m", "replaceme_core", "load", "open/tiny"]
    env = environment(hub, tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"downloading [\w.]+: .* kB/s", done.stderr)
    assert "6 blocks" in done.stdout
