"""The interactive page: drop a picture, read its ledger, move concepts, see the prediction change.

gradio (``pip install "sparsecbm[app]"``) makes the page; it is imported here alone, and only when the page is opened.
The server listens on this computer only unless told otherwise, lets in what its own page sends (`app_guard`), and the
page's policy lets nothing be fetched from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm.data.decode import UndecodableError, decode_image, read_picture
from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.glossary import GLOSSARY
from sparsecbm.explain.html import ledger_html
from sparsecbm.explain.interventions import Interventions, counterfactual
from sparsecbm.inputs.data import open_images
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.runs.app_guard import Guard, is_loopback
from sparsecbm.runs.predict import mapped

if TYPE_CHECKING:
    from PIL.Image import Image

    from sparsecbm.data import ImageSource
    from sparsecbm.encoders import Encoder

SLIDERS = 8
"""Concepts that have a slider: the largest contributions, then those that tell the class from the runner-up."""
CHOSEN = 4
"""Further concepts that the reader may choose sliders for."""
EXAMPLES = 12
MAX_UPLOAD = "10mb"
MAX_PIXELS = 40_000_000
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


class Session:
    """What the page computes, without the page: one model, one encoder, one picture at a time.

    Parameters
    ----------
    stored : StoredModel
    encoder : Encoder
    """

    def __init__(self, stored: StoredModel, encoder: Encoder) -> None:
        self.stored, self.encoder = stored, encoder
        self._examples: ImageSource | None = None

    def look(self, picture: str | Path) -> Ledgers:
        """Encode a picture file and account for its prediction, with maps where the encoder opens.

        Raises
        ------
        InputError
            If it is no picture in one of the formats that are decoded, damaged, or of more than `MAX_PIXELS` pixels.
        """
        try:
            image = decode_image(read_picture(picture), MAX_PIXELS)
        except UndecodableError as error:
            raise InputError(f"the picture cannot be used: {error}") from error
        vectors = self.encoder.encode_images([image])
        ledgers = self._ledgers(self.stored.classifier.transform(vectors), vectors)
        try:
            return mapped(ledgers, self.stored, [image])
        except InputError:  # an encoder that does not open
            return ledgers

    @property
    def probabilities(self) -> bool:
        """Whether activations are the probabilities of concepts."""
        return self.stored.classifier.bottleneck_.gate.name == "presence"

    def _ledgers(self, activations: Any, vectors: Any = None) -> Ledgers:
        from sparsecbm.estimators.inference import told_presence  # takes seconds to import

        model = self.stored.classifier
        told = {} if vectors is None else told_presence(model, vectors)
        if self.probabilities:
            told = {"presence": activations, "worth": model.worth_}
        return explain(
            activations,
            model.head_weights_,
            model.head_intercept_,
            model.concept_names_,
            self.stored.class_names,
            **told,
        )

    def reach(self, activations: Any) -> float:
        """Upper end of the sliders."""
        return 1.0 if self.probabilities else _reach(activations)

    def sliders(self, ledgers: Ledgers) -> list[tuple[str, float, float]]:
        """Return name, value and upper end of the concepts that matter most for this picture."""
        first, second = np.argsort(-ledgers.scores[0], kind="stable")[:2]
        chosen = [entry.concept for entry in ledgers[0].top(SLIDERS)]
        lead = np.abs(ledgers.weights[first] - ledgers.weights[second])
        for j in np.argsort(-lead, kind="stable"):
            if len(chosen) >= min(SLIDERS, len(ledgers.concepts)):
                break
            if ledgers.concepts[j] not in chosen:
                chosen.append(ledgers.concepts[j])
        place = {name: j for j, name in enumerate(ledgers.concepts)}
        values = [float(ledgers.activations[0, place[name]]) for name in chosen]
        return [(name, value, self.reach(ledgers.activations)) for name, value in zip(chosen, values)]

    def quality(self) -> str:
        """Say how good the model is, never without its control; empty where nobody measured it."""
        test = self.stored.metadata.get("test") or {}
        if "accuracy" not in test:
            return ""
        said = f"Right on {test['accuracy']:.1%} of {test['n_images']:,} test pictures. "
        return said + (test.get("verdict") or "What meaningless directions would reach was not measured.")

    def example(self, number: int) -> tuple[Image, str]:
        """Return a picture that the model may be tried on, and its name; from the test pictures of its training.

        Raises
        ------
        InputError
            If they cannot be had.
        """
        if self.stored.images is None:
            raise InputError("this model was trained on embeddings made elsewhere: drop a picture of your own")
        if self._examples is None:
            self._examples = open_images(self.stored.images.model_copy(update={"max_test": EXAMPLES}), "test")
        place = number % len(self._examples)
        return self._examples[place], self._examples.ids[place]

    def edited(self, activations: Any, changes: dict[str, float]) -> Ledgers:
        """Return the ledgers of activations with some concepts changed."""
        edits = Interventions(self._ledgers(np.atleast_2d(activations)))
        if self.probabilities:
            for name, value in changes.items():
                edits.correct(0, name, value)
        elif changes:
            edits.replace(0, changes)
        return edits.ledgers

    def smallest_change(self, activations: Any) -> str:
        """Say in words which fewest concepts would turn the prediction."""
        ledgers = self._ledgers(np.atleast_2d(activations))
        high = np.maximum(ledgers.activations[0], self.reach(ledgers.activations))
        found = counterfactual(ledgers, 0, high=high) or counterfactual(ledgers, 0, any_class=True, high=high)
        return "No change of concepts turns this prediction." if found is None else found.to_text()

    def classes(self, ledgers: Ledgers, k: int = 5) -> dict[str, float]:
        """Return the most probable classes."""
        row = ledgers.probabilities[0]
        return {ledgers.classes[c]: float(row[c]) for c in np.argsort(-row, kind="stable")[:k]}


def _reach(activations: Any) -> float:
    """Upper end of the sliders: units are standardised, so few pictures go beyond."""
    return float(np.ceil(max(4.0, 1.25 * np.max(activations))))


def _shown(value: float) -> float:
    return round(value, 2)


def open_session(model: str | Path, encoder: str | None = None, device: str = "auto") -> Session:
    """Load a model and its encoder."""
    stored = load_model(model, inference=True, encoder=encoder, device=device)
    return Session(stored, stored.encoder)


def build_page(session: Session) -> Any:
    """Lay out the page; returns ``gradio.Blocks``.

    Raises
    ------
    InputError
        If gradio is not installed.
    """
    gr = _gradio()
    stored = session.stored

    n_sliders = SLIDERS + CHOSEN
    concepts = {name: j for j, name in enumerate(stored.classifier.concept_names_)}

    def look(picture: str | None) -> list[Any]:
        if picture is None:
            off = gr.Button(interactive=False)
            hidden = [gr.Slider(visible=False) for _ in range(n_sliders)]
            return ["", None, "", None, [], off, off, gr.Dropdown(value=[], interactive=False), *hidden]
        try:
            ledgers = session.look(picture)
        except InputError as error:
            raise gr.Error(str(error)) from error
        made = session.sliders(ledgers)
        shown = [
            gr.Slider(label=name, value=_shown(value), minimum=min(0.0, _shown(value)), maximum=top, visible=True)
            for name, value, top in made
        ]
        shown += [gr.Slider(visible=False) for _ in range(n_sliders - len(shown))]
        row = ledgers.activations[0].tolist()
        # One entry a slider of the picture, also of those that are not shown.
        start = [(name, _shown(value)) for name, value, _ in made] + [("", 0.0)] * (SLIDERS - len(made))
        return [
            ledger_html(ledgers[0].lines()),
            session.classes(ledgers),
            "",
            row,
            start,
            gr.Button(interactive=True),
            gr.Button(interactive=True),
            gr.Dropdown(value=[], interactive=True),
            *shown,
        ]

    def choose(row: list[Any] | None, start: list[Any], names: list[str], *values: float) -> list[Any]:
        """Give each chosen concept a slider; one that has been moved stays where it is."""
        first, held = start[:SLIDERS], dict(zip((name for name, _ in start), values))
        present = {name for name, _ in first}
        added = [name for name in names if name in concepts and name not in present][:CHOSEN] if row else []
        before = [(name, _shown(float(np.asarray(row)[concepts[name]]))) for name in added]
        made = [
            gr.Slider(
                label=name,
                value=held.get(name, value),
                minimum=min(0.0, value),
                maximum=session.reach(row),
                visible=True,
            )
            for name, value in before
        ]
        return [first + before, *made, *(gr.Slider(visible=False) for _ in range(CHOSEN - len(made)))]

    def another(number: int) -> list[Any]:
        try:
            picture, name = session.example(number)
        except InputError as error:
            raise gr.Error(str(error)) from error
        return [gr.Image(value=picture, label=name), number + 1]

    def moved(start: list[Any], values: tuple[float, ...]) -> dict[str, float]:
        # A slider shows two decimals: one that nobody moved must not round its activation.
        return {name: float(value) for (name, before), value in zip(start, values) if name and float(value) != before}

    def move(row: list[float] | None, start: list[Any], *values: float) -> list[Any]:
        if row is None:
            return ["", None]
        ledgers = session.edited(row, moved(start, values))
        return [ledger_html(ledgers[0].lines()), session.classes(ledgers)]

    def turn(row: list[float] | None, start: list[Any], *values: float) -> str:
        return "" if row is None else session.smallest_change(session.edited(row, moved(start, values)).activations)

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
                    list(concepts),
                    multiselect=True,
                    max_choices=CHOSEN,
                    filterable=True,
                    interactive=False,
                    label="Sliders for other concepts (type to search)",
                    elem_classes=["scbm-choose"],
                )
                sliders = [gr.Slider(0, 4, step=0.01, visible=False, interactive=True) for _ in range(n_sliders)]
        with gr.Accordion("What the words mean", open=False):
            gr.Markdown("\n".join(f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items()))
        outputs = [ledger, found, words, row, start, turned, reset, chosen, *sliders]
        example.click(another, number, [image, number], show_progress="hidden", api_visibility="private")
        chosen.input(
            choose,
            [row, start, chosen, *sliders],
            [start, *sliders[SLIDERS:]],
            show_progress="hidden",
            api_visibility="private",
        )
        image.change(look, image, outputs, show_progress="minimal", api_visibility="private")
        reset.click(look, image, outputs, show_progress="hidden", api_visibility="private")
        for slider in sliders:
            slider.input(
                move,
                [row, start, *sliders],
                [ledger, found],
                show_progress="hidden",
                trigger_mode="always_last",
                api_visibility="private",
            )
        turned.click(turn, [row, start, *sliders], words, show_progress="hidden", api_visibility="private")
    return page


def build_server(session: Session, host: str = "127.0.0.1") -> Guard:
    """Return the page as an ASGI application that lets in what its own page sends; see `Guard`.

    What a browser sends names no file but those that were uploaded, and no address.
    """
    gr = _gradio()
    from fastapi import FastAPI

    # System fonts: gradio's own themes may ask a font service.
    theme = gr.themes.Base(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(session)
    # gradio checks that a file named by the browser was uploaded only once the page is launched; mounted, it never is,
    # and would hand out any file of this computer.
    page.has_launched = True
    mounted = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        theme=theme,
        css=STYLE,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    return Guard(mounted, host)


def app_run(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    encoder: str | None = None,
    device: str = "auto",
    announce: Callable[[str, str], None] | None = None,
) -> None:
    """Serve the interactive page of a saved model until interrupted.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    host : str
        Address to listen on; the default is this computer alone.
    port : int
        1 to 65535.
    encoder : str, optional
        Where the encoder lies now.
    device : str
        See `load_encoder`.
    announce : callable, optional
        Told the address of the page, once it is about to be there, and a warning if it is open to others.

    Raises
    ------
    InputError
        If gradio is not installed, or the address cannot be had.
    """
    if not 0 < port < 65536:
        raise InputError(f"port={port!r}: expected 1 to 65535")
    _gradio()
    _check_free(host, port)
    server = build_server(open_session(model, encoder, device), host)
    import uvicorn

    if announce is not None:
        warning = "" if is_loopback(host) else "; whoever can reach this address can use it"
        announce(f"http://{host}:{port}/", warning)
    uvicorn.run(server, host=host, port=port, log_level="warning")


def _check_free(host: str, port: int) -> None:
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error


def _gradio() -> Any:
    # Before the import: gradio reads these once.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ.setdefault("GRADIO_SSR_MODE", "False")
    require("gradio", "app", "the interactive page")
    import gradio

    return gradio
