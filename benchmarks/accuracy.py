"""Whether potstill's faster loop learns as much as the published one: ResNet-56 teaches ResNet-20 on part of CIFAR-10.

    python benchmarks/accuracy.py --cifar FOLDER --weights FILE [--json] [--record]

--explain trains the published loop with Nesterov momentum, mirrored borders, bf16 and repeated views, one at a time;
--until 91 measures the minutes until that accuracy (with --images 50000 --test-images 10000): hours, which can be had
one after another with --keep FOLDER and --loops; torchdistill is measured where it is installed, and the loop
potstill-blocks starts with blocks of the teacher, unlike the others, and is in no bar.

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg, FILE the weights of the teacher. About five minutes on two idle
cores, nearly all of it the published loop.
"""

from __future__ import annotations

from pathlib import Path

import results
from peers import accuracy, until, world
from peers.rivals import SGD


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4096, help="to train on")
    parser.add_argument("--test-images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--views", type=int, nargs="+", default=[2], help="of each image; --until tries several")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--explain", action="store_true", help="the published loop with each difference alone")
    parser.add_argument("--until", type=float, metavar="PERCENT", help="minutes until this test accuracy is reached")
    parser.add_argument("--budgets", type=int, nargs="+", default=(8, 16, 32, 64), help="epochs that --until tries")
    parser.add_argument("--loops", nargs="+", choices=until.LOOPS, default=until.LOOPS[:2], help="that --until trains")
    parser.add_argument("--weight-decay", type=float, default=SGD["weight_decay"], help="of the loops of --until")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="of trainings, which --until reads back or goes on with"
    )
    given = parser.parse_args()
    train = world.cifar(given.cifar, given.weights, count=given.images)
    test = world.cifar(given.cifar, split="test", count=given.test_images)
    if given.explain:
        found = accuracy.explain(train, test, epochs=given.epochs, seeds=given.seeds, threads=given.threads)
        results.tell("explain", found, accuracy.explained(found), given)
        return
    if given.until:
        tried = {"loops": given.loops, "budgets": given.budgets, "views": given.views, "keep": given.keep}
        settings = {"weight_decay": given.weight_decay, "threads": given.threads}
        found = until.measure(train, test, given.until, **tried, **settings)
        results.tell("until", found, until.table(found), given)
        return
    settings = {"epochs": given.epochs, "seeds": given.seeds, "views": given.views[0], "threads": given.threads}
    found = accuracy.measure(train, test, **settings)
    results.tell("accuracy", found, accuracy.table(found), given)


if __name__ == "__main__":
    main()
