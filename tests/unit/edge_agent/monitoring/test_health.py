"""The condition of a release: wrong golden samples, failures and hangs of the model, and the recovery from each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.inference.engine import Engine, LoadedRelease
from edge_agent.lifecycle import trial_rules
from edge_agent.monitoring.health import Health

from tests.support.agent.serving import Backend, behaving, device, installed, run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return device(tmp_path, serve={"request_timeout_s": 0.2})


class Faulty:
    """A model that computes what `good` computes, except for the golden samples in `wrong` and `failing`."""

    def __init__(self, good: LoadedRelease) -> None:
        self.good = good
        self.wrong: set[int] = set()
        self.failing: set[int] = set()

    def release(self) -> LoadedRelease:
        return behaving(self.good, Backend(self.run, batch=1))

    def run(self, x: np.ndarray) -> np.ndarray:
        sample = next(i for i, golden in enumerate(self.good.golden_inputs) if (golden == x[0]).all())
        if sample in self.failing:
            raise RuntimeError("out of memory")
        probabilities = self.good.golden_outputs[sample : sample + 1]
        return np.log(probabilities[:, ::-1] if sample in self.wrong else probabilities)


@pytest.mark.parametrize("kind", ["wrong", "failing"])
def test_one_wrong_golden_sample_makes_a_release_unhealthy_until_that_sample_passes(config: Config, kind: str) -> None:
    model = Faulty(installed(config))
    count = len(model.good.golden_inputs)

    async def main() -> None:
        engine = Engine(config.serve)
        health = Health(engine, 10.0, 1.0)
        await engine.swap(model.release())
        for _ in range(count):
            await health.probe()
        assert health.condition().healthy

        getattr(model, kind).add(2)
        reasons = []
        for _ in range(2 * count):
            await health.probe()
            reasons.append(health.condition().reason)
        assert reasons == ["healthy"] * 2 + ["golden_samples_wrong"] * (2 * count - 2)
        assert {"wrong": "sample 2", "failing": "golden sample 2 failed"}[kind] in health.condition().detail

        getattr(model, kind).clear()
        reasons = []
        for _ in range(count):
            await health.probe()
            reasons.append(health.condition().reason)
        assert reasons == ["golden_samples_wrong"] * 2 + ["healthy"] * (count - 2)
        await engine.close()

    run(main)


def test_a_trial_ends_at_once_for_a_wrong_output_but_not_for_one_error(config: Config) -> None:
    model = Faulty(installed(config))

    async def main() -> None:
        engine = Engine(config.serve)
        health = Health(engine, 10.0, 0.01)
        await engine.swap(model.release())
        model.failing.add(0)
        await health.probe()
        assert trial_rules.decide(config.trial, health.observation()).action == "wait"
        model.wrong.add(1)
        await health.probe()
        decision = trial_rules.decide(config.trial, health.observation())
        assert (decision.action, "a golden sample differs by" in decision.reason) == ("back", True)
        await engine.close()

    run(main)


def test_a_model_that_hangs_is_healthy_again_after_its_next_result(config: Config) -> None:
    good = installed(config)
    backend = Backend(Faulty(good).run, held=True)

    async def main() -> None:
        engine = Engine(config.serve)
        health = Health(engine, 0.1, 0.01)
        await engine.swap(behaving(good, backend))
        assert (health.condition().reason, health.condition().ready) == ("release_loading", True)
        await health.probe()
        assert (health.condition().reason, health.condition().ready) == ("model_hangs", False)
        backend.go.set()
        await health.probe()
        assert health.condition().healthy
        await engine.close()

    run(main)


def test_a_model_that_fails_requests_is_not_ready(config: Config) -> None:
    model = Faulty(installed(config))

    async def main() -> None:
        engine = Engine(config.serve)
        health = Health(engine, 10.0, 0.5)
        await engine.swap(model.release())
        await health.probe()
        model.failing.add(3)
        for _ in range(trial_rules.LEAST_ERRORS):
            with pytest.raises(Exception, match="out of memory"):
                await engine.predict(model.good.golden_inputs[3:4])
        condition = health.condition()
        assert (condition.reason, condition.ready) == ("model_fails", False)
        assert condition.detail == "5 of 6 inferences failed"
        for _ in range(trial_rules.LEAST_ERRORS):
            await engine.predict(model.good.golden_inputs[:1])
        assert health.condition().healthy
        await engine.close()

    run(main)
