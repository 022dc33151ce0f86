"""An export goes to the hub and comes back: private, with a card that the hub can read, resumable, and no word of the token."""

import dataclasses
import json

import pytest
import yaml
from click.testing import CliRunner

from replaceme_core.cli.main import main
from replaceme_core.errors import Cancelled, ExportError, InputError
from replaceme_core.export import push as stage
from replaceme_core.export.export import export
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ExportSection, ModelSection
from tests.support.hub_client import Told
from tests.support.hub_server import TOKEN

SCORES = {"results": {"arc_easy": {"acc": {"value": 0.5, "stderr": 0.1, "n": 20}}}}


@pytest.fixture(scope="module")
def pruned(variant):
    """The tiny variant as if its original came from the hub, with a score of its own and one of the original."""
    recipe = variant.recipe | {"model": {"path": "open/base"}, "calibration": {"source": "preset:fineweb", "second": "hub:open/chats"}}
    scores = {f"{name}, s": SCORES | {"model": name} for name in (variant.name, "tiny llama")}
    return dataclasses.replace(variant, recipe=recipe, scores=scores)


@pytest.fixture(scope="module")
def folder(pruned, tmp_path_factory):
    return export(pruned, tmp_path_factory.mktemp("push") / "first", ExportSection(max_shard_size="60KB")).folder


@pytest.fixture
def me(hub, monkeypatch):
    """The hub, with a login in the environment and the original on it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("open/base", {"README.md": b"---\nlicense: mit\n---\n# Base\n"})
    return hub


def test_it_arrives_private_whole_and_loads_by_its_id(me, folder, pruned):
    told = Told()
    done = stage.push(stage.packed(folder, "me/first"), told)
    repo = me.repos["models", "me/first"]
    assert repo.private
    assert done.url == f"{me.address}/me/first"
    assert set(repo.files) == {path.name for path in folder.iterdir()}
    assert told.sizes[-1][0] == told.sizes[-1][1] > 0
    assert load(ModelSection(path="me/first")).fingerprint == pruned.handle.fingerprint
    assert me.unknown == []


def test_the_head_of_its_card_names_base_licence_data_tags_and_scores(me, folder, pruned):
    stage.push(stage.packed(folder, "me/first"))
    _, head, body = me.repos["models", "me/first"].files["README.md"].decode().split("---\n", 2)
    said = yaml.safe_load(head)
    assert (said["base_model"], said["license"], said["library_name"]) == ("open/base", "mit", "transformers")
    assert said["datasets"] == ["HuggingFaceFW/fineweb", "open/chats"]
    assert "replaceme" in said["tags"]
    assert said["model-index"] == [
        {
            "name": "first",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "arc_easy", "type": "arc_easy"},
                    "metrics": [{"type": "acc", "value": 0.5, "name": "acc, n = 20"}],
                }
            ],
        }
    ]
    assert 'from_pretrained("me/first")' in body
    assert pruned.name in body
    assert "path/to/this/folder" in (folder / "README.md").read_text(), "the folder stays as it is"


def test_the_hubs_own_reader_understands_the_head(me, folder):
    from huggingface_hub import ModelCard

    stage.push(stage.packed(folder, "me/first"))
    data = ModelCard(me.repos["models", "me/first"].files["README.md"].decode()).data
    assert [(each.dataset_name, each.metric_value) for each in data.eval_results] == [("arc_easy", 0.5)]


def test_a_push_that_broke_goes_on_without_sending_again_what_came_through(me, folder):
    me.refuse_uploads = 2
    with pytest.raises(ExportError, match=r"'me/first' could not be pushed .*files that came through are not sent a second time"):
        stage.push(stage.packed(folder, "me/first"))
    assert [name for name in me.repos["models", "me/first"].files if name != ".gitattributes"] == []
    sent = [line for line in me.log if line.startswith("PUT")]
    me.refuse_uploads = 0
    me.log.clear()
    stage.push(stage.packed(folder, "me/first"))
    large = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    again = [line for line in me.log if line.startswith("PUT")]
    assert len(large) > 3
    assert len(again) == len(large) - 2
    assert set(again) & set(sent[:2]) == set()


def test_a_push_is_cancelled_between_files_and_nothing_is_visible(me, folder):
    with pytest.raises(Cancelled):
        stage.push(stage.packed(folder, "me/first"), Told(stop_at=0.3))
    assert me.repos["models", "me/first"].files == {}


def test_a_second_push_takes_the_shards_of_the_first_away(me, folder, pruned, tmp_path):
    stage.push(stage.packed(folder, "me/first"))
    whole = export(pruned, tmp_path / "whole").folder
    stage.push(stage.packed(whole, "me/first"))
    assert [name for name in me.repos["models", "me/first"].files if name.endswith(".safetensors") and name.startswith("model")] == [
        "model.safetensors"
    ]


@pytest.mark.usefixtures("hub")
def test_without_a_login_it_says_how_to_get_one(folder):
    with pytest.raises(ExportError, match="There is no login for the hub: set the environment variable HF_TOKEN"):
        stage.push(stage.packed(folder, "me/first"))


@pytest.mark.parametrize("name", ["other/first", "me/first"])
def test_a_refusal_is_a_sentence_without_the_token(me, folder, monkeypatch, name):
    if name == "me/first":
        monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 34)
    with pytest.raises(ExportError) as caught:
        stage.push(stage.packed(folder, name))
    said = {"other/first": "This login may not write to 'other/first'", "me/first": "The hub does not know this login"}[name]
    assert said in str(caught.value)
    assert "www" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__
    assert ("models", name) not in me.repos


def test_a_public_repository_and_somebody_elses_model_are_not_written_over(me, folder):
    me.add("me/open", {"README.md": b"mine"})
    with pytest.raises(ExportError, match="'me/open' exists and is public; say that it may be public"):
        stage.push(stage.packed(folder, "me/open"))
    me.add("me/other", {"model.safetensors": b"0"}, private=True)
    with pytest.raises(ExportError, match=r"'me/other' exists and holds another model \(model.safetensors\)"):
        stage.push(stage.packed(folder, "me/other"))
    stage.push(stage.packed(folder, "me/open", private=False))
    assert "config.json" in me.repos["models", "me/open"].files


@pytest.mark.parametrize(
    ("name", "sentence"), [("first", "'first' names no owner"), ("me/a b", "is no name for the hub"), ("a/b/c", "is no name for the hub")]
)
def test_a_name_that_the_hub_would_not_take_is_refused_before_anything(folder, name, sentence):
    with pytest.raises(InputError, match=sentence):
        stage.packed(folder, name)


def test_a_folder_that_is_no_export_is_refused(llama_folder, tmp_path):
    with pytest.raises(InputError, match="is not an export of this program"):
        stage.packed(llama_folder, "me/first")
    with pytest.raises(InputError, match="holds no exported model"):
        stage.packed(tmp_path, "me/first")


def test_the_command_says_what_would_go_and_then_sends_it(me, folder):
    run = CliRunner().invoke(main, ["push", str(folder), "me/first", "--dry-run", "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert said["private"] is True
    assert "recipe.yaml" in said["files"]
    assert ("models", "me/first") not in me.repos
    run = CliRunner().invoke(main, ["push", str(folder), "me/first"])
    assert run.exit_code == 0, run.output
    assert f"{me.address}/me/first" in run.output
    assert TOKEN not in run.output
