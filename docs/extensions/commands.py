"""The directive `commands`: a section for each command of `pconv-onnx`, from its argparse parser."""

from __future__ import annotations

import argparse
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pconv_onnx.cli.arguments import parser


class Commands(SphinxDirective):
    """Sections in Markdown, so that they are parsed as the page around them."""

    def run(self) -> list[nodes.Node]:
        """One section a command."""
        program = parser()
        (subparsers,) = (action for action in program._actions if isinstance(action, argparse._SubParsersAction))
        lines = [line for name, sub in subparsers.choices.items() for line in section(name, sub)]
        return self.parse_text_to_nodes(
            StringList(lines, source="pconv_onnx/cli/arguments.py"), allow_section_headings=True
        )


def section(name: str, sub: argparse.ArgumentParser) -> list[str]:
    """The Markdown of one command: its usage, and what its arguments mean."""
    usage = re.sub(r"^usage: ", "", sub.format_usage()).rstrip()
    lines = [f"## {name}", "", sub.description or "", "", "```text", *usage.splitlines(), "```", ""]
    described = [action for action in sub._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    described.sort(key=lambda action: bool(action.option_strings))
    lines += ["| argument | meaning |", "|---|---|"]
    return [*lines, *(f"| `{_spelling(action)}` | {_help(action, sub)} |" for action in described), ""]


def _spelling(action: argparse.Action) -> str:
    """`-o, --output FILE`, `--steps T [T ...]`."""
    formatter = argparse.HelpFormatter("pconv-onnx")
    if not action.option_strings:
        return formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
    spelled = ", ".join(action.option_strings)
    if action.nargs == 0:
        return spelled
    # With spaces a list of choices can be broken.
    values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return f"{spelled} {values.replace(',', ', ')}"


def _help(action: argparse.Action, sub: argparse.ArgumentParser) -> str:
    """The help text, in which nothing is Markdown; options become code, whose hyphens stay."""
    values: dict[str, Any] = {**vars(action), "prog": sub.prog}
    text = (action.help or "") % values
    escaped = re.sub(r"([\\`*_{}\[\]<>|$])", r"\\\1", text)
    return re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", escaped)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
