"""How YAML files are read: what PyYAML would drop without a word, or expand without end, is an error."""

from __future__ import annotations

from typing import Any

import yaml


class UniqueKeys(yaml.SafeLoader):
    """YAML in which no key stands twice in a mapping; PyYAML would take the last and drop the others."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; raises `yaml.YAMLError` if one of its keys stands twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for place, key in enumerate(keys) if key in keys[:place]), None):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{twice} stands twice in the mapping that begins in line {line}; remove one of them")
        return super().construct_mapping(node, deep)


class Plain(UniqueKeys):
    """The same without aliases: a few of them can expand to billions of values."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        """Return the next value; raises `yaml.YAMLError` if it is an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(
                f"*{event.anchor} in line {event.start_mark.line + 1} refers to another part of the "
                "file; write out what it stands for"
            )
        return super().compose_node(parent, index)
