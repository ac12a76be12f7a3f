"""docs/errors.md has the words of the source: all it lists is raised, and all that needs it listed.

A message of the page is held against templates: the strings in the source, in which the page has
three dots, or one word, for what is put into them. Messages of the form ``name: expected ...``
explain themselves; all others that are raised, warned of or printed by a command that stops must
be on the page.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
SOURCES = sorted((ROOT / "python" / "torch_plateau").rglob("*.py"))
ANYTHING = "\0"
SELF_EXPLAINING = re.compile(r"[^ ]*: expected |\0, got shape ")
PUT_IN = r"(?:\.\.\.|\S*)"  # what a page may show of a value: three dots, or one word of it
CALLS = ("warn", "stop")
# Not for users of the package: abstract methods, the benchmarks' own checks, the end of a command,
# and what becomes another error on its way.
ELSEWHERE = {
    *("NotImplementedError", "DifferenceError", "SystemExit", "Exit"),
    *("UnpicklingError", "_NothingToWriteError"),
}


def template_of(node):
    """The words of a string in the source, with ANYTHING where values come in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{}", ANYTHING)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            each.value if isinstance(each, ast.Constant) else ANYTHING for each in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template_of(node.left) + template_of(node.right)
    return ANYTHING


def says_enough(template):
    return len(re.findall(r"\w", template)) >= 7


def fits(message, template):
    parts = template.split(ANYTHING)
    if not all(part in message for part in parts):
        return False
    return re.fullmatch(PUT_IN.join(map(re.escape, parts)), message) is not None


@cache
def nodes():
    return [
        (path, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]


@cache
def templates():
    found = {template_of(node) for _, node in nodes()}
    return sorted(each for each in found if says_enough(each))


@cache
def raised():
    """What is raised, warned of or stopped with: the name of the class or function, the words."""
    found = set()
    for path, node in nodes():
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or "bench" in path.parts:
            continue
        name = ast.unparse(call.func).split(".")[-1]
        if (isinstance(node, ast.Raise) or name in CALLS) and name not in ELSEWHERE:
            found.add((name, template_of(call.args[0]) if call.args else ""))
    return sorted(found)


@cache
def tables():
    """The rows of the page's tables: of each the code in the first cell, by its header."""
    rows, header, cells = {}, None, 0
    for token in MarkdownIt().enable("table").parse(PAGE.read_text(encoding="utf-8")):
        if token.type == "thead_open":
            header = None
        elif token.type == "tr_open":
            cells = 0
        elif token.type == "inline" and token.level > 2:
            cells += 1
            if header is None:
                header = token.content
            elif cells == 1:
                code = [each.content for each in token.children if each.type == "code_inline"]
                rows.setdefault(header, []).extend(code)
    return rows


def test_the_page_has_tables():
    assert len(tables()["message"]) > 100
    assert len(set(tables()["message"])) == len(tables()["message"])


@pytest.mark.parametrize("message", tables()["message"])
def test_a_message_of_the_page_is_one_of_the_source(message):
    assert [each for each in templates() if fits(message, each)]


def test_messages_of_another_form_are_on_the_page():
    missing = [
        (name, words)
        for name, words in raised()
        if says_enough(words)
        and not SELF_EXPLAINING.match(words)
        and not any(fits(message, words) for message in tables()["message"])
    ]
    assert missing == []


def test_every_class_that_is_raised_is_on_the_page():
    classes = {name for name, _ in raised() if name not in (*CALLS, "differs")}
    assert classes <= {*tables()["class"]}
    assert {*tables()["class"]} <= classes | {"UserWarning"}
