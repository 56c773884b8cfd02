"""`potstill shrink`: from a folder to the smallest model that does the job.

look -> costs of the candidates -> forecast -> teacher -> plan -> rung 0 (pilots) -> rung 1 -> choice -> proof -> files

Every part is a station that exists; this adds the search and the choice. Parts are resumed: a command that was
interrupted goes on, and other budgets reuse every training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill import artifacts, progress
from potstill.exporters.device_profile import read_profile
from potstill.model_files.runtimes import require
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.progress import parts
from potstill.scheduling import Scheduler, Serial, carried_out
from potstill.scheduling.joint import Joint
from potstill.stages.distill.run import run_recipe
from potstill.stages.run_folder import Journal
from potstill.stages.shrink import choice, forecast, jobs, outcome, plan, proposals, search, ship, starts
from potstill.stages.shrink import teacher as teachers
from potstill.stages.shrink.candidates import Base, Candidate, bases, is_photo
from potstill.stages.shrink.costs import Costs
from potstill.stages.shrink.look import Look, look
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.shrink.speed import Speeds
from potstill.stages.shrink.trials import Trials
from potstill.stages.stage import stage
from potstill.words import percent

FORECAST = "forecast.json"


def shrink(
    config: ShrinkConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Search the smallest model that does the job, in `folder`; return the summary (docs/summary.md).

    An interrupted call is resumed, and a call with other budgets or minutes reuses the finished trainings. Raises
    `ConfigError` for budgets that no candidate keeps, before any training, and for too little time, after that of the
    teacher. scheduler: carries out `config.processes` trainings at a time, by default this process.
    """
    require(*(runtime for runtime in dict.fromkeys(config.to) if runtime != "onnx"))
    return stage(
        "shrink",
        config,
        folder,
        lambda journal: _Shrink(config, folder, journal, scheduler or Serial()).carry_out(),
        name=folder.name,
        command=command,
    )


PARTS = (
    "look",
    "candidates",
    "forecast",
    "priors",
    "teacher",
    "plan",
    "pilots",
    "search",
    "finalists",
    "proof",
    "run",
    "files",
)
"""The parts of a search in their order; without pretrained networks, forecast and priors are left out."""


class _Shrink:
    """The state of one search. goal: names the records that belong to these budgets and minutes."""

    def __init__(self, config: ShrinkConfig, folder: Path, journal: Journal, scheduler: Scheduler) -> None:
        self.config, self.folder, self.journal = config, folder, journal
        self.scheduler = Joint(scheduler, folder, jobs.Job.to_json)  # the same command, started again, takes some
        goal = artifacts.fingerprint([config.budgets.to_json(), config.minutes])[:8]
        self.goal = folder / "goals" / goal
        self.look: Look
        self.forecast: dict[str, Any] = {}

    def carry_out(self) -> dict[str, Any]:
        """Do everything; return the stage's part of the summary."""
        config, timed = self.config, self.journal.timed
        parts.announce(*PARTS)
        self.look = timed("look", "Looked at the images", lambda: look(config.data))
        self.clock = plan.Clock(self.goal / "clock.json")
        parts.end_in(60 * config.minutes - self.clock.seconds)
        found = bases(config.pretrained) if is_photo(self.look.side) else []
        build = proposals.builder(self.look, *proposals.native_input(self.look, config))
        device = read_profile(Path(config.device)) if config.device else None
        costs = Costs(self.folder / "costs.json", build, device)
        every = proposals.proposed(self.look, found, config)
        sketches = timed(
            "candidates", "Counted what the candidates need", lambda: proposals.possible(every, build, costs, config)
        )
        progress.note(proposals.counted(sketches, every))
        if found:
            timed("forecast", "Probed the pretrained networks", lambda: self._backbones(found))
            self.clock.save()
            priors = self.folder / "priors.json"
            sketches = timed(
                "priors",
                "Probed the candidates' layers",
                lambda: proposals.with_priors(sketches, found[0], config, self.look, priors),
            )
            self.clock.save()
        teacher = timed("teacher", "Made the teacher", lambda: self._teacher(found))
        self.clock.save()
        budgets = config.budgets
        ordered = proposals.ordered(sketches, bool(budgets.limits), budgets.max_bytes)
        speeds = Speeds(self.folder / "speeds.json", build, config.processes)
        planned = timed("plan", "Measured candidates, planned", lambda: self._plan(ordered, costs, speeds, teacher))
        return self._searched(planned, ordered, costs, teacher, found)

    def _searched(
        self, planned: plan.Plan, ordered: list[Candidate], costs: Costs, teacher: teachers.Made, bases_: list[Base]
    ) -> dict[str, Any]:
        """Search, choose, prove and deliver."""
        config, timed = self.config, self.journal.timed
        place = search.Place(config, self.folder, self.look, teacher.folder, planned.views)
        by_name = {one.name: one for one in ordered}
        entries = [
            search.Entry(costs.of(by_name[name]).within(config.budgets), planned.epochs[name]) for name in planned.short
        ]
        for one in (entry.candidate for entry in entries if entry.candidate.weights):
            starts.made(one, bases_[0], config, self.look, self.folder)
        trials = Trials(self.folder / "search")
        found = timed("pilots", "Trained pilots", lambda: search.pilots(place, entries, self.scheduler))
        self._expect(found, teacher)
        found = timed(
            "search", "Trained candidates briefly", lambda: search.rung(place, entries, found, self.scheduler, trials)
        )
        final = choice.finalists(entries, found, planned.finalists, config.budgets)
        found = timed(
            "finalists",
            "Trained the best to the end",
            lambda: search.finalists(place, entries, final, found, self.scheduler, trials),
        )
        chosen = choice.choose(final, found, config.budgets, teacher.accuracy)
        progress.note(f"Chosen: {chosen.entry.candidate.name}, {chosen.reason}.")
        self.clock.save()
        outcomes = timed("proof", "Trained the other seeds and the controls", lambda: self._proof(place, chosen, final))
        run = place.run(chosen.entry.candidate, chosen.entry.epochs)
        recipe = place.recipe(chosen.entry.candidate, chosen.entry.epochs)
        proof = timed(
            "run", "Exported, evaluated the test split once", lambda: run_recipe(recipe, run, stores=place.stores)
        )
        picked = ship.picked(run, outcomes, chosen.entry.candidate.bits)
        files = timed(
            "files",
            "Wrote and measured the files",
            lambda: ship.files(picked, chosen.entry.costed, teacher.folder, self.goal, config.to),
        )
        goal, bits = config.budgets.goal, chosen.entry.candidate.bits
        goal = replace(goal, max_latency=None) if config.device else goal  # that is the latency there
        made = ship.exported(self.goal, config.to)
        shipped = ship.delivered(files, picked, bits, made, self.folder, self.look.manifest, goal)
        limits = {
            name: limit for name, limit in config.budgets.limits.items() if not config.device or name == "max_bytes"
        }
        for sentence in ship.exceeded(shipped["ship"], limits):
            progress.note(sentence)
        return outcome.summary(self.look, self.forecast, chosen, found, entries, costs, teacher, proof, shipped, picked)

    def _backbones(self, found: list[Base]) -> None:
        """Probe the pretrained networks at their own sizes."""
        file = self.folder / FORECAST
        if file.is_file():
            self.forecast = artifacts.read_json(file)
            return
        probes: list[tuple[Base, forecast.Backbone]] = []
        with progress.task("Probing pretrained networks", total=len(found)) as task:
            for base in found:
                sampled = forecast.features_of(base, self.config.data, ("pooled",), base.side, self.look.manifest)
                probes.append((base, forecast.probed(base.model, sampled, "pooled", forecast.SHARES)))
                task.advance(text=base.model)
                if not teachers.worth_tuning(probes[-1][1].accuracy, self.look.validation):
                    break  # a larger network could not be seen to be better
        best = max((probe for _, probe in probes), key=lambda probe: probe.accuracy)
        labels = [round(share * best.correct.shape[1]) for share in forecast.SHARES]
        total = len(self.look.manifest.rows("train", labelled=True))
        curve = forecast.learning_curve(labels, best.correct, total, f"probe on {best.model}")
        self.forecast = {
            "backbones": [probe.to_json() for _, probe in probes],
            "curve": {**curve.to_json(), "sentence": curve.sentence},
        }
        artifacts.write_json(file, self.forecast)
        progress.note(forecast.probe_sentence([probe for _, probe in probes]))
        progress.note(curve.sentence)

    def _teacher(self, found: list[Base]) -> teachers.Made:
        """Return the teacher: that of the settings, the best pretrained network, or one trained here."""
        config, folder = self.config, self.folder / "teacher"
        if config.teacher is not None:
            return teachers.given(config, folder)
        images, file = len(self.look.manifest.rows("train", labelled=True)), self.folder / "teacher.json"
        classes = self.look.manifest.classes
        if found:
            probes = self.forecast["backbones"]  # in the order of `found`
            best = teachers.best([one["accuracy"] for one in probes], probes[0]["images"])
            base, tuned = found[best], teachers.worth_tuning(probes[best]["accuracy"], self.look.validation)
            epochs = teachers.epochs_of(file, base.network(classes), config.minutes, images) if tuned else 0
            return teachers.fine_tuned(base, config, folder, self.journal, epochs=epochs)
        native, channels = proposals.native_input(self.look, config)

        def untrained(model: str, options: dict[str, Any]) -> Classifier:
            return zoo.create(model, classes=classes, size=native, channels=channels, options=options)

        return teachers.trained_here(config, folder, file, images, untrained)

    def _plan(self, ordered: list[Candidate], costs: Costs, speeds: Speeds, teacher: teachers.Made) -> plan.Plan:
        """Return the plan of this goal, made once."""
        file = self.goal / "plan.json"
        if not file.is_file():
            images = len(self.look.manifest.rows("train"))
            left = 60 * self.config.minutes - self.clock.seconds
            photo, budgets = is_photo(self.look.side), self.config.budgets
            answer = teacher.seconds() if photo else 0.0  # small images are answered in no time
            limit = plan.Time(
                max(left, 1.0), images, self.config.processes, self.config.seeds, answer, allowed=self.config.minutes
            )
            made = plan.made(ordered, costs, speeds, limit, budgets, photo=photo)
            artifacts.write_json(file, made.to_json())
        self.clock.save()
        return plan.Plan.from_json(artifacts.read_json(file))

    def _expect(self, found: search.Found, teacher: teachers.Made) -> None:
        """Complete the forecast with the pilots' results, and show it."""
        rows = self.look.manifest.rows
        best = max(outcome.accuracy[32] for outcome in found.short.values())
        expected = forecast.expected(
            best, teacher.accuracy, validation=self.look.validation, test=len(rows("test", labelled=True))
        )
        sentence = forecast.gain_sentence(found.gain)
        self.forecast |= {"student": expected.to_json(), "gain": {**found.gain.to_json(), "sentence": sentence}}
        progress.note(sentence)
        if found.kind == "control":
            lost = f"these pilots lost {-found.gain.difference:.1f} points with the teacher"
            progress.note(
                f"Candidates are trained on the labels only: {lost}, more than two standard errors over the images. "
                "The interval above allows for the choice of pilots too."
            )
        low, high = expected.interval
        progress.note(
            f"Forecast: {percent(expected.accuracy)} test accuracy for the chosen student (between {percent(low)} and "
            f"{percent(high)}); the teacher has {percent(teacher.accuracy)} on validation."
        )

    def _proof(
        self, place: search.Place, chosen: choice.Choice, final: list[search.Entry]
    ) -> dict[tuple[jobs.Kind, int], jobs.Outcome]:
        """Train students and controls of all seeds; return their outcomes by kind and seed."""
        entry = chosen.entry
        bits = {each.candidate.bits for each in final if each.candidate.network == entry.candidate.network}
        first = place.job(entry, entry.epochs, full=True, bits=bits, kind="student")
        seeds = range(self.config.seed, self.config.seed + self.config.seeds)
        kinds: tuple[jobs.Kind, jobs.Kind] = ("student", "control")
        keys: list[tuple[jobs.Kind, int]] = [(kind, seed) for seed in seeds for kind in kinds]
        every = [first.of(kind, seed) for kind, seed in keys]
        return dict(zip(keys, carried_out(self.scheduler, every, "Training students and controls"), strict=True))
