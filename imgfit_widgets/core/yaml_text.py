"""YAML text as users write it, read in one way for configurations and models.

As in YAML's own rules, and unlike in PyYAML, a key stands once in its mapping: the second of two
would silently win.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["YamlProblem", "load_yaml"]


class YamlProblem(Exception):
    """Text that is not valid YAML; ``place`` is "line 3, column 1", or empty if unknown."""

    def __init__(self, problem: str, mark: yaml.error.Mark | None = None) -> None:
        super().__init__(problem)
        self.place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""


class _Loader(yaml.SafeLoader):
    """Refuses a key that its mapping has already."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.error.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = seen.setdefault((key.tag, key.value), key.start_mark)
                if first is not key.start_mark:
                    raise YamlProblem(
                        f"the key {key.value!r} is given twice, first in line {first.line + 1}",
                        key.start_mark,
                    )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # such as the date 2020-13-01
            raise YamlProblem(str(error), node.start_mark) from None


def load_yaml(text: str) -> Any:
    """The content of YAML text.

    Raises
    ------
    YamlProblem
        What is wrong with the text, and where.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise YamlProblem(str(problem), getattr(error, "problem_mark", None)) from None
    except RecursionError:
        raise YamlProblem("it is nested too deeply") from None
