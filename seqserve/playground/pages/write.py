"""The page Write: text as it is generated."""

from nicegui import ui

from seqserve.playground.context import Context


async def build(context: Context) -> None:
    """Show a prompt and the text that follows it."""
    prompt = ui.textarea("Prompt", value="ROMEO:").classes("w-full")
    text = ui.label().classes("w-full").style("white-space: pre-wrap")

    async def send() -> None:
        text.set_text(prompt.value)
        async for piece in context.client.generate(prompt.value, max_tokens=400, logprobs=True):
            text.set_text(text.text + piece.text)

    ui.button("Write", on_click=context.action(send)).classes("sq-send")
