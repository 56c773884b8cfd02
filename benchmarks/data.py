"""Training batches a second: potstill's loader beside torchvision's ImageFolder + DataLoader + v2 transforms.

    python benchmarks/data.py [--json] [--cifar FOLDER] [--photos FOLDER] [--record]

FOLDER holds train/CLASS/*.jpg; what is not given is generated.
"""

from __future__ import annotations

from pathlib import Path

import results
from peers import loading


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as train/CLASS/*.jpg")
    parser.add_argument("--photos", type=Path, help="photos as train/CLASS/*.jpg")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    given = parser.parse_args()
    settings = {"repeats": given.repeats, "seconds": given.seconds, "threads": given.threads}
    found = loading.measure(cifar=given.cifar, photos=given.photos, **settings)
    results.tell("data", found, loading.table(found), given)


if __name__ == "__main__":
    main()
