"""What a person sees in each view, and does there with a mouse or with keys, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import TEXT, small_run
from showing import VIEWS, Shown, shown
from small_runs import TINY, tiny_config
from test_hostile import HOSTILE

from bevia_fast import generate, train
from bevia_fast.explorer.exploring import make_page
from bevia_fast.explorer.tracing import lens, probabilities, surprise, trace
from bevia_fast.runs.film import frame_path
from bevia_fast.runs.trained import Run

PLACE = 7  # of the cursor in most tests


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model with random weights in float64; its context of 24 is longer than the text."""
    return small_run(tmp_path_factory.mktemp("small"))


@pytest.fixture
def page(browser: Any, tmp_path: Path, run: Run) -> Iterator[Shown]:
    with shown(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as found:
        yield found


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a film of 4 frames: steps 0, 1, 3 and 10."""
    return train(tiny_config(tmp_path_factory.mktemp("filmed"), film=4, model=replace(TINY, ctx=16)))


@pytest.fixture
def film_page(browser: Any, tmp_path: Path, filmed: Run) -> Iterator[Shown]:
    with shown(browser, tmp_path / "page.html", make_page(filmed, [filmed.tokenizer.alphabet[:9]]).html) as found:
        yield found


def distribution(run: Run, text: str) -> Any:
    """Return the model's probabilities (V,) of the character after a text."""
    return probabilities(trace(run.model, run.tokenizer.encode(text)).logits[-1:])[0]


def listed(run: Run, values: Any, count: int) -> list[tuple[str, Any]]:
    """Return the largest values as bars show them."""
    order = np.argsort(-values, kind="stable")[:count]
    signs = [run.tokenizer.alphabet[token].replace(" ", "␣") for token in order]
    return [(sign, pytest.approx(values[token], abs=6e-4)) for sign, token in zip(signs, order, strict=True)]


# ----------------------------------------------------------------------------------------------------------- all views


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_view_fits_its_window(browser: Any, tmp_path: Path, filmed: Run, theme: str, width: int) -> None:
    html = make_page(filmed, [filmed.tokenizer.alphabet[:9]]).html
    with shown(browser, tmp_path / "page.html", html, width=width, theme=theme) as page:
        for view in VIEWS:
            page.go(view=view, at=4)
            assert page.text("[role=tab][aria-selected=true]").lower().split()[-1] == view
            assert len(page.text(".view .lead")) > 80
            assert page.run("() => document.documentElement.scrollWidth") == width
            assert page.run("() => document.documentElement.dataset.theme") == theme


@pytest.mark.parametrize(
    "sizes",
    [
        {"norm": "post", "activation": "relu", "tie": False, "bias": False, "heads": 1},
        {"norm": "post", "heads": 4, "layers": 1},
        {"dtype": "float32", "bias": False, "tie": False},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_every_view_of_other_models(browser: Any, tmp_path: Path, sizes: dict[str, Any]) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path, **sizes), [TEXT]).html) as page:
        for view in VIEWS:
            page.go(view=view, at=PLACE)
            assert len(page.text(".view")) > 200
        assert "no film" in page.text("#notes")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_text_in_every_view(browser: Any, tmp_path: Path, name: str) -> None:
    text = HOSTILE[name]
    run = small_run(tmp_path / "<img src=x onerror=alert(1)>", text, ctx=80)
    with shown(browser, tmp_path / "page.html", make_page(run, [text]).html) as page:
        for view in VIEWS:
            page.go(view=view, at=0)
            cells = page.texts("#text-card .character")
            assert len(cells) == len(text)
            assert all(cell.strip() or cell == " " for cell in cells)  # each has a sign that can be seen
            assert not any(character in "".join(cells) for character in "\0\u202e\u2028\u2066\ufeff\n\r")
        page.page.fill("#typing", text[:3].replace("\n", "").replace("\r", ""))
        assert page.run("() => typeof window.bad") == "undefined"
        assert page.run("() => document.querySelectorAll('img, main script, main iframe').length") == 0
        assert page.run("() => [...document.scripts].every((each) => each.parentElement === document.body)")


def test_the_address_keeps_the_state(page: Shown) -> None:
    page.go(view="attention", at=PLACE, layer=1)
    page.press("Tab")  # anything: the state is not in the page's elements
    page.page.click("#view-attention .segments button:nth-child(3)")
    page.page.focus("#text-card .character.chosen")
    page.press("ArrowRight")
    page.page.wait_for_function("() => location.hash.includes('map=scores')")
    page.page.reload()
    page.page.wait_for_selector("html[data-ready]")
    page.requests.pop()
    assert page.text(".segments [aria-pressed=true]") == "Scores"
    assert page.text("#view-attention .columns > :nth-child(2) h3") == "Layer 1, head 0"
    assert page.page.get_attribute("#text-card .character.chosen", "data-at") == str(PLACE + 1)


@pytest.mark.parametrize(
    "state",
    [
        {"view": "constructor", "at": "1e9", "layer": -3, "head": "x", "frame": 99, "number": "weight.9.9.9.9"},
        {"typed": "1.2.999.-1.x", "text": 7, "temperature": "NaN", "topP": -1, "__proto__": "x"},
        {"view": "number", "number": "__proto__", "token": 1e300, "stage": -1, "seed": -5, "text": -2},
        {"view": "attention", "layer": 9, "head": 9},
        {"view": "film", "pin": 5, "axis": "<b>", "theme": "pink", "tour": 50},
    ],
    ids=str,
)
def test_any_address_is_a_state(page: Shown, state: dict[str, Any]) -> None:
    page.go(**state)
    assert len(page.texts(".character.chosen")) >= 1
    assert len(page.texts(".view")) == 1


# ---------------------------------------------------------------------------------------------------------------- read


def test_surprise_and_bars_are_the_models(page: Shown, run: Run) -> None:
    page.go(at=PLACE)
    found = trace(run.model, run.tokenizer.encode(TEXT))
    assert page.text("#text-card .readout .value") == f"{surprise(found)[PLACE - 1]:.2f} nats"
    bars = page.bars()
    wanted = listed(run, distribution(run, TEXT[: PLACE + 1]), len(run.tokenizer))
    assert bars == wanted[: len(bars)]
    assert page.text(".bar.marked .glyph") == TEXT[PLACE + 1].replace(" ", "␣")


def test_the_sliders_move_the_bars(page: Shown, run: Run) -> None:
    p = distribution(run, TEXT[: PLACE + 1])
    page.go(at=PLACE, temperature=0.5)
    bars = page.bars()
    assert bars == listed(run, p**2 / (p**2).sum(), len(run.tokenizer))[: len(bars)]
    page.page.focus("#top-k")
    page.press("ArrowRight", "ArrowRight")
    assert page.text("output[for=top-k]") == "the best 2"
    assert [value > 0 for _, value in page.bars()] == [True, True, *[False] * (len(bars) - 2)]
    page.page.click("#view-read .bar")
    assert page.text("#dock h3") == "Probability of being drawn"


def test_typing(page: Shown, run: Run) -> None:
    page.page.focus("#typing")
    page.press("c", "a", "t")
    assert "".join(page.texts("#text-card .character")) == f"{TEXT}cat"
    wanted = surprise(trace(run.model, run.tokenizer.encode(f"{TEXT}cat")))[-1]
    assert page.text("#text-card .readout .value") == f"{wanted:.2f} nats"
    bars = page.bars()
    assert bars == listed(run, distribution(run, f"{TEXT}cat"), len(run.tokenizer))[: len(bars)]
    page.press("Backspace")
    bars = page.bars()
    assert bars == listed(run, distribution(run, f"{TEXT}ca"), len(run.tokenizer))[: len(bars)]
    page.page.keyboard.type("é")
    assert "does not know “é”" in page.text(".refused")
    assert "".join(page.texts("#text-card .character")) == f"{TEXT}ca"


def test_it_writes_what_generate_writes(page: Shown, run: Run) -> None:
    page.go(seed=5, length=70, temperature=0.8, topK=6, topP=0.9)
    page.page.click("#view-read .primary")
    page.page.wait_for_function("() => document.getElementById('live').textContent.startsWith('Wrote')")
    written = page.page.input_value("#typing")
    assert TEXT + written == generate(run, TEXT, length=70, seed=5, temperature=0.8, top_k=6, top_p=0.9)
    assert len(page.texts("#text-card .character")) <= 24  # the model's window
    # once more, from a text that is longer than the context
    page.page.click("#view-read .primary")
    page.page.wait_for_function("() => document.getElementById('typing').value.length === 94")
    again = page.page.input_value("#typing")
    prompt = (TEXT + written)[-24:]
    assert again == generate(run, prompt, length=70, seed=5, temperature=0.8, top_k=6, top_p=0.9)


def test_what_is_written_stays_as_it_is_when_one_types_on(browser: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path, "a\nb\rc\t ")
    with shown(browser, tmp_path / "page.html", make_page(run, ["ab\n"]).html) as page:
        page.go(seed=2, length=16)
        page.page.click("#view-read .primary")
        page.page.wait_for_function("() => document.getElementById('live').textContent.startsWith('Wrote')")
        written = generate(run, "ab\n", length=16, seed=2, temperature=1.0)
        assert {"\n", "\r", "\t"} < set(written)
        page.page.focus("#typing")
        page.press("End", "Control+End", "c", "Enter", "a")
        signs = {"\n": "↵", "\r": "␍", "\t": "⇥"}
        cells = "".join(page.texts("#text-card .character"))
        assert cells == "".join(signs.get(character, character) for character in f"{written}c\na")


# --------------------------------------------------------------------------------------------- attention, stream, map


def test_attention(page: Shown, run: Run) -> None:
    page.go(view="attention", at=PLACE)
    page.page.focus(".head.chosen")
    page.press("ArrowDown", "ArrowRight")
    assert page.focused() == {"layer": "1", "head": "1"}
    layer = trace(run.model, run.tokenizer.encode(TEXT)).layers[1]
    scores, weights = layer.scores[1, PLACE, : PLACE + 1], layer.weights[1, PLACE, : PLACE + 1]
    order = np.argsort(-weights, kind="stable")
    cells = page.run("() => [...document.querySelectorAll('#view-attention td')].map((each) => each.textContent)")
    numbers = np.array([float(cell.replace("−", "-").replace("<", "")) for cell in cells]).reshape(-1, 3)
    wanted = np.stack([scores, scores / 2, weights], axis=1)[order]  # a head has 4 channels
    assert np.abs(numbers - wanted).max() <= 1e-3 + 5e-4 * np.abs(wanted).max()
    painted = "() => [...document.querySelectorAll('#text-card .character')].map((each) => each.style.backgroundColor)"
    shades = page.run(painted)
    assert [bool(shade) for shade in shades] == [place <= PLACE for place in range(len(TEXT))]
    assert len(page.texts("#text-card .character.future")) == len(TEXT) - PLACE - 1
    page.page.hover("#text-card [data-at='3']")
    assert page.text("#view-attention .columns > :nth-child(3) h3").endswith("position 3")
    page.page.mouse.move(0, 0)
    assert page.text("#view-attention .columns > :nth-child(3) h3").endswith(f"position {PLACE}")


def test_a_cell_of_the_map_is_a_number(page: Shown, run: Run) -> None:
    page.go(view="attention", at=1, layer=1)
    box = page.page.locator("#view-attention .map").bounding_box()
    cell = (box["width"] - 22) / len(TEXT)
    page.page.mouse.click(box["x"] + 22 + 4.5 * cell, box["y"] + 22 + 9.5 * cell)
    weight = trace(run.model, run.tokenizer.encode(TEXT)).layers[1].weights[0, 9, 4]
    assert page.text("#dock h3") == "Attention weight"
    assert "position 9" in page.text("#dock .what .caption:first-of-type")
    assert float(page.text("#dock .big").split()[0]) == pytest.approx(weight, abs=1e-6)
    page.press("Escape")
    assert page.texts("#dock") == []


def test_stream(page: Shown, run: Run) -> None:
    page.go(view="stream", at=PLACE)
    wanted = lens(run.model, trace(run.model, run.tokenizer.encode(TEXT))).argmax(axis=-1)
    cells = page.run("() => [...document.querySelectorAll('#view-stream .cell')].map((each) => each.textContent)")
    signs = [character.replace(" ", "␣") for character in run.tokenizer.alphabet]
    assert cells == [signs[token] for token in wanted.ravel()]
    page.page.fill("#typing", "sat")
    page.page.fill("#typing", "smo")  # other guesses than before, at the same positions
    wanted = lens(run.model, trace(run.model, run.tokenizer.encode(f"{TEXT}smo"))).argmax(axis=-1)
    cells = page.run("() => [...document.querySelectorAll('#view-stream .cell')].map((each) => each.textContent)")
    assert cells == [signs[token] for token in wanted.ravel()]
    page.go(view="stream", at=PLACE, head=1)
    page.page.focus("#view-stream .cell.chosen")
    page.press("ArrowUp", "ArrowUp", "ArrowLeft")
    assert page.focused() == {"row": "3", "column": str(PLACE - 1)}
    assert page.text("#dock h3") == "Logit lens"


def test_nearest_characters(page: Shown, run: Run) -> None:
    token = run.tokenizer.alphabet.index("t")
    page.go(view="embeddings", token=token)
    table = run.model.parameters["wte.weight"]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = table @ table[token]
    order = [other for other in np.argsort(-cosine) if other != token]
    signs = [run.tokenizer.alphabet[other].replace(" ", "␣") for other in order]
    found = page.texts("#view-embeddings .bar .glyph")
    assert found == signs[: len(found)]
    page.page.focus("#view-embeddings .point.chosen")
    page.press("Home")
    assert page.text("#view-embeddings .point.chosen") == "␣"


# ---------------------------------------------------------------------------------------------------------------- film


def test_the_film_is_followed_by_every_view(film_page: Shown, filmed: Run) -> None:
    film_page.go(view="film", at=4)
    film_page.page.focus(".scrubber")
    film_page.press("Home")
    assert film_page.page.get_attribute(".scrubber", "aria-valuetext").startswith("step 0")
    film_page.page.click("text=Pin this frame")
    film_page.press("Tab")
    film_page.page.focus(".scrubber")
    film_page.press("ArrowRight", "ArrowRight")
    assert [text.split(" · ")[0] for text in film_page.texts("#view-film .side h3")] == ["step 0", "step 3"]
    text = filmed.tokenizer.alphabet[:9]
    for step, line in zip((0, 3), film_page.texts("#view-film .side .readout"), strict=True):
        frame = Run.load(frame_path(filmed.folder, step), "numpy")
        mean = surprise(trace(frame.model, frame.tokenizer.encode(text))).mean()
        assert f"{mean:.2f} nats" in line
    film_page.page.click("#tab-read")
    assert "kept in the film" in film_page.text(".origin")
    assert film_page.page.is_disabled("#temperature")
    film_page.page.fill("#typing", "e")  # the film does not know it: back to the end
    assert "computed in this page" in film_page.text(".origin")
    assert "the end" in film_page.text("#film-bar p")


def test_the_loss_curve_is_the_scrubber(film_page: Shown) -> None:
    film_page.go(view="film", axis="linear")
    box = film_page.page.locator(".scrubber").bounding_box()
    film_page.page.mouse.click(box["x"] + 48 + 0.28 * (box["width"] - 60), box["y"] + 100)
    assert film_page.text("#view-film .side h3").startswith("step 3 ")
    film_page.page.click("#view-film .readout .value")
    assert film_page.text("#dock h3") == "Loss"
    assert "step 3" in film_page.text("#dock .what .caption:first-of-type")
    film_page.press("Escape")
    film_page.page.click("#view-film .play")
    film_page.page.wait_for_function("() => document.querySelector('.scrubber').getAttribute('aria-valuenow') === '3'")


# ---------------------------------------------------------------------------------------------------------------- tour


# Whether what the tour points at begins where one sees it: below the tabs, and above the lower edge.
SEEN = """
() => {
  const { top } = document.querySelector(".pointed").getBoundingClientRect();
  return top >= document.getElementById("tabs").getBoundingClientRect().bottom && top < innerHeight - 200;
}
"""


def test_the_tour(film_page: Shown) -> None:
    film_page.page.focus("#tour-start")
    film_page.press("Enter")
    stops = int(film_page.text("#tour .count").split()[-1])
    assert stops == 9
    views = []
    for stop in range(1, stops + 1):
        assert film_page.text("#tour .count") == f"{stop} of {stops}"
        assert len(film_page.texts(".pointed")) == 1
        assert film_page.run(SEEN), stop
        views.append(film_page.page.get_attribute("[aria-selected=true][role=tab]", "data-view"))
        film_page.press("Enter")  # Next has the focus
    assert list(dict.fromkeys(views)) == list(VIEWS)
    assert film_page.texts("#tour") == []
    assert film_page.run("() => document.activeElement.id") == "tour-start"


def test_every_view_of_a_model_with_rotary_positions(browser: Any, tmp_path: Path) -> None:
    """There is no table of positions to show; a page that raises an error fails the test."""
    run = small_run(tmp_path, positions="rotary")
    with shown(browser, tmp_path / "page.html", make_page(run, [TEXT]).html) as page:
        for view in VIEWS:
            page.go(view=view, at=PLACE)
            assert page.page.evaluate("document.querySelector('main').innerText.length") > 100
        page.go(view="embeddings", at=PLACE)
        assert "Positions" not in page.texts("#view-embeddings h3")
