"""Launch links, for whoever hosts the course: Binder and Colab badges, and the line that installs it on Colab.

    python tools/launch.py

writes them into README.md and the notebooks, as often as you like, for the repository that pyproject.toml names:

    [tool.pd-notebooks]
    repository = "owner/name"  # on GitHub
    branch = "main"

With repository = "" there are none, and the command removes those it wrote.
"""

import sys
from pathlib import Path

import badges
import build
from course_files import Parser, exit_code


def main(folder: Path = badges.NOTEBOOKS) -> int:
    """Command line; returns the exit code."""
    path = folder.parent / "README.md"
    try:
        text = badges.readme(before := path.read_text(encoding="utf-8"), folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"README.md cannot be read ({error.strerror}); git checkout brings it back", file=sys.stderr)
        return 2
    if text != before:
        build.write(path, text)
        print(f"{path.name}: written")
    code = 0
    for name in build.sources(folder):
        try:
            if build.disagreements(name, folder):
                build.keep_outputs(name, folder)
                print(f"{name}: written")
        except build.BuildError as error:
            code = max(code, exit_code(error))
            print(error, file=sys.stderr)
    return code


if __name__ == "__main__":
    Parser(description="Write launch badges, for the repository that pyproject.toml names.").parse_args()
    sys.exit(main())
