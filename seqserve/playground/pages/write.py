"""The page Write: text as it is generated, coloured by probability, with one or two settings."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from nicegui import ui

from seqserve.aio_calls import AsyncTextStream
from seqserve.cli.generate import unescape
from seqserve.playground.context import Context
from seqserve.playground.token_text import Token, TokenText, legend
from seqserve.playground.writing import (
    MAX_RANKED,
    MAX_TOKENS,
    NUM_ALTERNATIVES,
    Draft,
    Settings,
    WrongSetting,
    are_characters,
    draft_of,
    fragment_of,
    settings_of,
    start_text,
    tokens_of,
)
from seqserve.results import ModelInfo, ModelStatus

_TASK: Final = "text-generation"
_EXAMPLE: Final = "ROMEO:\n"
_EXAMPLE_SETTINGS: Final = (Settings(temperature=0.5, seed=7), Settings(temperature=1.0, seed=7))
_NO_MODEL: Final = "No model that generates text serves at this server; the page Models lists those that do."
# Tokens are shown a few times a second, the fewer the longer the text is: each time, the browser lays it out.
# A message for each piece would be a thousand a second, and the page then answers neither keys nor pings.
_SHOW_AFTER_S, _SHOW_AFTER_S_A_TOKEN = 0.1, 4e-5
_TOO_LONG: Final = f"Alternatives are shown for prompts and texts of up to {MAX_RANKED} characters together."
_OTHER_TOKENS: Final = "Alternatives are shown for models whose tokens are characters."


async def build(context: Context) -> None:
    """Show a prompt, settings, and the text that follows."""
    known = await context.client.models()
    ready = [one for one in known if one.task == _TASK and one.status is ModelStatus.READY]
    if not ready:
        ui.label(_NO_MODEL)
        return
    page = _Page(context, ready)
    fragment = await ui.run_javascript("window.location.hash", timeout=10)
    page.fill_from(str(fragment or ""))


class _Form:
    """The controls of one setting.

    Args:
        name: What the setting is called.
    """

    def __init__(self, name: str) -> None:
        with ui.element("div").classes("sq-settings").props(f'role=group aria-label="{name}"'):
            plain = Settings()
            self._inputs: dict[str, Any] = {
                "max_tokens": ui.number(
                    "Max tokens", value=plain.max_tokens, min=0, max=MAX_TOKENS, precision=0
                ),
                "temperature": ui.number("Temperature", value=plain.temperature, min=0, step=0.1),
                "top_k": ui.number("Top k (0: all)", value=plain.top_k, min=0, precision=0),
                "top_p": ui.number("Top p", value=plain.top_p, min=0, max=1, step=0.05),
                "seed": ui.input("Seed (empty: drawn)").props("inputmode=numeric"),
            }
            self._stop = ui.input_chips("Stop strings (Enter adds one, \\n is a new line)").classes("sq-wide")

    def read(self) -> Settings:
        """Return the settings.

        Raises:
            WrongSetting: A control holds something else.
        """
        found = {name: control.value for name, control in self._inputs.items()}
        return settings_of(found | {"stop": [unescape(text) for text in self._stop.value or ()]})

    def fill(self, settings: Settings) -> None:
        """Show settings."""
        for name, control in self._inputs.items():
            value = getattr(settings, name)
            control.set_value(("" if value is None else str(value)) if name == "seed" else value)
        self._stop.set_value([text.replace("\\", "\\\\").replace("\n", "\\n") for text in settings.stop])


class _Side:
    """One setting and the text that is written with it.

    Args:
        context: The page's context.
        name: What the side is called.
    """

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        with ui.column().classes("sq-half") as self.column:
            with ui.expansion(f"Settings, {name}", value=True).classes("w-full").props("dense"):
                self.form = _Form(f"Settings, {name}")
            self.text = TokenText(f"Text, {name}")
            self.status = ui.label().classes("sq-quiet").props("role=status")
        self.used: Settings | None = None
        self._pending: list[Token] = []
        self._pending_status = ""
        self._showing: asyncio.TimerHandle | None = None

    async def write(self, draft: Draft, settings: Settings, model: ModelInfo) -> None:
        """Write a text and show it as it comes, then what could have stood in place of each character."""
        self.used = None
        self.text.reset(draft.prompt)
        self.status.set_text("waiting for the first token")
        began = time.monotonic()
        count, logprob, ending = 0, 0.0, "failed"
        try:
            # A setting out of its range is refused here, before anything is sent.
            async with self._stream(draft, settings) as stream:
                async for piece in stream:
                    self.used = replace(settings, seed=piece.seed)
                    count, logprob = count + piece.token_count, logprob + sum(piece.logprobs)
                    shown = tokens_of(piece, are_characters=are_characters(model))
                    self._show_soon(shown, f"{count} tokens, seed {piece.seed}")
                    ending = f"ended by {piece.finish_reason.value}" if piece.finish_reason else ending
        except asyncio.CancelledError:
            ending = "cancelled"
            raise
        finally:
            self._show()
            self.status.set_text(_summary(count, logprob, time.monotonic() - began, self.used, ending))
        await self.rank(draft.prompt, model)

    def _show_soon(self, tokens: Sequence[Token], status: str) -> None:
        """Show tokens in a moment, with those that come until then and the latest status."""
        self._pending += tokens
        self._pending_status = status
        if self._showing is None:
            delay_s = _SHOW_AFTER_S + _SHOW_AFTER_S_A_TOKEN * len(self.text.tokens)
            self._showing = asyncio.get_running_loop().call_later(delay_s, self._show)

    def _show(self) -> None:
        if self._showing is not None:
            self._showing.cancel()
        pending, self._pending, self._showing = self._pending, [], None
        self.text.append(pending)
        self.status.set_text(self._pending_status)

    def _stream(self, draft: Draft, settings: Settings) -> AsyncTextStream:
        return self._context.client.generate(
            draft.prompt,
            model=draft.model,
            version=draft.version,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=settings.seed,
            stop=settings.stop,
            logprobs=True,
        )

    async def rank(self, prompt: str, model: ModelInfo) -> None:
        """Ask for the likeliest tokens at each place of the text that is shown."""
        written = self.text.text
        if not are_characters(model):
            self.text.set_alternatives([], _OTHER_TOKENS)
            return
        before = prompt or start_text(model)
        if len(before) + len(written) > MAX_RANKED:
            self.text.set_alternatives([], _TOO_LONG)
        elif written and before:
            [score] = await self._context.client.score(
                [before + written], model=model.name, version=model.version, alternatives=NUM_ALTERNATIVES
            )
            # The prompt may be normalized to another length; the written text is as the model writes it.
            self.text.set_alternatives(score.alternatives[-len(written) :])


class _Page:
    """The controls of the page.

    Args:
        context: The page's context.
        ready: Model versions that serve; at least one.
    """

    def __init__(self, context: Context, ready: Sequence[ModelInfo]) -> None:
        self._context = context
        self._running: dict[_Side, asyncio.Task[None]] = {}
        self._sending: asyncio.Task[None] | None = None
        self._shared: Draft | None = None
        self._model: ModelInfo | None = None
        options = {f"{one.name} {one.version}": (one.name, one.version) for one in ready}
        self._versions = options
        with ui.row().classes("w-full items-end"):
            self._choice = ui.select(list(options), value=next(iter(options)), label="Model")
            self._two = ui.switch("Two settings side by side", on_change=self._show_sides)
        self._prompt = ui.textarea("Prompt", value=_EXAMPLE).props("autogrow counter").classes("w-full")
        with ui.row().classes("items-center"):
            ui.button("Write", icon="edit", on_click=context.action(self._send)).classes("sq-send")
            ui.button("Cancel", icon="stop", on_click=context.action(self._cancel)).props("flat").classes(
                "sq-cancel"
            )
            ui.button("Try an example", icon="lightbulb", on_click=self._example).props("flat")
            ui.button("Share", icon="link", on_click=context.action(self._share)).props("flat")
        self._link = ui.input("Link to this text").props("readonly").classes("w-full")
        self._link.set_visibility(False)
        legend()
        with ui.row().classes("w-full items-start"):
            self._sides = (_Side(context, "first setting"), _Side(context, "second setting"))
        self._show_sides()

    def fill_from(self, fragment: str) -> None:
        """Show what a link holds. Nothing is sent before somebody asks for it."""
        try:
            draft = draft_of(fragment)
        except WrongSetting as error:
            self._context.alert.show(str(error))
            return
        if draft is not None:
            self._fill(draft)
            ui.notify("Filled in from the link: Write shows the text.")

    def _fill(self, draft: Draft) -> None:
        version = f"{draft.model} {draft.version}"
        if version in self._versions:
            self._choice.set_value(version)
        elif draft.model:
            self._context.alert.show(
                f"The link is for {version}, which does not serve here: the text may differ."
            )
        self._prompt.set_value(draft.prompt)
        self._two.set_value(len(draft.settings) > 1)
        for side, settings in zip(self._sides, draft.settings, strict=False):
            side.form.fill(settings)

    def _example(self) -> None:
        self._fill(Draft(_EXAMPLE, "", 0, _EXAMPLE_SETTINGS))

    @property
    def _used(self) -> tuple[_Side, ...]:
        return self._sides if self._two.value else self._sides[:1]

    def _show_sides(self) -> None:
        self._sides[1].column.set_visibility(bool(self._two.value))

    async def _send(self) -> None:
        """Write instead of what is being written, or is about to be."""
        self._stop_sending()
        self._sending = asyncio.current_task()
        await self._stop()
        try:
            settings = tuple(side.form.read() for side in self._used)
        except WrongSetting as error:
            self._context.alert.show(str(error))
            return
        name, version = self._versions[self._choice.value]
        self._model = model = await self._context.client.model(name, version)
        self._shared = draft = Draft(self._prompt.value or "", name, version, settings)
        self._link.set_visibility(False)
        for side, each in zip(self._used, settings, strict=True):
            self._running[side] = self._context.start(side.write(draft, each, model))

    def _stop_sending(self) -> None:
        """Cancel a `_send` that still waits for the server, before it starts to write."""
        if self._sending is not None:
            self._sending.cancel()

    async def _stop(self) -> list[_Side]:
        """End what is being written; return the sides that were."""
        ended = [side for side, task in self._running.items() if not task.done()]
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._running.clear()
        return ended

    async def _cancel(self) -> None:
        self._stop_sending()
        for side in await self._stop():
            if self._model is not None and self._shared is not None:
                self._context.start(side.rank(self._shared.prompt, self._model))

    async def _share(self) -> None:
        """Show and copy a link that holds the prompt, and the settings with the seeds that were drawn."""
        written = self._sides[: len(self._shared.settings)] if self._shared is not None else ()
        if self._shared is None or any(side.used is None for side in written):
            self._context.alert.show("Write a text first: the link holds the seed that it was written with.")
            return
        used = tuple(
            side.used or settings for side, settings in zip(written, self._shared.settings, strict=True)
        )
        try:
            fragment = fragment_of(replace(self._shared, settings=used))
        except WrongSetting as error:
            self._context.alert.show(str(error))
            return
        said = json.dumps(fragment)
        script = f"history.replaceState(null, '', {said}); return window.location.href"
        self._link.set_value(str(await ui.run_javascript(script, timeout=10)))
        self._link.set_visibility(True)


def _summary(count: int, logprob: float, elapsed_s: float, used: Settings | None, ending: str) -> str:
    """Say how a text ended, in a line."""
    if not count or used is None:
        return ending
    facts = f"{count} tokens, {count / elapsed_s:,.0f} tokens/s, seed {used.seed}"
    return f"{facts}, mean log-probability {logprob / count:.3f}, {ending}"
