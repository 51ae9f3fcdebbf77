"""service.models.table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import InvalidArgument, NotFound, NotReady, NotServed, ServiceError
from service.models.table import Entry, Status, VersionTable
from tests.service.builders import load_repository


@pytest.fixture(scope="module")
def table(letters_and_moods: Path) -> Iterator[VersionTable]:
    """The table of a repository that serves letters 3 and 2, and moods 1."""
    opened = load_repository(letters_and_moods, versions=2)
    yield opened.table
    opened.stop()


@pytest.fixture
def copy(table: VersionTable) -> VersionTable:
    """A table of one's own with the same entries."""
    copied = VersionTable()
    copied.set(*table.entries())
    return copied


def error_of(table: VersionTable, name: str, version: int) -> ServiceError:
    with pytest.raises(ServiceError) as refusal:
        table.find(name, version, "text-generation")
    return refusal.value


# Finding.


def test_endless_name_is_named_briefly(table: VersionTable) -> None:
    error = error_of(table, "\x01" * (1 << 20), 0)
    assert isinstance(error, NotFound)
    assert len(str(error)) < 300


@pytest.mark.parametrize(("version", "found"), [(0, 3), (3, 3), (2, 2)])
def test_version_zero_means_the_newest_and_others_mean_themselves(
    table: VersionTable, version: int, found: int
) -> None:
    assert table.find("letters", version, "text-generation").spec.version == found


def test_unknown_model_is_answered_with_those_there_are(table: VersionTable) -> None:
    error = error_of(table, "latters", 0)
    assert isinstance(error, NotFound)
    assert str(error) == "model 'latters': expected one of letters, moods, found no such model"


@pytest.mark.parametrize("version", [1, 99])
def test_unknown_version_is_answered_with_those_that_serve(table: VersionTable, version: int) -> None:
    error = error_of(table, "letters", version)
    assert isinstance(error, NotFound)
    assert str(error) == f"model 'letters': expected one of the versions that serve (3, 2), found {version}"


def test_missing_name_is_answered_with_those_for_the_task(table: VersionTable) -> None:
    error = error_of(table, "", 0)
    assert isinstance(error, InvalidArgument)
    assert str(error) == "model: expected the name of a model (letters), found none"


def test_model_for_another_task_is_answered_with_those_for_the_task(table: VersionTable) -> None:
    error = error_of(table, "moods", 0)
    assert isinstance(error, InvalidArgument)
    assert str(error) == (
        "model: expected a model for text-generation (letters), found moods, which is for text-classification"
    )


def test_version_that_is_still_loading_is_not_ready() -> None:
    table = VersionTable()
    table.set(Entry("letters", 3, Status.LOADING))
    error = error_of(table, "letters", 0)
    assert isinstance(error, NotReady)
    assert str(error) == "model letters version 3 is still loading"


def test_refused_version_is_not_served_with_the_reason() -> None:
    table = VersionTable()
    table.set(Entry("letters", 3, Status.FAILED, "it was bad"))
    error = error_of(table, "letters", 3)
    assert isinstance(error, NotServed)
    assert str(error) == "model letters version 3 was refused: it was bad"


def test_draining_version_is_answered_with_those_that_serve(copy: VersionTable) -> None:
    copy.set(Entry("letters", 3, Status.DRAINING))
    error = error_of(copy, "letters", 3)
    assert isinstance(error, NotFound)
    assert str(error) == "model 'letters': expected one of the versions that serve (2), found 3"


# Looking.


def test_entries_are_sorted_by_name_and_newest_first(table: VersionTable) -> None:
    assert [(entry.name, entry.version) for entry in table.entries()] == [
        ("letters", 3),
        ("letters", 2),
        ("moods", 1),
    ]


def test_serving_versions_of_a_model_come_newest_first(copy: VersionTable) -> None:
    copy.set(Entry("letters", 4, Status.LOADING), Entry("letters", 1, Status.FAILED))
    assert [entry.version for entry in copy.serving("letters")] == [3, 2]
    assert copy.serving("nobody") == []


def test_get_without_a_version_is_the_newest_that_serves_or_else_the_newest(copy: VersionTable) -> None:
    copy.set(Entry("letters", 4, Status.LOADING), Entry("fresh", 1, Status.LOADING))
    copy.set(Entry("fresh", 2, Status.FAILED))
    assert copy.get("letters", 0).version == 3
    assert copy.get("letters", 4).status is Status.LOADING
    assert copy.get("fresh", 0).version == 2


def test_entry_is_exactly_that_version_or_none(table: VersionTable) -> None:
    found = table.entry("letters", 2)
    assert found is not None
    assert (found.name, found.version) == ("letters", 2)
    assert table.entry("letters", 0) is table.entry("letters", 9) is None


def test_empty_table_knows_nothing() -> None:
    with pytest.raises(NotFound, match="expected one of none"):
        VersionTable().get("letters", 0)


def test_entry_keeps_the_text_of_its_spec(table: VersionTable, letters_and_moods: Path) -> None:
    entry = table.get("letters", 2)
    assert entry.served is not None
    assert entry.served.spec_text == (letters_and_moods / "letters" / "2" / "model.json").read_text()


def test_entry_without_a_served_version_cannot_answer(table: VersionTable) -> None:
    assert all(entry.can_answer for entry in table.entries())
    assert not Entry("letters", 4, Status.LOADING).can_answer


# Changes.


def test_version_that_was_found_is_not_found_again_after_a_change(copy: VersionTable) -> None:
    assert copy.find("letters", 0, "text-generation").spec.version == 3
    copy.set(Entry("letters", 3, Status.DRAINING))
    assert copy.find("letters", 0, "text-generation").spec.version == 2
    copy.remove(copy.get("letters", 2))
    assert isinstance(error_of(copy, "letters", 0), NotFound)


def test_several_changes_are_made_at_once(copy: VersionTable) -> None:
    copy.set(Entry("letters", 3, Status.DRAINING), Entry("letters", 4, Status.LOADING))
    assert [entry.status for entry in copy.entries()] == [
        Status.LOADING,
        Status.DRAINING,
        Status.READY,
        Status.READY,
    ]


def test_entry_whose_place_was_taken_is_not_removed(copy: VersionTable) -> None:
    before = copy.get("letters", 3)
    copy.set(later := Entry("letters", 3, Status.LOADING))
    copy.remove(before)
    assert copy.entry("letters", 3) is later
    copy.remove(later)
    assert copy.entry("letters", 3) is None
