"""How fast distillation is, beside a plain loop and torchdistill: ResNet-56 teaches ResNet-20 on 32 x 32 images.

    python benchmarks/speed.py [--json] [--cifar FOLDER --weights FILE] [--torchdistill PYTHON] [--record]

Without --cifar the images are noise and the teacher is untrained, which is as fast. PYTHON is one in which
torchdistill 1.1.5 is installed beside what potstill needs; by default the one that runs this. --json prints the
figures by name (`overhead` is a fraction: 0.03 is 3 %), their bars, and how they came about.
"""

from __future__ import annotations

import sys
from pathlib import Path

import results
from peers import speed, world


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as train/CLASS/*.jpg")
    parser.add_argument("--weights", type=Path, help="weights of the teacher")
    parser.add_argument("--torchdistill", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    given = parser.parse_args()
    images = world.cifar(given.cifar, given.weights) if given.cifar else world.generated()
    settings = {"rounds": given.rounds, "seconds": given.seconds, "threads": given.threads}
    found = speed.measure(images, **settings, torchdistill=given.torchdistill)
    results.tell("speed", found, speed.table(found), given)


if __name__ == "__main__":
    main()
