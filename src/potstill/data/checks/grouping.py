r"""Groups that a data set has without saying so: tracks of frames, photos of one object, bursts, near-duplicates.

Where the frames of one film are split at random, a model is tested on images that it has nearly seen. Candidates come
from the paths (folders below the classes, numbered series, shared prefixes), from EXIF and from near-duplicates. A
candidate is proposed only if the images agree: the most similar other image of an image must lie in the same group much
more often than chance would have it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.data.checks.finding import Finding
from potstill.data.checks.survey import Survey
from potstill.data.formats.facts import gather
from potstill.data.formats.groups import EXIF, NEAR_COPIES, bursts, keys_of, near_components
from potstill.data.formats.sources import Encoded
from potstill.data.manifest import UNLABELLED, Manifest
from potstill.words import argument, plural

_NAMES = (  # what the images of a group share, and the part of the path that is the same
    ("lie in one folder", r"([^/]+/[^/]+)/[^/]+$", r"([^/]+)/[^/]+$"),
    ("are a numbered series", r"([^/]+/[^/]*?)[-_. ]*\d+\.[^/.]+$", r"([^/]*[^/\d])\d+\.[^/.]+$"),
    ("begin with the same name", r"([^/]+/[^-_. /]+)[-_. ][^/]*$", r"([^-_. /]+)[-_. ][^/]*$"),
    ("begin with the same number", r"([^/]+/\d+)[^/\d][^/]*$", r"(?:^|/)(\d+)[^/\d][^/]*$"),
)
_FEWEST = 20  # images, below which nothing can be found
_SAMPLE, _AMONG = 2_000, 20_000  # images whose most similar one is looked for, and the images it is looked for among
_LIFT, _TIMES = 0.15, 2.0  # how far above chance the most similar image must be in the group, in share and in multiples
_NEAR_SHARE = 0.05  # of the images that have a near-duplicate
_BLOCK = 256
_SHOWN = 5  # images of a group


@dataclass(frozen=True)
class Proposal:
    """A way to group images. pattern: the value of `--group`. groups: how many there are, with two or more images.

    images: how many are in them. alike, chance: share 0..1 of the images whose most similar other image is in the same
    group, and what it would be at random. what: what the images of a group share. rows: the rows of each group.
    """

    pattern: str
    groups: int
    images: int
    alike: float
    chance: float
    what: str
    rows: Sequence[Sequence[int]] = ()

    @property
    def flag(self) -> str:
        """The flag as it is typed in a shell."""
        return f"--group {argument(self.pattern)}"

    @property
    def text(self) -> str:
        """One sentence for the user."""
        return (
            f"{plural(self.images, 'image')} {self.what}, in {plural(self.groups, 'group')}: the most similar other "
            f"image lies in the same group for {100 * self.alike:.0f} % of them ({100 * self.chance:.1f} % at random)."
        )


def groups(survey: Survey) -> Iterator[Finding]:
    """Yield a finding with the flag if images belong together and are not grouped, or if groups are in two splits."""
    yield from _across(survey)
    proposal = propose_groups(survey)
    if proposal is not None:
        advice = (
            "Split at random, they would be in train and test at once, and test accuracy would be inflated. "
            f"Keep each group in one split: {proposal.flag} ({plural(proposal.groups, 'group')})"
        )
        yield Finding(
            "groups", "warning", proposal.groups, proposal.text, advice, [part[:_SHOWN] for part in proposal.rows]
        )


def _across(survey: Survey) -> Iterator[Finding]:
    members: dict[str, list[int]] = {}
    for row, key in enumerate(survey.groups or ()):
        members.setdefault(key, []).append(row)
    rows = [part for part in members.values() if len(set(survey.split[part].tolist())) > 1]
    if rows:
        text = f"{plural(len(rows), 'group has', 'groups have')} images in more than one split of the data."
        advice = "Test accuracy will be inflated. Move each group into one split, or leave the splits to potstill."
        yield Finding("groups-across", "warning", len(rows), text, advice, rows)


def propose_groups(images: Manifest | Survey) -> Proposal | None:
    """Return the best way to group images that belong together; None if they are grouped, or nothing is found.

    images: a manifest of image files (their facts are cached), or a survey. Images in arrays have no names or EXIF, and
    nothing is proposed for them.
    """
    survey = images if isinstance(images, Survey) else _surveyed(images)
    if survey is None or survey.groups is not None or not isinstance(survey.source, Encoded) or not survey.classes:
        return None
    rows = _comparable(survey)
    if len(rows) < _FEWEST:
        return None
    nearest = _Nearest.of(survey, rows)
    found = [one for one in _candidates(survey, rows, nearest) if one is not None]
    return max(found, key=lambda one: (one.alike - one.chance, one.groups), default=None) or _of_near(survey)


def _surveyed(manifest: Manifest) -> Survey | None:
    source = manifest.source
    if not isinstance(source, Encoded):
        return None
    if manifest.kept is not None:
        source = source.only(manifest.kept.tolist())
    groups = None if manifest.group is None else [str(key) for key in manifest.group.tolist()]
    columns = (gather(source), manifest.label, manifest.split, manifest.classes)
    return Survey(manifest.root, source, *columns, groups=groups)


def _comparable(survey: Survey) -> np.ndarray:
    """Return one labelled row of each content, int64; of very many a part."""
    first: dict[str, int] = {}
    for row, fact in enumerate(survey.facts):
        if not fact.fault and "blank" not in fact.traits and survey.label[row] != UNLABELLED:
            first.setdefault(fact.sha256, row)
    rows = np.array(sorted(first.values()), dtype=np.int64)
    if len(rows) <= _AMONG:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, _AMONG, replace=False))


@dataclass(frozen=True)
class _Nearest:
    """The most similar other image of some images: positions in `rows` of both, and of the nearest in another class."""

    sample: np.ndarray
    nearest: np.ndarray
    elsewhere: np.ndarray

    @classmethod
    def of(cls, survey: Survey, rows: np.ndarray) -> _Nearest:
        hashes = np.array([survey.facts[row].likeness for row in rows.tolist()], dtype=np.uint64)
        draw, label = np.random.default_rng(0), survey.label[rows]
        sample = np.sort(draw.permutation(len(rows))[:_SAMPLE])
        nearest, elsewhere = [], []
        for block in np.split(sample, range(_BLOCK, len(sample), _BLOCK)):
            apart = np.bitwise_count(hashes[block][:, None] ^ hashes[None]).astype(np.float32)
            apart += draw.random(apart.shape, dtype=np.float32) * 0.5  # of equally similar ones any
            apart[np.arange(len(block)), block] = np.inf
            nearest.append(apart.argmin(1))
            elsewhere.append(np.where(label[block][:, None] == label[None], np.inf, apart).argmin(1))
        return cls(sample, np.concatenate(nearest), np.concatenate(elsewhere))

    def shares(self, group: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        """Return the share of the sampled images, in groups of two or more, whose `other` is in their group; and by
        chance."""
        sizes = np.bincount(group)[group]
        inside = sizes[self.sample] > 1
        if not inside.any():
            return 0.0, 0.0
        same = (group[self.sample] == group[other])[inside]
        return float(same.mean()), float((sizes[self.sample] - 1)[inside].mean() / max(len(group) - 1, 1))


def _candidates(survey: Survey, rows: np.ndarray, nearest: _Nearest) -> Iterator[Proposal | None]:
    paths = [str(survey.paths[row]) for row in rows.tolist()]
    for what, within, across in _NAMES:
        own, shared = (_searched(pattern, paths) for pattern in (within, across))
        merged = _merged(own, shared, survey.label[rows], nearest)
        yield _judged(across if merged else within, what, shared if merged else own, rows, survey, nearest)
    facts = [survey.facts[row] for row in rows.tolist()]
    what = "were taken by one camera within a minute of each other"
    yield _judged(EXIF, what, keys_of(bursts(facts), facts), rows, survey, nearest)


def _searched(pattern: str, paths: Sequence[str]) -> list[str | None]:
    matches = map(re.compile(pattern).search, paths)
    return [None if match is None else match[1] for match in matches]


def _merged(own: list[str | None], shared: list[str | None], label: np.ndarray, nearest: _Nearest) -> bool:
    """Whether one name in two classes means one group: a patient, and not track 1 of each class.

    Numbers that begin at 0 or 1 in every class are counted anew in each, unless the images look alike.
    """
    classes: dict[str, set[int]] = {}
    for key, k in zip(shared, label.tolist(), strict=True):
        if key is not None:
            classes.setdefault(key, set()).add(k)
    twice = sum(len(labels) > 1 for labels in classes.values())
    if not twice:
        return False
    if not _counted(classes):
        return True
    share, chance = nearest.shares(_numbers(shared), nearest.elsewhere)
    return share >= chance + _LIFT and share >= _TIMES * chance


def _counted(classes: dict[str, set[int]]) -> bool:
    """Whether the numbers in the keys of each class are nearly all from 0 or 1 up to how many there are."""
    numbers: dict[int, set[int]] = {}
    for key, labels in classes.items():
        digits = re.findall(r"\d+", key)
        for k in labels if digits else ():
            numbers.setdefault(k, set()).add(int(digits[-1]))
    dense = [max(held) <= 1.2 * len(held) + 1 for held in numbers.values()]
    return bool(dense) and sum(dense) > len(dense) / 2


def _numbers(keys: Sequence[str | None]) -> np.ndarray:
    """Return a number for each key, int64; rows without a key have one each."""
    known: dict[str, int] = {}
    return np.array(
        [len(keys) + row if key is None else known.setdefault(key, len(known)) for row, key in enumerate(keys)]
    )


def _judged(
    pattern: str, what: str, keys: list[str | None], rows: np.ndarray, survey: Survey, nearest: _Nearest
) -> Proposal | None:
    """Return the proposal if it leaves enough groups, covers half of the images, and the images agree."""
    sizes = Counter(key for key in keys if key is not None)
    several = {key for key, size in sizes.items() if size > 1}
    images = sum(sizes[key] for key in several)
    covered = images >= len(rows) / (5 if pattern == EXIF else 2)
    if not covered or len(several) < 2 * len(survey.classes):
        return None
    alike, chance = nearest.shares(_numbers(keys), nearest.nearest)
    if alike < chance + _LIFT or alike < _TIMES * chance:
        return None
    members: dict[str, list[int]] = {}
    for row, key in zip(rows.tolist(), keys, strict=True):
        if key in several:
            members.setdefault(str(key), []).append(row)
    return Proposal(pattern, len(several), images, alike, chance, what, list(members.values()))


def _of_near(survey: Survey) -> Proposal | None:
    """Return the groups of near-duplicates, if many images have one."""
    component = near_components(survey.source, survey.facts)
    order = np.argsort(component, kind="stable")
    parts = [part.tolist() for part in np.split(order, np.flatnonzero(np.diff(component[order])) + 1)]
    members = [part for part in parts if len({survey.facts[row].sha256 for row in part}) > 1]
    images = sum(map(len, members))
    if images < _NEAR_SHARE * len(survey):
        return None
    chance = images / max(len(members) * len(survey), 1)
    return Proposal(NEAR_COPIES, len(members), images, 1.0, chance, "have a near-duplicate", members)
