"""Commands that are imported when they are run, so that `--help` and completion answer at once."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is ("module:name", a function or a Typer of its own), and what it does."""

    target: str
    summary: str

    def load(self, name: str) -> Any:
        """Import it."""
        module, _, attribute = self.target.partition(":")
        found = getattr(import_module(module), attribute)
        is_group = isinstance(found, typer.Typer)
        command: Any = typer.main.get_command(found) if is_group else _single(name, found)
        command.name = name
        _reflow(command)
        return command


class LazyGroup(TyperGroup):
    """A group whose commands are those in `lazy`, in that order."""

    lazy: ClassVar[dict[str, LazyCommand]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What the list of commands shows; suggestions for a mistyped name look here too.
        self.commands = {
            name: TyperCommand(name, help=command.summary) for name, command in self.lazy.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The real command instead of the one that stands for it in the list."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, self.lazy[name].load(name) if name and stand_in else stand_in, rest


def _single(name: str, function: Callable[..., Any]) -> Any:
    application = typer.Typer(add_completion=False)
    application.command(name)(function)
    return typer.main.get_command(application)


def _reflow(command: Any) -> None:
    """Make each paragraph of the help one line: how wide it is shown is the terminal's business."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for member in getattr(command, "commands", {}).values():
        _reflow(member)
