"""Damage to bytes as a value, drawn from a seed or by hypothesis.

What is damaged is something valid, because nonsense is refused by the first line of a parser.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from hypothesis import strategies as st

MOST = 4
_LONGEST_SLICE = 64
_LONGEST_NOISE = 8
_FARTHEST = 0xFFFF
_MOST_REPEATS = 40


class Kind(Enum):
    """What is done at a place: `data` is put there, or what stands there is treated so."""

    PUT = auto()
    FLIP = auto()
    DELETE = auto()
    REPEAT = auto()
    MOVE = auto()
    CUT = auto()


_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One damage at the byte `at`, to `length` bytes; both are taken modulo what there is."""

    kind: Kind
    at: int
    length: int
    to: int
    data: bytes

    def apply(self, original: bytes) -> bytes:
        """Do it."""
        at = self.at % (len(original) + 1)
        end = min(len(original), at + self.length)
        before, there, after = original[:at], original[at:end], original[end:]
        match self.kind:
            case Kind.PUT:
                return before + self.data + after
            case Kind.FLIP:
                flipped = bytes(byte ^ (1 << self.to % 8) for byte in there[:1])
                return before + flipped + there[1:] + after
            case Kind.DELETE:
                return before + after
            case Kind.REPEAT:
                return before + there * (1 + self.to % _MOST_REPEATS) + after
            case Kind.MOVE:
                rest = before + after
                to = self.to % (len(rest) + 1)
                return rest[:to] + there + rest[to:]
            case Kind.CUT:
                return before


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """Valid originals, damaged one to `most` times; what is put in is often a word of the list."""

    originals: Sequence[bytes] = field(repr=False)
    words: Sequence[bytes] = field(repr=False)
    most: int = MOST

    def draw(self, random: Random) -> bytes:
        """Make one: a hundred times as fast as hypothesis would."""
        data = random.choice(self.originals)
        for _ in range(random.randint(1, self.most)):
            data = self._drawn(random).apply(data)
        return data

    def strategy(self) -> st.SearchStrategy[bytes]:
        """Give the same to hypothesis."""
        data = st.sampled_from(self.words) | st.binary(max_size=_LONGEST_NOISE)
        place = st.integers(0, _FARTHEST)
        mutation = st.builds(
            Mutation,
            kind=st.sampled_from(Kind),
            at=place,
            length=st.integers(0, _LONGEST_SLICE),
            to=place,
            data=data,
        )
        return st.builds(
            _applied,
            st.sampled_from(self.originals),
            st.lists(mutation, min_size=1, max_size=self.most),
        )

    def _drawn(self, random: Random) -> Mutation:
        noise = random.randbytes(random.randint(0, _LONGEST_NOISE))
        return Mutation(
            kind=random.choice(_KINDS),
            at=random.randint(0, _FARTHEST),
            length=random.choice((1, 1, random.randint(0, _LONGEST_SLICE))),
            to=random.randint(0, _FARTHEST),
            data=random.choice((random.choice(self.words), noise)),
        )


def _applied(original: bytes, damages: Sequence[Mutation]) -> bytes:
    for damage in damages:
        original = damage.apply(original)
    return original
