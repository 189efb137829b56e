"""One finished run that the tests of a page's sections look at."""

from __future__ import annotations

import pytest

from decant.pipeline.report.subject import Subject
from tests.helpers.subjects import OWN, VIEWS, made


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Students of images through two views, with layers that are another in training, beside some on labels alone."""
    student = "student.network={name='conv', width=2}"
    return made(tmp_path_factory.mktemp("sections"), *OWN, *VIEWS, student, "student.seeds=2")
