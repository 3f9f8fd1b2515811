"""Check the whole data set against a great-expectations suite, and write the results as web pages (Data Docs).

great-expectations does not read the rows of the data set. It reads a small table, the profile, in which each source has
one row: its numbers of rows and groups, the fraction of each class, and the means and extremes of its columns. Ibis
computes the profile. The suite (`tasks/<task>/expectations.json`) has the expectations for the profile.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.core.errors import ContractError, StageError

if TYPE_CHECKING:
    import pandas as pd

REMEDY = 'write {"name": ..., "expectations": [{"type": ..., "kwargs": {...}}]}; see docs/reference/data-contract.md'
UUID = r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"


def read_suite(path: Path) -> dict[str, Any]:
    """Return the great-expectations suite in the file `path`.

    Raises ContractError if the file is missing, is not valid JSON, or has no expectations.
    """
    try:
        suite = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(str(path), "there is no such file", "a great-expectations suite", REMEDY) from None
    except ValueError as error:
        raise ContractError(str(path), f"not readable as JSON: {error}", "a great-expectations suite", REMEDY) from None
    if not isinstance(suite, dict) or set(suite) != {"name", "expectations"} or not suite["expectations"]:
        raise ContractError(
            str(path),
            "it is not a suite, or it has no expectations",
            "a JSON object with `name` and `expectations`",
            REMEDY,
        )
    return suite


def run_suite(
    profile: pd.DataFrame, suite: dict[str, Any], path: Path, snapshot: datetime, data_docs: Path
) -> list[StageError]:
    """Check the profile against the suite, and write the results as web pages (Data Docs).

    Args:
        profile: The profile: a table with one row for each source.
        suite: The great-expectations suite, as JSON.
        path: File of the suite, for error messages.
        snapshot: Time of the snapshot, which the pages show as the time of the check.
        data_docs: Folder in which the pages are written.

    Returns:
        An error for each expectation that is not met.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs.resolve())},
    }
    context = gx.get_context(
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            data_docs_sites={"data_docs": site},
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        )
    )
    asset = context.data_sources.add_pandas("profile").add_dataframe_asset("sources")
    expected = context.suites.add(gx.ExpectationSuite(name=suite["name"], expectations=_expectations(suite, path)))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name="profile", data=asset.add_batch_definition_whole_dataframe("sources"), suite=expected
        )
    )
    checkpoint = context.checkpoints.add(gx.Checkpoint(name="contract", validation_definitions=[definition]))
    # The name and time of the check are those of the snapshot, so that the pages do not depend on the current time.
    run_id = RunIdentifier(run_name="snapshot", run_time=snapshot.astimezone(UTC))
    result = checkpoint.run(batch_parameters={"dataframe": profile}, run_id=run_id)
    context.build_data_docs()
    _make_deterministic(data_docs, snapshot)
    return [
        _fault(path, outcome, profile)
        for run in result.run_results.values()
        for outcome in run.results
        if not outcome.success
    ]


def _expectations(suite: dict[str, Any], path: Path) -> list[Any]:
    """Return the expectations of the suite as objects of great-expectations. Raises ContractError if one is invalid.

    The objects are created one by one. If great-expectations creates a whole suite from dictionaries, it skips invalid
    expectations and only logs them.
    """
    from great_expectations.exceptions.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    built = []
    for number, expectation in enumerate(suite["expectations"]):
        try:
            built.append(ExpectationConfiguration(**expectation).to_domain_obj())
        except (GreatExpectationsError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            where = f"{path}: expectations[{number}]"
            raise ContractError(where, reason, "a valid expectation of great-expectations", REMEDY) from None
    return built


def _fault(path: Path, outcome: Any, profile: pd.DataFrame) -> ContractError:
    config = outcome.expectation_config
    arguments = {name: value for name, value in sorted(config.kwargs.items()) if name not in ("batch_id", "column")}
    column = config.kwargs.get("column", "the profile")
    exceptions = outcome.exception_info or {}
    if column in profile.columns:
        values = ", ".join(f"{row['source']}: {row[column]}" for _, row in profile.iterrows())
    else:
        values = f"no such column of the profile, which has {', '.join(profile.columns)}"
        exceptions = {}
    for details in exceptions.values():
        if isinstance(details, dict) and details.get("raised_exception"):
            values += f" ({details['exception_message']})"
    return ContractError(
        f"{path}: {column}",
        f"found {values}",
        f"{config.type} {json.dumps(arguments, default=str)}",
        "correct the source, or the suite if the data has changed",
    )


def _make_deterministic(data_docs: Path, snapshot: datetime) -> None:
    """Change the pages of Data Docs so that the same data always gives the same files.

    great-expectations writes random ids, the current time and the URL of an image into the pages. The image is on a
    server of the vendor, which could record each visit to a page, so the URL is replaced by a local path.
    """
    stamp = snapshot.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    for page in sorted(data_docs.rglob("*.html")):
        root = "../" * (len(page.relative_to(data_docs).parts) - 1)
        text = page.read_text(encoding="utf-8")
        logo = f"{root}static/images/logo-long.png"
        text = re.sub(r"https://great-expectations-web-assets[^\"')]*", logo, text)
        text = re.sub(r"\d{8}T\d{6}\.\d{6}Z", stamp, text)
        for number, identity in enumerate(dict.fromkeys(re.findall(UUID, text))):
            text = text.replace(identity, f"id-{number}")
        page.write_text(text, encoding="utf-8")
