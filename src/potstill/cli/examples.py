"""Two examples of every command, shown at the end of its help. `tests/docs` parses each as the shell would."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("potstill demo", "potstill demo --out runs/first-try"),
    "shrink": (
        "potstill shrink photos",
        "potstill shrink photos --max-bytes 500kB --minutes 20",
    ),
    "check": ("potstill check photos --html findings.html", "potstill check photos --fix clean.csv"),
    "finetune": (
        "potstill finetune photos --model tf_efficientnet_lite0",
        "potstill finetune photos --model tf_efficientnet_lite0 --unfreeze 2 --balance sqrt",
    ),
    "selftrain": (
        "potstill selftrain photos --unlabelled pool --student builtin:small-cnn",
        "potstill selftrain photos --unlabelled pool --teacher runs/finetune-photos",
    ),
    "label": (
        "potstill label photos --teacher runs/finetune-photos",
        "potstill label photos --teacher teacher.onnx --views 4",
    ),
    "distill": (
        "potstill distill photos --teacher runs/finetune-photos --student builtin:small-cnn",
        "potstill distill digits --teacher builtin:cnn --student builtin:mlp --temperature 4 --seeds 1",
    ),
    "recipes": ("potstill recipes", "potstill recipes copy number-formats"),
    "run": ("potstill run recipe.yaml", "potstill run recipe.yaml train.epochs=5 seeds=1 --out runs/short"),
    "compare": ("potstill compare methods.yaml", "potstill compare methods.yaml seeds=5 --out runs/methods"),
    "explain": (
        "potstill explain runs/distill-photos photo.jpg --teacher runs/distill-photos/teacher",
        "potstill explain model.onnx photos --teacher teacher.onnx --html likeness.html",
    ),
    "prune": ("potstill prune runs/distill-photos --keep 0.5", "potstill prune runs/distill-photos --max-macs 20M"),
    "quantize": (
        "potstill quantize runs/distill-photos",
        "potstill quantize runs/distill-photos --weight-bits 4 --mode qat --epochs 5",
    ),
    "export": ("potstill export runs/distill-photos", "potstill export runs/distill-photos --to tflite,c"),
    "report": ("potstill report runs/distill-photos --open", "potstill report runs/shrink-photos --lang ko"),
    "evaluate": (
        "potstill evaluate runs/distill-photos photos",
        "potstill evaluate student_int8.onnx photos --split validation",
    ),
    "predict": ("potstill predict model_int8.onnx photo.jpg", "potstill predict runs/distill-photos new-photos --json"),
    "app": ("potstill app", "potstill app runs/distill-photos --port 7870 --browser"),
    "models": ("potstill models 'mobilenet*'", "potstill models builtin:resnet20-cifar --bits 8 --size 32 --time"),
    "layers": ("potstill layers builtin:small-cnn", "potstill layers runs/distill-photos --depth 2"),
    "formats": ("potstill formats 7.625 --float e4m3", "potstill formats 0.1 -3.5 --fixed 4.4 --integer 8"),
    "bench": (
        "potstill bench model.onnx model_int8.onnx --data photos",
        "potstill bench --device-profile board.json",
    ),
    "clean": ("potstill clean", "potstill clean runs --days 7 --yes"),
    "debug": ("potstill debug runs/distill-photos", "potstill debug runs/distill-photos/distill/seed-0/diverged"),
}
