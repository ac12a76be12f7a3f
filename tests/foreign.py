"""What code imports that is neither Python's nor ours, and by which names it is installed."""

import ast
import sys

PROVIDED = {"scikit-learn": "sklearn", "pytorch-ignite": "ignite"}  # what is imported of what
OURS = {"torch", "torch_plateau"}


def foreign_modules(code):
    """The packages that code imports, anywhere in it; not torch, which all of it needs."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS
