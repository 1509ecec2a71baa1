"""A text file that is whole or not there.

In: a path in a folder that exists, and text. Out: the file.
"""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write aside, sync, then rename; raises OSError, and an older file of that name is then as it was.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write(file, "the gulls\\n")
    >>> file.read_text(encoding="utf-8"), len(list(file.parent.iterdir()))
    ('the gulls\\n', 1)
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
