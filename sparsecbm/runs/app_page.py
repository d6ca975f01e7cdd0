"""The interactive page itself: what stands where, and what each touch of it changes.

Gradio makes it; it is imported here alone, and only when the page is opened.
"""

from __future__ import annotations

import os
from typing import Any

from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm.explain.glossary import GLOSSARY
from sparsecbm.explain.html import ledger_html
from sparsecbm.runs.app_session import CHOSEN, SLIDERS, Session

STYLE = """
.scbm-picture img { width: 100%; height: 100%; object-fit: contain; }
.scbm-choose .options { position: static !important; width: 100% !important; max-height: 11rem !important; }
.scbm-choose .option-list { max-height: 11rem !important; }
.scbm-fragment .scbm-ledger, .scbm-fragment .scbm-ledger * { border-width: 0; }
.scbm-fragment .scbm-ledger th { padding: .16rem .6rem .16rem 0; } .scbm-fragment .scbm-ledger td { padding: 0; }
.scbm-fragment .scbm-ledger td.number { text-align: right; }
.scbm-fragment .scbm-ledger tfoot > tr:not(.placed) > * { border-top: 1px solid currentColor; padding-top: .25rem; }
.scbm-fragment .scbm-ledger .zero { border-left: 1px solid currentColor; opacity: .4; }
"""


class _Answers:
    """What the page shows after each touch: new values of its parts, in the order in which the page names them."""

    def __init__(self, session: Session, gr: Any) -> None:
        self.session, self.gr = session, gr
        self.concepts = {name: j for j, name in enumerate(session.stored.classifier.concept_names_)}

    def look(self, picture: str | None) -> list[Any]:
        if picture is None:
            off = self.gr.Button(interactive=False)
            hidden = [self.gr.Slider(visible=False) for _ in range(SLIDERS + CHOSEN)]
            return ["", None, "", None, [], off, off, self.gr.Dropdown(value=[], interactive=False), *hidden]
        try:
            ledgers = self.session.look(picture)
        except InputError as error:
            raise self.gr.Error(str(error)) from error
        made = self.session.sliders(ledgers)
        shown = [
            self.gr.Slider(label=name, value=_shown(value), minimum=min(0.0, _shown(value)), maximum=top, visible=True)
            for name, value, top in made
        ]
        shown += [self.gr.Slider(visible=False) for _ in range(SLIDERS + CHOSEN - len(shown))]
        row = [None if part is None else part[0].tolist() for part in (ledgers.activations, ledgers.presence)]
        # One entry a slider of the picture, also of those that are not shown.
        start = [(name, _shown(value)) for name, value, _ in made] + [("", 0.0)] * (SLIDERS - len(made))
        return [
            ledger_html(ledgers[0].lines()),
            self.session.classes(ledgers),
            "",
            row,
            start,
            self.gr.Button(interactive=True),
            self.gr.Button(interactive=True),
            self.gr.Dropdown(value=[], interactive=True),
            *shown,
        ]

    def choose(self, row: list[Any] | None, start: list[Any], names: list[str], *values: float) -> list[Any]:
        """Give each chosen concept a slider; one that has been moved stays where it is."""
        first, held = start[:SLIDERS], dict(zip((name for name, _ in start), values))
        present = {name for name, _ in first}
        activations = row[0] if row else []
        added = [name for name in names if name in self.concepts and name not in present][:CHOSEN] if row else []
        before = [(name, _shown(float(activations[self.concepts[name]]))) for name in added]
        made = [
            self.gr.Slider(
                label=name,
                value=held.get(name, value),
                minimum=min(0.0, value),
                maximum=self.session.reach(activations),
                visible=True,
            )
            for name, value in before
        ]
        return [first + before, *made, *(self.gr.Slider(visible=False) for _ in range(CHOSEN - len(made)))]

    def another(self, number: int) -> list[Any]:
        try:
            picture, name = self.session.example(number)
        except InputError as error:
            raise self.gr.Error(str(error)) from error
        return [self.gr.Image(value=picture, label=name), number + 1]

    @staticmethod
    def _moved(start: list[Any], values: tuple[float, ...]) -> dict[str, float]:
        # A slider shows two decimals: one that nobody moved must not round its activation.
        return {name: float(value) for (name, before), value in zip(start, values) if name and float(value) != before}

    def move(self, row: list[Any] | None, start: list[Any], *values: float) -> list[Any]:
        if row is None:
            return ["", None]
        ledgers = self.session.edited(row[0], self._moved(start, values), row[1])
        return [ledger_html(ledgers[0].lines()), self.session.classes(ledgers)]

    def turn(self, row: list[Any] | None, start: list[Any], *values: float) -> str:
        if row is None:
            return ""
        return self.session.smallest_change(self.session.edited(row[0], self._moved(start, values)).activations)


def build_page(session: Session) -> Any:
    """Lay out the page; returns ``gradio.Blocks``.

    Raises
    ------
    InputError
        If gradio is not installed.
    """
    gr = import_gradio()
    stored, answers = session.stored, _Answers(session, gr)
    with gr.Blocks(title=f"sparsecbm: {stored.path.name}", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# Why this class?\n{session.quality()}\n\n{len(stored.class_names):,} classes, "
            f"{len(stored.classifier.concept_names_):,} named concepts. Drop a picture, read what each concept adds, "
            "then move concepts and see the prediction change. "
            "Point at a line to see where in the picture it comes from."
        )
        row, start, number = gr.State(None), gr.State([]), gr.State(0)
        with gr.Row():
            with gr.Column(scale=4):
                # As a file: gradio would decode any format that Pillow knows, of any size.
                image = gr.Image(
                    type="filepath",
                    image_mode=None,
                    label="Picture",
                    sources=["upload", "clipboard"],
                    height=300,
                    buttons=[],
                    format="png",
                    elem_classes=["scbm-picture"],
                )
                example = gr.Button("Show an example", size="sm", visible=stored.images is not None)
                found = gr.Label(label="Classes", num_top_classes=5)
            with gr.Column(scale=6):
                ledger = gr.HTML(label="Ledger")
                with gr.Row():
                    turned = gr.Button("Smallest change that turns it", interactive=False, size="sm")
                    reset = gr.Button("Back to the picture", interactive=False, size="sm")
                words = gr.Textbox(label="Smallest change", lines=3, interactive=False)
            with gr.Column(scale=4):
                chosen = gr.Dropdown(
                    list(answers.concepts),
                    multiselect=True,
                    max_choices=CHOSEN,
                    filterable=True,
                    interactive=False,
                    label="Sliders for other concepts (type to search)",
                    elem_classes=["scbm-choose"],
                )
                sliders = [gr.Slider(0, 4, step=0.01, visible=False, interactive=True) for _ in range(SLIDERS + CHOSEN)]
        with gr.Accordion("What the words mean", open=False):
            gr.Markdown("\n".join(f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items()))
        outputs = [ledger, found, words, row, start, turned, reset, chosen, *sliders]
        example.click(answers.another, number, [image, number], show_progress="hidden", api_visibility="private")
        chosen.input(
            answers.choose,
            [row, start, chosen, *sliders],
            [start, *sliders[SLIDERS:]],
            show_progress="hidden",
            api_visibility="private",
        )
        image.change(answers.look, image, outputs, show_progress="minimal", api_visibility="private")
        reset.click(answers.look, image, outputs, show_progress="hidden", api_visibility="private")
        for slider in sliders:
            slider.input(
                answers.move,
                [row, start, *sliders],
                [ledger, found],
                show_progress="hidden",
                trigger_mode="always_last",
                api_visibility="private",
            )
        turned.click(answers.turn, [row, start, *sliders], words, show_progress="hidden", api_visibility="private")
    return page


def _shown(value: float) -> float:
    return round(value, 2)


def import_gradio() -> Any:
    """Import gradio, with its settings."""
    # Before the import: gradio reads these once.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ.setdefault("GRADIO_SSR_MODE", "False")
    require("gradio", "app", "the interactive page")
    import gradio

    return gradio
