"""Room is made where the model goes: on the card by what is on the card, in main memory by what is there. No card is needed to see that."""

import pytest

from replaceme_core import memory
from replaceme_core.plans.plan import ModelSection
from tests.support.app_session import open_page, text_of
from ui.overview import view
from ui.session.hub import ModelHub, Resident

GIB = 2**30


class Held(Resident):
    """A model of so many GiB by device."""

    def __init__(self, name: str, used_at: float, **gib: float) -> None:
        super().__init__(None, ModelSection(path=name), [], used_at=used_at)  # type: ignore[arg-type]
        self.gib = {place.replace("_", ":"): size for place, size in gib.items()}

    @property
    def bytes_by_device(self) -> dict[str, int]:
        return {place: int(size * GIB) for place, size in self.gib.items()}


def test_only_what_is_on_the_device_leaves_for_a_model_that_goes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 100, "cuda:0": 10, "cuda:1": 50, "spread": 160}
    monkeypatch.setattr(memory, "of", lambda device: (free[device] * GIB, 200 * GIB))
    monkeypatch.setattr("replaceme_core.models.loading.resolve_device", lambda device: "cuda" if device == "auto" else device)
    hub = ModelHub()
    residents = [
        Held("main", 1, cpu=60),
        Held("first card", 2, cuda_0=20),
        Held("second card", 3, cuda_1=20),
        Held("over all", 4, cuda_0=5, cuda_1=5, cpu=5),
    ]
    hub._residents = {each.section.path: each for each in residents}

    def leaving(gib: float, device: str) -> list[str]:
        return [each.section.path for each in hub.leaving(int(gib * GIB), device)]

    assert leaving(8, "auto") == leaving(8, "cuda") == leaving(8, "cuda:0") == []
    assert leaving(25, "auto") == ["first card"], "100 GiB of main memory do not help, and what lies there need not go"
    assert leaving(30, "cuda:0") == ["first card", "over all"]
    assert leaving(50, "cuda:1") == ["second card"]
    assert leaving(80, "cpu") == []
    assert leaving(120, "cpu") == ["main"]
    assert leaving(120, "mps") == ["main"], "an Apple GPU has main memory"
    assert leaving(160, "spread") == ["main"]


@pytest.mark.usefixtures("at_the_root")
def test_the_cards_of_the_machine_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cards", lambda: [("Some card", 30 * GIB, 80 * GIB), ("Some card", 79 * GIB, 80 * GIB)])
    monkeypatch.setattr(view, "_device", lambda: "Some card")
    shown = text_of(open_page("app.py"))
    assert "Some card: 30.0 of 80.0 GiB free" in shown
    assert "Some card: 79.0 of 80.0 GiB free" in shown


def test_what_torch_keeps_of_a_card_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    figures = {"mem_get_info": (3 * GIB, 80 * GIB), "memory_reserved": 60 * GIB, "memory_allocated": 41 * GIB}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, figure=figure: figure)
    assert memory.of("cuda:0") == (22 * GIB, 80 * GIB)
    main = memory.of("cpu")
    assert 0 < main[0] <= main[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"card {number}")
    assert memory.cards() == [("card 0", 22 * GIB, 80 * GIB), ("card 1", 22 * GIB, 80 * GIB)]
    assert memory.of("spread")[1] == main[1] + 160 * GIB
