"""The long description of the package: README.md as an index can show it."""

import sys
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Fills in `readme`, with the repository's address where [project.urls] has one."""

    def update(self, metadata):
        """Changes the table `project` of pyproject.toml in place."""
        sys.path.insert(0, str(Path(self.root, "docs")))
        from for_index import for_index

        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        address = metadata.get("urls", {}).get("Repository")
        text = for_index(text, metadata["version"], address)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
