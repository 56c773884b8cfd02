"""What a store of up to a million images takes: resident memory, seconds, bytes on disk.

python benchmarks/store.py [--json] [--sizes 10000 100000 1000000] [--folder FOLDER] [--record]
"""

from __future__ import annotations

from pathlib import Path

import results
from peers import scale


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=scale.SIZES, help="images, rising")
    parser.add_argument("--folder", type=Path, help="where the stores are written for a while")
    given = parser.parse_args()
    found = scale.measure(given.sizes, folder=given.folder, threads=given.threads)
    results.tell("store", found, scale.table(found), given)


if __name__ == "__main__":
    main()
