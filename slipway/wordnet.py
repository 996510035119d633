"""Synonyms from the database files of WordNet 3, where they are on this machine; docs/checks.md says where.

The format is that of https://wordnet.princeton.edu/documentation/wndb5wn. Knows nothing of checks.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from slipway.errors import ConfigFileError

__all__ = ["WordNet", "find_wordnet"]

DEBIAN = Path("/usr/share/wordnet")
"""Where Debian's ``wordnet-base`` puts the files."""
VARIABLE = "WNSEARCHDIR"
"""WordNet's own variable for another directory."""
_PARTS = ("noun", "verb", "adj", "adv")


def find_wordnet(environ: Mapping[str, str]) -> WordNet | None:
    """Give the WordNet of this machine; None where not all of its files are there.

    Args:
        environ: Has ``WNSEARCHDIR`` where it is not in Debian's place.
    """
    directory = Path(environ.get(VARIABLE) or DEBIAN)
    names = [f"{kind}.{part}" for kind in ("index", "data") for part in _PARTS]
    return WordNet(directory) if all((directory / name).is_file() for name in names) else None


class WordNet:
    """Looks words up in the files in a directory, which are opened when the first word is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened: dict[str, mmap.mmap] = {}
        self.synonyms = lru_cache(maxsize=4096)(self._synonyms)
        """Give the words, in lower case, among whose synonyms ``word`` is: those of its synsets that spell it so."""

    def _synonyms(self, word: str) -> frozenset[str]:
        """Look one word up.

        Raises:
            ConfigFileError: A file is not what WordNet's documentation says.
        """
        found: set[str] = set()
        for part in _PARTS:
            for written in self._synsets(word, part):
                if word in written:
                    found.update(other.partition("(")[0].lower() for other in written)
        return frozenset(found - {word})

    def _synsets(self, word: str, part: str) -> Iterator[list[str]]:
        """Give the words of each synset that a word is in, as they are written."""
        try:
            line = _line_of(self._file(f"index.{part}"), word.encode(errors="surrogatepass"))
            fields = line.split()
            count = int(fields[2]) if fields else 0
            data = self._file(f"data.{part}")
            for offset in fields[len(fields) - count :]:
                synset = data[int(offset) : data.find(b"\n", int(offset))].decode().split()
                yield synset[4 : 4 + 2 * int(synset[3], 16) : 2]
        except (IndexError, ValueError):
            raise ConfigFileError(
                "this is no file of WordNet 3.",
                file=self._directory / f"index.{part}",
                fix=f"Name the directory of such files in {VARIABLE}, or leave {VARIABLE} unset.",
            ) from None

    def _file(self, name: str) -> mmap.mmap:
        if name not in self._opened:
            with (self._directory / name).open("rb") as file:
                self._opened[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._opened[name]


def _line_of(index: mmap.mmap, word: bytes) -> bytes:
    """Find the line that begins with a word, among lines in the order of their bytes; nothing where there is none."""
    low, high = 0, len(index)
    while low < high:
        middle = (low + high) // 2
        start = index.rfind(b"\n", low, middle) + 1 or low
        end = index.find(b"\n", middle)
        end = len(index) if end < 0 else end
        line = index[start:end]
        key = line.partition(b" ")[0]  # nothing for the lines of the licence
        if key == word and word:
            return line
        if key < word:
            low = end + 1
        else:
            high = start
    return b""
