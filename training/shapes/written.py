"""Written dates in ten forms, none of which is ambiguous, and the days that are held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import torch

# Not those of the calendar module, which follow the locale.
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SHORT = 3
SEPARATOR = "|"
END = "\n"
FIRST_YEAR, LAST_YEAR = 1900, 2099
HELD_OUT_SHARE = 0.1
DEVELOPMENT_SHARE = 0.01

Form = Callable[[date], str]


def _month(day: date) -> str:
    return MONTHS[day.month - 1]


def _weekday(day: date) -> str:
    return WEEKDAYS[day.weekday()]


def _ordinal(number: int) -> str:
    teens = range(11, 14)
    return f"{number}{'th' if number in teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


# By how each writes the fourth of July 2026. With slashes the month comes first, with points the day: one day
# each.
FORMS: Mapping[str, Form] = {
    "Saturday, 4 July 2026": lambda day: f"{_weekday(day)}, {day.day} {_month(day)} {day.year}",
    "4 July 2026": lambda day: f"{day.day} {_month(day)} {day.year}",
    "4 Jul 2026": lambda day: f"{day.day} {_month(day)[:SHORT]} {day.year}",
    "4th of July 2026": lambda day: f"{_ordinal(day.day)} of {_month(day)} {day.year}",
    "July 4, 2026": lambda day: f"{_month(day)} {day.day}, {day.year}",
    "Sat, Jul 4, 2026": lambda day: f"{_weekday(day)[:SHORT]}, {_month(day)[:SHORT]} {day.day}, {day.year}",
    "7/4/2026": lambda day: f"{day.month}/{day.day}/{day.year}",
    "4.7.2026": lambda day: f"{day.day}.{day.month}.{day.year}",
    "2026 July 4": lambda day: f"{day.year} {_month(day)} {day.day}",
    "20260704": lambda day: f"{day.year:04}{day.month:02}{day.day:02}",
}
VOCABULARY = END + "".join(
    sorted({*"".join((*MONTHS, *WEEKDAYS)), *"0123456789 ,./-" + SEPARATOR + "stndrdthof"})
)


@dataclass(frozen=True, slots=True)
class Days:
    """Days of a range of years, shuffled and cut: no day is in two parts, in whatever form."""

    train: Sequence[date]
    develop: Sequence[date]
    held_out: Sequence[date]


def split(seed: int, first_year: int = FIRST_YEAR, last_year: int = LAST_YEAR) -> Days:
    """Return all days of those years, cut into parts."""
    start = date(first_year, 1, 1)
    days = [start + timedelta(number) for number in range((date(last_year + 1, 1, 1) - start).days)]
    order = torch.randperm(len(days), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = [days[index] for index in order]
    held_out, develop = round(len(days) * HELD_OUT_SHARE), round(len(days) * DEVELOPMENT_SHARE)
    return Days(shuffled[held_out + develop :], shuffled[held_out : held_out + develop], shuffled[:held_out])


def question(form: str, day: date) -> str:
    """Return what the model reads: the written date and the separator."""
    return FORMS[form](day) + SEPARATOR


def answer(day: date) -> str:
    """Return what the model should say."""
    return day.isoformat() + END
