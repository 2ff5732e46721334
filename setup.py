"""Everything but one thing is in pyproject.toml: a wheel carries `rewards/` and `recipes/` inside the
package.

They stand at the top of the checkout, where users read and edit them. As top-level packages of a wheel their
names would clash with other projects', so the build copies them to `r1rl/_bundled/`. An editable install
reads them from the checkout.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BUNDLED = {"rewards": ("*.py", "*.md"), "recipes": ("*.yaml", "*.txt", "*.md", "*.jsonl")}


class BuildWithBundledFolders(build_py):
    """setuptools' build_py, then the bundled folders."""

    def run(self) -> None:
        """Build the package, then copy the folders unless the install is editable."""
        super().run()
        if self.editable_mode:
            return
        for source in self.bundled_sources():
            target = Path(self.build_lib, "r1rl", "_bundled", source)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(target))

    def get_source_files(self) -> list[str]:
        """What a source distribution must contain besides the package."""
        return [*super().get_source_files(), *(str(source) for source in self.bundled_sources())]

    def bundled_sources(self) -> list[Path]:
        """Every file of the bundled folders, relative to the checkout."""
        return sorted(
            file
            for folder, patterns in BUNDLED.items()
            for pattern in patterns
            for file in Path(folder).rglob(pattern)
        )


setup(cmdclass={"build_py": BuildWithBundledFolders})
